"""Linear branches that read one tensor and are added become one convolution.

    W₁ ∗ x + b₁  +  s · (W₂ ∗ x + b₂) + t  +  AveragePool(x)  +  x   =   W ∗ x + b

The sum is an Add, a Sum, or several of them; a branch is what is added, followed back through nodes
that nothing else reads:

1. Conv of any kernel, dilation and groups;
2. BatchNormalization, of the tensor or behind a Conv;
3. AveragePool that divides by the same number everywhere;
4. several of these in a row, where they compose exactly at the padded border too;
5. nothing: the tensor itself.

(RepVGG, Ding et al. 2021, section 3; MobileOne, Vasu et al. 2023; QARepVGG, Chu et al. 2024; a
residual connection over a single convolution.) What else is added stays, behind the convolution.

Requires: strides and output sizes are equal; all weights are constant; the merged convolution has
no more weights than those it is made of, so that it always pays. A depthwise 3×3 beside a dense
1×1 stays. Runs before fold-batch-norm, which then finds a BatchNormalization behind the sum.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from actcc.graph import Graph, Node, Tensor
from actcc.linear import (
    LARGER,
    Branch,
    Convolution,
    Obstacle,
    Sizes,
    Types,
    add,
    added_weights,
    as_operands,
    branch_convolution,
    branch_weights,
    element_of,
    fits,
    identity,
    is_sum,
    is_whole_sum,
    parallel_branches,
    spatial_sizes,
    terms_of,
)
from actcc.pass_api import NormalizingPass
from actcc.site import Site


class MergeParallelConvolutions(NormalizingPass):
    """Add of Conv, BatchNormalization, AveragePool and identity of one tensor  →  one Conv."""

    name = "merge-parallel-convolutions"

    def run(self, graph: Graph) -> tuple[Graph, list[str]]:
        """The graph itself, how many branches were merged, and why others were not."""
        if graph.opset < 7:
            return graph, []
        types = graph.types
        merged: Counter[str] = Counter()
        kept: Counter[str] = Counter()
        for name in [node.outputs[0].name for node in graph.nodes() if is_whole_sum(graph, node)]:
            for outcome in self._merge_all(graph, name, types):
                kept.update(outcome.notes if isinstance(outcome, _Merger) else [outcome.reason])
                if isinstance(outcome, _Merger):
                    merged.update(convolutions=1, branches=len(outcome.branches))
        notes = [f"kept {count} parallel branches: {reason}" for reason, count in kept.items()]
        if merged:
            counts = merged["branches"], merged["convolutions"]
            notes.insert(0, "merged {} parallel branches into {} Conv".format(*counts))
        return graph, notes

    def _merge_all(self, graph: Graph, name: str, types: Types) -> Iterator[_Merger | Obstacle]:
        """Merge what one sum adds, a source at a time; each source is tried once."""
        tried: set[str] = set()
        while (node := graph.producer(name)) is not None and is_sum(node):
            sums, terms = terms_of(graph, node)
            groups = parallel_branches(graph, terms)
            group = next((found for found in groups if found[0].source.name not in tried), None)
            if group is None:
                return
            tried.add(group[0].source.name)
            outcome = _merger(graph, group, types)
            yield outcome
            if isinstance(outcome, _Merger):
                site = Site([*sums, *outcome.nodes], group[0].source, name)
                with graph.marking(self.name, name, "Conv"):
                    _rewrite(graph, site, terms, outcome)


@dataclass(frozen=True, eq=False)
class _Merger:
    """Branches that are one convolution; the notes say why others of their source are not."""

    branches: tuple[Branch, ...]
    convolution: Convolution
    notes: tuple[str, ...]

    @property
    def nodes(self) -> list[Node]:
        return [node for branch in self.branches for node in branch.nodes]


def _merger(graph: Graph, group: Sequence[Branch], types: Types) -> _Merger | Obstacle:
    """The branches that fit the one with the most weights."""
    read, notes = _read(graph, group, types)
    if not read or not read[0][0].layers:
        return Obstacle(notes[0])
    (first, total), *rest = read
    sizes = spatial_sizes(first.source, total.rank, types)
    taken, allowed = [first], branch_weights(graph, first)
    for branch, convolution in rest:
        larger = _added(total, convolution, sizes, allowed + branch_weights(graph, branch))
        if isinstance(larger, Obstacle):
            notes.append(larger.reason)
            continue
        total, allowed = larger, allowed + branch_weights(graph, branch)
        taken.append(branch)
    if len(taken) < 2:
        return Obstacle(notes[0])
    element = element_of(graph, first.layers[0])
    if not fits([total.weights, total.bias], element):
        return Obstacle("the merged weights would overflow or lose digits")
    return _Merger(tuple(taken), total, tuple(notes))


def _read(
    graph: Graph, group: Sequence[Branch], types: Types
) -> tuple[list[tuple[Branch, Convolution]], list[str]]:
    """Branches as convolutions, those with the most weights first, and why others are none."""
    read: list[tuple[Branch, Convolution]] = []
    notes: list[str] = []
    for branch in group:
        if branch.nodes:
            found = branch_convolution(graph, branch, types)
            if isinstance(found, Obstacle):
                notes.append(found.reason)
            else:
                read.append((branch, found))
    read.sort(key=lambda entry: -branch_weights(graph, entry[0]))
    if read:
        plain = identity(read[0][1].inputs, read[0][1].rank)
        read += [(branch, plain) for branch in group if not branch.nodes]
    return read, notes


def _added(
    total: Convolution, other: Convolution, sizes: Sizes, allowed: int
) -> Convolution | Obstacle:
    if added_weights([total, other], sizes) > allowed:
        return Obstacle(LARGER)
    return add([total, other], sizes)


def _rewrite(graph: Graph, site: Site, terms: Sequence[Tensor], merger: _Merger) -> None:
    """The convolution in the place of its branches; other terms are added to it."""
    layer = merger.branches[0].layers[0]
    inputs, attributes = as_operands(
        graph,
        merger.convolution,
        graph.tensor(site.reads),
        element_of(graph, layer),
        layer.inputs[1].name,
    )
    left = list(terms)
    for branch in merger.branches:
        left.remove(branch.term)
    if not left:
        graph.replace(site, "Conv", inputs, **attributes)
        return
    total = graph.insert("Conv", inputs, **attributes)
    for term in left[:-1]:
        total = graph.insert("Add", [total, term])
    graph.replace(site, "Add", [total, left[-1]])
