"""Two or three convolutions, and what stands between them, as one regular convolution.

    Wₙ ∗ … f(W₁ ∗ x + b₁) … + bₙ   →   W ∗ x + b,         W = Wₙ ∘ … ∘ W₁
    x + (Wₙ ∗ … f(W₁ ∗ x + b₁) …)  →   (W + I) ∗ x + b
    …                              →   W ∗ relu(x) + b

The activations between are dropped, squeeze-and-excitations with them. What that gives: an inverted
residual (1×1, depthwise, 1×1) or a bottleneck as one k×k convolution (RAN-e, Bhardwaj et al. 2022,
section 3.1; Layer Folding, Ben Dror et al. 2022), its first two layers as one, which leaves a fused
MBConv (Xiong et al. 2021), two layers of a stack as one with a larger kernel (DepthShrinker, Fu et
al. 2022). A linear block may get a ReLU in front, so that the network keeps a non-linearity there.

W starts as the composition of the kernels, as though nothing stood between them; the repair fits it
to what the block gave. Approximate, bound by the budget. Depthwise and small kernels grow into
regular and large ones, so whether it pays is in the price.

Requires: constant weights, no output of the graph on the way, an input that is at most 8 times as
many products, and 2304 weights an output, which a few dozen images can fit.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from functools import reduce

from actcc.blocks import Chain, Link, find_chains, residual_of
from actcc.errors import PassError
from actcc.graph import Graph, Node
from actcc.linear import (
    Axis,
    Convolution,
    Obstacle,
    Types,
    add,
    as_operands,
    composed_axis,
    composition_inside,
    composition_obstacle,
    convolution_of,
    element_of,
    fits,
    identity,
    spatial_sizes,
    types_in_every_run,
)
from actcc.pass_api import Pass, rewrite
from actcc.site import Candidate, Fact, Refusal, Site
from actcc.targets import Target

_LONGEST = 3
_MOST_WEIGHTS = 2304
_MOST_GROWTH = 8
_RELU = "Relu"


@rewrite("collapse-convolutions")
class CollapseConvolutions(Pass):
    """Convolution, activation, convolution (and once more)  →  one convolution."""

    def sites(self, graph: Graph) -> Iterable[Site | Refusal]:
        """One site for each part of a chain that can collapse, with and without its residual."""
        types = types_in_every_run(graph)
        for chain in find_chains(graph):
            for length in range(2, min(_LONGEST, len(chain)) + 1):
                for start in range(len(chain) - length + 1):
                    yield from _sites(graph, chain[start : start + length], types)

    def candidates(self, site: Site, target: Target) -> Iterable[Candidate | Refusal]:
        """The convolution alone, and behind a ReLU."""
        if not site.facts["beside a residual"]:
            yield Candidate(f"Conv {site.facts['kernel']}")
        if site.facts["linear"]:
            yield Candidate(f"{_RELU}, Conv {site.facts['kernel']}")

    def apply(self, graph: Graph, site: Site, candidate: Candidate) -> None:
        """Put the composed convolution in the place of the layers."""
        types = types_in_every_run(graph)
        layers = [graph.node(name) for name in str(site.facts["layers"]).split("\n")]
        found = [_readable(graph, layer, types) for layer in layers]
        merged = reduce(composition_inside, found)
        source = graph.tensor(site.reads)
        if site.facts["residual"]:
            sizes = spatial_sizes(source, merged.rank, types)
            whole = add([merged, identity(merged.inputs, merged.rank)], sizes)
            if isinstance(whole, Obstacle):
                raise PassError(f"site '{site.id}': the residual does not fit: {whole.reason}")
            merged = whole
        element = element_of(graph, layers[0])
        if not fits([merged.weights, merged.bias], element):
            raise PassError(
                f"site '{site.id}': the composed weights overflow or lose digits in {element}"
            )
        if candidate.name.startswith(_RELU):
            source = graph.insert(_RELU, [source], like=source)
        inputs, attributes = as_operands(graph, merged, source, element, f"{site.writes}_collapsed")
        graph.replace(site, "Conv", inputs, **attributes)


def _readable(graph: Graph, layer: Node, types: Types) -> Convolution:
    found = convolution_of(graph, layer, types)
    if isinstance(found, Obstacle):
        raise PassError(f"convolution '{layer.name}' cannot be collapsed: {found.reason}")
    return found


def _sites(graph: Graph, links: Chain, types: Types) -> Iterator[Site | Refusal]:
    if any(link.op != "Conv" for link in links):
        return
    first, last = links[0], links[-1]
    subject = f"{last.gives} ({len(links)} layers)"
    found = [convolution_of(graph, graph.node(link.layer), types) for link in links]
    problem = _obstacle(graph, links, found, types)
    if problem:
        yield Refusal(subject, problem)
        return
    axes, _ = _outline([c for c in found if isinstance(c, Convolution)])
    nodes = [name for link in links[:-1] for name in link.nodes] + [last.layer]
    residual = residual_of(graph, links)
    facts: dict[str, Fact] = {
        "layers": "\n".join(link.layer for link in links),
        "kernel": "x".join(str(axis.kernel) for axis in axes),
        "residual": False,
        "beside a residual": residual is not None,
        "linear": last.is_bare,
    }
    kind = _kind(links, found)
    if residual is None or last.is_bare:
        yield Site(nodes, first.reads, last.gives, kind, facts, subject)
    if residual is not None:
        written = residual.outputs[0].name
        facts = {**facts, "residual": True, "beside a residual": False, "linear": False}
        whole = f"{written} ({len(links)} layers)"
        yield Site([*nodes, residual.name], first.reads, written, f"{kind}+Add", facts, whole)


def _kind(links: Chain, found: Sequence[Convolution | Obstacle]) -> str:
    """Kernels in order, "dw" for depthwise ones: "1x1, dw 3x3, 1x1"."""
    names = []
    for link, one in zip(links, found, strict=True):
        if isinstance(one, Convolution):
            depthwise = one.groups == one.inputs > 1
            kernel = "x".join(str(taps) for taps in one.weights.shape[2:])
            gate = ", SE" if link.gated and link is not links[-1] else ""
            names.append(f"{'dw ' if depthwise else ''}{kernel}{gate}")
    return ", ".join(names)


def _obstacle(
    graph: Graph, links: Chain, found: Sequence[Convolution | Obstacle], types: Types
) -> str:
    """Why the links do not collapse into one convolution; empty where they do."""
    convolutions: list[Convolution] = []
    for one in found:
        if isinstance(one, Obstacle):
            return one.reason
        convolutions.append(one)
    if all(link.is_bare for link in links[:-1]) and _is_exact(graph, links, convolutions, types):
        return "nothing stands between them: merge-convolutions does it exactly"
    axes, groups = _outline(convolutions)
    first, last = convolutions[0], convolutions[-1]
    weights = first.inputs // groups * math.prod(axis.kernel for axis in axes)
    if weights > _MOST_WEIGHTS:
        return f"{weights} weights an output are more than a few dozen images can fit"
    positions = [_positions(graph, link) for link in links]
    if None not in positions:
        present = sum(
            c.weights.size * (p or 0) for c, p in zip(convolutions, positions, strict=True)
        )
        growth = weights * last.outputs * (positions[-1] or 0) / max(present, 1)
        if growth > _MOST_GROWTH:
            return f"it would have {growth:.0f} times as many products"
    return ""


def _is_exact(graph: Graph, links: Chain, layers: Sequence[Convolution], types: Types) -> bool:
    if len(layers) > 2:
        return False  # its pairs are sites of their own
    first, second = layers
    sizes = spatial_sizes(graph.tensor(links[0].reads), first.rank, types)
    return not composition_obstacle(first, second, sizes)


def _outline(layers: Sequence[Convolution]) -> tuple[list[Axis], int]:
    """Sampling and groups of the composition."""
    axes = [reduce(composed_axis, column) for column in zip(*(c.axes for c in layers), strict=True)]
    return axes, math.gcd(*(c.groups for c in layers))


def _positions(graph: Graph, link: Link) -> int | None:
    shape = graph.shape(link.gives)
    sizes = [] if shape is None else [size for size in shape[2:] if isinstance(size, int)]
    return math.prod(sizes) if shape is not None and len(sizes) == len(shape) - 2 else None
