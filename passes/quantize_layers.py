"""A layer, sum, product, concatenation, pooling or activation in int8 instead of floating point.

    x → Conv → y      →      x → Q → DQ → Conv → Q → DQ → y        Q: QuantizeLinear

The runtime fuses what stands between two int8 tensors into one kernel (`actcc.quantization.qdq`). A
node alone pays for the way into int8 and back; with a neighbour in int8 that way is saved, which
the solver knows as a price of the two together. An activation is computed in int8 too
(`actcc.quantization.activations`), or swapped for a Relu, which the kernel before it swallows; it
may also be swapped for one that is cheaper in int8, and be computed so. Ranges of feature maps
are those of least error on calibration samples (`actcc.quantization.distribution`). Applied last of
all, to the repaired network, whose ranges are observed again; with `--precision int8` wherever it
can be (`actcc.whole_int8`). Approximate, bound by the budget.

Requires: float32; constant weights; a target whose profile says how many bits weights have in int8.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from actcc.activations import Activation, Match, find_activations
from actcc.calibration import SampleSet
from actcc.errors import PassError
from actcc.graph import Graph
from actcc.graph.operators import CONTRACTIONS, ONNX_DOMAINS
from actcc.pass_api import Group, Pass, rewrite
from actcc.quantization import observed_ranges
from actcc.quantization.activations import has_int8_form, quantize_activation
from actcc.quantization.eligibility import (
    NOT_FLOAT,
    is_cut_off,
    is_float32,
    is_in_int8,
    obstacle,
)
from actcc.quantization.groups import Int8Place, groups_in_int8
from actcc.quantization.qdq import QUANTIZABLE, feature_maps, quantize_node, written_by
from actcc.site import Candidate, Fact, OfferedSite, Refusal, Site
from actcc.targets import Target


@rewrite("quantize-layers", default=False)
class QuantizeLayers(Pass):
    """Layer  →  the same in int8, between quantize and dequantize nodes."""

    late = True

    def sites(self, graph: Graph) -> Iterable[Site | Refusal]:
        """Every node and every activation that has an int8 kernel."""
        matches = find_activations(graph)
        inside = {node.name for match in matches for node in match.nodes}
        for match in matches:
            if is_in_int8(graph, match) or is_cut_off(graph, match):
                continue
            if not has_int8_form(match.activation):
                yield Refusal(match.writes.name, f"no int8 kernel computes {match.activation}")
            elif is_float32(graph, match.reads):
                yield _activation_site(match)
            else:
                yield Refusal(match.writes.name, NOT_FLOAT)
        for node in graph.nodes():
            known = node.op in QUANTIZABLE | CONTRACTIONS and node.domain in ONNX_DOMAINS
            if not known or node.name in inside:
                continue
            reason = obstacle(graph, node)
            if reason:
                yield Refusal(node.outputs[0].name, reason)
            else:
                reads = feature_maps(graph, node)
                yield Site([node], reads[0], node.outputs[0], node.op)

    def observe(self, graph: Graph, sites: Sequence[Site], samples: SampleSet) -> Iterator[Site]:
        """The same sites with the ranges of what they read and write."""
        ranges = observed_ranges(graph, samples, finite_only=True)  # a mask of -inf stays float
        activated = {match.reads.name: match.writes for match in find_activations(graph)}
        for site in sites:
            around = {site.reads, site.writes}
            if not _is_activation(site):
                node = graph.node(site.nodes[0])
                tensors = [*feature_maps(graph, node), node.outputs[0], written_by(graph, node)]
                # Where the activation behind is swapped for one that the kernel swallows.
                tensors += [activated[t.name] for t in node.outputs if t.name in activated]
                around |= {tensor.name for tensor in tensors}
            yield _with_ranges(site, {n: ranges[n] for n in sorted(around) if n in ranges})

    def candidates(self, site: Site, target: Target) -> Iterable[Candidate | Refusal]:
        """Int8, with as many bits for weights as the target's kernels multiply exactly."""
        bits = target.int8_weight_bits
        if bits is None:
            yield Refusal("int8", f"target '{target.name}' runs no QuantizeLinear in its kernels")
        elif _RANGES not in site.facts:
            yield Refusal("int8", "ranges need calibration data; give --calib")
        else:
            yield Candidate(_NAMES[8 if _is_activation(site) else bits])

    def neighbours(self, graph: Graph, sites: Sequence[OfferedSite]) -> Iterator[Group]:
        """What `actcc.quantization.groups` says of layers and activations in int8."""
        own = [site for site in sites if site.pass_name == self.name]
        places = [(site, _place(graph, site.site)) for site in own]
        return groups_in_int8(graph, places, [s for s in sites if s.pass_name != self.name])

    def apply(self, graph: Graph, site: Site, candidate: Candidate) -> None:
        """Put quantize and dequantize nodes around the node or the activation."""
        ranges = {name: (low, high) for name, (low, high) in _ranges(site).items()}
        if _is_activation(site):
            place = _as_it_is_now(graph, site)
            quantize_activation(graph, place, _function(place), ranges)
        else:
            bits = next(bits for bits, name in _NAMES.items() if name == candidate.name)
            quantize_node(graph, site.nodes[0], ranges, bits)


_NAMES = {8: "int8", 7: "int8, weights in 7 bits"}
_ACTIVATION, _RANGES = "activation", "ranges"


def _activation_site(match: Match) -> Site:
    facts: dict[str, Fact] = {_ACTIVATION: match.activation.name}
    facts |= dict(match.activation.parameters)
    return Site(match.nodes, match.reads, match.writes, match.activation.name, facts)


def _is_activation(site: Site) -> bool:
    return _ACTIVATION in site.facts


def _function(site: Site) -> Activation:
    parameters = {k: float(v) for k, v in site.facts.items() if k not in (_ACTIVATION, _RANGES)}
    return Activation.of(str(site.facts[_ACTIVATION]), **parameters)


def _as_it_is_now(graph: Graph, site: Site) -> Site:
    """The activation that writes what the site wrote when it was found; it may be another."""
    present = {node.name for node in graph.nodes()}
    if present.issuperset(site.nodes):
        return site
    for match in find_activations(graph):
        if match.writes.name == site.writes:
            return _activation_site(match)
    raise PassError(f"no activation writes '{site.writes}' any more")


def _place(graph: Graph, site: Site) -> Int8Place:
    if _is_activation(site):
        return Int8Place.of_activation(site)
    return Int8Place.of_node(graph, site)


def _with_ranges(site: Site, ranges: dict[str, tuple[float, float]]) -> Site:
    """The site with the ranges of tensors around it."""
    return replace(site, facts={**site.facts, _RANGES: json.dumps(ranges)})


def _ranges(site: Site) -> dict[str, list[float]]:
    found: dict[str, list[float]] = json.loads(str(site.facts[_RANGES]))
    return found
