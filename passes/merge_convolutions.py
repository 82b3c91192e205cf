"""A convolution directly behind another becomes part of it.

    W₂ ∗ (W₁ ∗ x + b₁) + b₂  =  (W₂ ∗ W₁) ∗ x + b     kernel k₁ + (k₂ − 1)·s₁, stride s₁·s₂

1×1 ∘ k×k, k×k ∘ 1×1, k×k ∘ k×k, depthwise ∘ pointwise, with dilations and groups; the algebra, and
when it is exact at the padded border, is in `actcc.linear.composition`. It rarely has fewer
multiplications, but it is one layer instead of two: whether it pays is in the price.

Requires: nothing else reads what the first one writes; constant weights. A chain of three is
offered as its two pairs; the result is a model like any other, so that a second run merges the
rest.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from actcc.errors import PassError
from actcc.graph import Graph, Node
from actcc.graph.operators import ONNX_DOMAINS
from actcc.linear import (
    Convolution,
    Obstacle,
    Types,
    as_operands,
    compose,
    composed_weights,
    composition_obstacle,
    convolution_of,
    element_of,
    fits,
    largest_composed,
    only_read_by,
    spatial_sizes,
    types_in_every_run,
)
from actcc.pass_api import Pass, rewrite
from actcc.site import Candidate, Refusal, Site
from actcc.targets import Target

# A depthwise layer of wide kernels before a dense one multiplies its weights by the number of
# channels; beyond this, 256 MiB in single precision, no target gains from one layer less.
_MOST_WEIGHTS = 2**26


@rewrite("merge-convolutions", exact=True)
class MergeConvolutions(Pass):
    """Conv, Conv  →  Conv."""

    def sites(self, graph: Graph) -> Iterable[Site | Refusal]:
        """One site for each pair, in topological order, and why others are not offered."""
        types = types_in_every_run(graph)
        for second in graph.nodes("Conv"):
            first = graph.producer(second.inputs[0])
            if first is None or first.op != "Conv" or first.domain not in ONNX_DOMAINS:
                continue
            problem = _obstacle(graph, first, second, types)
            if problem:
                yield Refusal(second.outputs[0].name, problem)
            else:
                yield Site([first, second], first.inputs[0], second.outputs[0], "Conv+Conv")

    def candidates(self, site: Site, target: Target) -> Iterable[Candidate | Refusal]:
        """The one convolution."""
        yield Candidate("Conv")

    def apply(self, graph: Graph, site: Site, candidate: Candidate) -> None:
        """Write the composition in the place of both."""
        first, second = (graph.node(name) for name in site.nodes)
        merged = _composed(graph, first, second, types_in_every_run(graph))
        if isinstance(merged, Obstacle):
            raise PassError(f"site '{site.id}' cannot be merged any more: {merged.reason}")
        element, stem = element_of(graph, second), second.inputs[1].name
        if not fits([merged.weights, merged.bias], element):
            raise PassError(f"site '{site.id}': the merged weights would lose digits in {element}")
        inputs, attributes = as_operands(graph, merged, first.inputs[0], element, stem)
        graph.replace(site, "Conv", inputs, **attributes)


def _pair(
    graph: Graph, first: Node, second: Node, types: Types
) -> tuple[Convolution, Convolution] | Obstacle:
    one, two = (convolution_of(graph, node, types) for node in (first, second))
    if isinstance(one, Obstacle):
        return Obstacle(f"the first layer: {one.reason}")
    return Obstacle(f"the second layer: {two.reason}") if isinstance(two, Obstacle) else (one, two)


def _obstacle(graph: Graph, first: Node, second: Node, types: Types) -> str:
    if not only_read_by(graph, first.outputs[0]):
        return "what the first layer writes is also read elsewhere"
    pair = _pair(graph, first, second, types)
    if isinstance(pair, Obstacle):
        return pair.reason
    problem = composition_obstacle(*pair, spatial_sizes(first.inputs[0], pair[0].rank, types))
    if not problem and composed_weights(*pair) > _MOST_WEIGHTS:
        return f"one convolution would have {composed_weights(*pair):,} weights"
    if not problem and largest_composed(*pair) > float(np.finfo(element_of(graph, second)).max):
        return "the merged weights may overflow"
    return problem


def _composed(graph: Graph, first: Node, second: Node, types: Types) -> Convolution | Obstacle:
    pair = _pair(graph, first, second, types)
    if isinstance(pair, Obstacle):
        return pair
    return compose(*pair, spatial_sizes(first.inputs[0], pair[0].rank, types))
