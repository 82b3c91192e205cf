"""A block with fewer inner units: of an inverted residual, a bottleneck, an MLP, two convolutions.

    W₂ · f(W₁·x + b₁) + b₂   →   W₂[:, J] · f(W₁[J, :]·x + b₁[J]) + b₂

with depthwise layers in between, of which the channels J stay too. The block keeps its form and
its activations, and every tensor its name (channel pruning without training: He, Zhang and Sun
2017). Which units stay is decided on calibration samples by backward elimination: the unit goes
whose loss the others make up for best, again and again (Hassibi and Stork 1993; see
`actcc.linear.elimination`), so that narrower candidates keep some of what wider ones keep. Where
the last layer has a kernel, its taps are taken for outputs that know nothing of each other. Without
samples, and beyond 3072 units, those stay whose weights are the largest: ‖W₁[j]‖·‖W₂[:, j]‖.
Approximate, bound by the budget; what is left is fitted by the repair to what the block gave.

Requires: constant weights that are not shared, nothing that has numbers of its own for each unit
between the layers (PRelu, squeeze-and-excitation), and that nothing else reads what lies there.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from actcc.blocks import InnerUnits, LayerShape, find_inner_units
from actcc.calibration import SampleSet
from actcc.calibration.covariance import channel_covariances
from actcc.graph import Array, Graph
from actcc.linear.elimination import elimination_order
from actcc.linear.units import keep_inputs, keep_outputs, weights_by_input, weights_by_output
from actcc.pass_api import Pass, rewrite
from actcc.site import Candidate, Fact, Refusal, Site
from actcc.targets import Target

_SHARES: Mapping[str, float] = {
    "3/4 of the units": 0.75,
    "1/2 of the units": 0.5,
    "1/4 of the units": 0.25,
}
# Accelerators work on channels in groups of 16; in a narrow block those would be few.
_MULTIPLE, _MULTIPLE_OF_FEW, _FEW = 16, 8, 64
_MOST_ELIMINATED = 3072
_MOST_BYTES = 512 << 20


@rewrite("narrow-blocks")
class NarrowBlocks(Pass):
    """Layer, activation, (depthwise layer, activation,) layer  →  the same with fewer channels."""

    def sites(self, graph: Graph) -> Iterable[Site | Refusal]:
        """One site for each two dense layers that hand units on, with those by their weights."""
        for found in find_inner_units(graph):
            yield found if isinstance(found, Refusal) else _site(graph, found)

    def observe(self, graph: Graph, sites: Sequence[Site], samples: SampleSet) -> Iterable[Site]:
        """The same sites, with the order in which their units go decided on the samples."""
        observed = [site for site in sites if _is_observed(graph, site)]
        for group in _groups(observed):
            readers = {site.id: graph.node(str(site.facts["last"])) for site in group}
            axes = {r.inputs[0].name: 1 if r.op == "Conv" else -1 for r in readers.values()}
            covariances = channel_covariances(graph, axes, samples)
            for site in group:
                reader = readers[site.id]
                covariance = covariances[reader.inputs[0].name]
                if np.isfinite(covariance).all():
                    outgoing = weights_by_input(graph, reader)
                    order = elimination_order(covariance, outgoing, _fewest(site))
                    yield replace(site, facts={**site.facts, "order": _written(order)})

    def candidates(self, site: Site, target: Target) -> Iterable[Candidate | Refusal]:
        """A share of the units, in whole groups of channels."""
        widths = _widths(int(site.facts["units"]))
        if not widths:
            reason = f"{site.facts['units']} units are too few to leave some out"
            yield Refusal("fewer units", reason)
        for name in widths:
            yield Candidate(name)

    def apply(self, graph: Graph, site: Site, candidate: Candidate) -> None:
        """Keep the units that come first in the order."""
        count = _widths(int(site.facts["units"]))[candidate.name]
        order = [int(unit) for unit in str(site.facts["order"]).split()]
        chosen = np.sort(np.array(order[:count]))
        for name in str(site.facts["making"]).split("\n"):
            keep_outputs(graph, graph.node(name), chosen)
        keep_inputs(graph, graph.node(str(site.facts["last"])), chosen)
        graph.prune()


def _is_observed(graph: Graph, site: Site) -> bool:
    """Whether an order can be learnt; what a caller may override is no part of a sample."""
    few = int(site.facts["units"]) <= _MOST_ELIMINATED
    return bool(_fewest(site)) and few and not graph.overridable


def _groups(sites: Sequence[Site]) -> Iterator[list[Site]]:
    """Sites whose covariances are in memory at the same time."""
    group: list[Site] = []
    held = 0
    for site in sites:
        wanted = 8 * int(site.facts["units"]) ** 2
        if group and held + wanted > _MOST_BYTES:
            yield group
            group, held = [], 0
        group.append(site)
        held += wanted
    if group:
        yield group


def _site(graph: Graph, found: InnerUnits) -> Site:
    *making, last = found.links
    nodes = [name for link in making for name in link.nodes] + [*last.nodes[: last.own]]
    facts: dict[str, Fact] = {
        "making": "\n".join(name for link in making for name in link.nodes[: link.own]),
        "last": last.layer,
        "units": found.count,
        "order": _written(_by_weights(graph, found)),
    }
    kernels = zip(found.links, found.shapes, strict=True)
    kind = ", ".join(_kind(link.op, shape) for link, shape in kernels)
    return Site(nodes, making[0].reads, last.gives, kind, facts)


def _kind(op: str, shape: LayerShape) -> str:
    kernel = "x".join(str(taps) for taps in shape.kernel) or op
    return f"dw {kernel}" if shape.is_depthwise else kernel


def _by_weights(graph: Graph, found: InnerUnits) -> Array:
    """Units by the product of their weights' norms, the largest first."""
    *making, last = (graph.node(link.layer) for link in found.links)
    sizes = np.linalg.norm(weights_by_input(graph, last), axis=1)
    for node in making:
        sizes = sizes * np.linalg.norm(weights_by_output(graph, node), axis=1)
    return np.argsort(-sizes, kind="stable")


def _written(order: Array) -> str:
    return " ".join(str(unit) for unit in order)


def _fewest(site: Site) -> int:
    """Units of the narrowest candidate; 0 where there is none."""
    return min(_widths(int(site.facts["units"])).values(), default=0)


def _widths(units: int) -> dict[str, int]:
    """How many units each candidate keeps, by its name."""
    multiple = _MULTIPLE if units >= _FEW else _MULTIPLE_OF_FEW
    found: dict[str, int] = {}
    for name, share in _SHARES.items():
        width = max(round(units * share / multiple), 1) * multiple
        if width < units and width not in found.values():
            found[name] = width
    return found
