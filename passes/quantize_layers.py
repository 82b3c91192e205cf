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

import onnx

from actcc.activations import Activation, Match, find_activations
from actcc.calibration import SampleSet
from actcc.errors import PassError
from actcc.graph import Graph, Node, Tensor
from actcc.graph.operators import CONTRACTIONS, ONNX_DOMAINS
from actcc.pass_api import Group, Pass, rewrite
from actcc.quantization import observed_ranges
from actcc.quantization.activations import has_int8_form, quantize_activation
from actcc.quantization.qdq import (
    QUANTIZABLE,
    cut_behind,
    feature_maps,
    is_dequantized,
    quantize_node,
    written_by,
)
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
            if _is_in_int8(graph, match) or _is_cut_off(graph, match):
                continue
            if not has_int8_form(match.activation):
                yield Refusal(match.writes.name, f"no int8 kernel computes {match.activation}")
            elif _is_float(graph, match.reads):
                yield _activation_site(match)
            else:
                yield Refusal(match.writes.name, _NOT_FLOAT)
        for node in graph.nodes():
            known = node.op in QUANTIZABLE | CONTRACTIONS and node.domain in ONNX_DOMAINS
            if not known or node.name in inside:
                continue
            reason = _obstacle(graph, node)
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
        """What reads each other, with a swap between them that a kernel swallows, and swaps for
        activations that are computed in int8 themselves.
        """
        own = [site for site in sites if site.pass_name == self.name]
        readers = _by_reader(graph, own)
        swaps = _swaps(graph, [site for site in sites if site.pass_name != self.name])
        for site in own:
            for reader in readers.get(_written(graph, site), ()):
                yield (site, _names(site)), (reader, _names(reader))
            if _is_activation(site.site):
                swap = swaps.get(site.site.reads)
                for names in () if swap is None else _swaps_in_int8(swap):
                    assert swap is not None
                    yield (swap, names), (site, _names(site))
                continue
            swap = swaps.get(graph.node(site.site.nodes[0]).outputs[0].name)
            swallowed = () if swap is None else _swallowed(swap)
            if swap is not None and swallowed:
                pair = (site, _names(site)), (swap, swallowed)
                yield pair
                for reader in readers.get(swap.site.writes, ()):
                    yield *pair, (reader, _names(reader))

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
_NOT_FLOAT = "not in float32"
# What a kernel in int8 cuts off for nothing.
_SWALLOWED = frozenset({"Relu", "Relu6"})
# What activations are swapped for to be computed in int8: as close, and cheaper there.
_CHEAPER_IN_INT8 = frozenset({"HardSigmoid", "HardSwish"})
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


def _is_in_int8(graph: Graph, match: Match) -> bool:
    """Whether the runtime computes an activation in int8 as the model is."""
    readers = graph.consumers(match.writes)
    return is_dequantized(graph, match.reads) and any(r.op == "QuantizeLinear" for r in readers)


def _is_cut_off(graph: Graph, match: Match) -> bool:
    """Whether the kernel before an activation swallows it."""
    writer = graph.producer(match.reads)
    cut = None if writer is None else cut_behind(graph, writer)
    return cut is not None and any(node.name == cut.name for node in match.nodes)


def _swaps(graph: Graph, others: Sequence[OfferedSite]) -> dict[str, OfferedSite]:
    """Sites where an activation stands, and another may stand, by what it reads."""
    places = {(match.reads.name, match.writes.name) for match in find_activations(graph)}
    return {
        other.site.reads: other
        for other in others
        if (other.site.reads, other.site.writes) in places
        and (_swallowed(other) or _swaps_in_int8(other))
    }


def _swaps_in_int8(site: OfferedSite) -> list[tuple[str, ...]]:
    """Candidates by function that are worth computing in int8; several spellings are one there."""
    functions = dict.fromkeys(
        c.computes for c in site.candidates if c.computes.partition("(")[0] in _CHEAPER_IN_INT8
    )
    return [tuple(c.name for c in site.candidates if c.computes == f) for f in functions]


def _written(graph: Graph, site: OfferedSite) -> str:
    """Name of the tensor that a site in int8 writes."""
    if _is_activation(site.site):
        return site.site.writes
    return str(written_by(graph, graph.node(site.site.nodes[0])).name)


def _by_reader(graph: Graph, own: Sequence[OfferedSite]) -> dict[str, list[OfferedSite]]:
    """Sites by the names of the tensors that they read in int8."""
    found: dict[str, list[OfferedSite]] = {}
    for site in own:
        place = site.site
        if _is_activation(place):
            names = {place.reads}
        else:
            names = {tensor.name for tensor in feature_maps(graph, graph.node(place.nodes[0]))}
        for name in sorted(names):
            found.setdefault(name, []).append(site)
    return found


def _swallowed(site: OfferedSite) -> tuple[str, ...]:
    """Names of a site's candidates that cost nothing behind a kernel in int8."""
    return tuple(c.name for c in site.candidates if c.computes in _SWALLOWED)


def _names(site: OfferedSite) -> tuple[str, ...]:
    return tuple(candidate.name for candidate in site.candidates)


def _with_ranges(site: Site, ranges: dict[str, tuple[float, float]]) -> Site:
    """The site with the ranges of tensors around it."""
    return replace(site, facts={**site.facts, _RANGES: json.dumps(ranges)})


def _ranges(site: Site) -> dict[str, list[float]]:
    found: dict[str, list[float]] = json.loads(str(site.facts[_RANGES]))
    return found


def _obstacle(graph: Graph, node: Node) -> str:
    """Why a node cannot be computed in int8; empty where it can."""
    if node.op not in QUANTIZABLE:
        return f"no int8 kernel computes {node.op}"
    tensors = [*feature_maps(graph, node), *node.outputs]
    if not all(_is_float(graph, tensor) for tensor in tensors):
        return _NOT_FLOAT
    if len(node.outputs) != 1:
        return "it writes several tensors"
    if any(graph.constant(tensor) is not None for tensor in feature_maps(graph, node)):
        return "an operand is constant"
    if any(is_dequantized(graph, tensor) for tensor in node.inputs):
        return "it is in int8 already"
    if node.op in CONTRACTIONS and graph.constant(node.inputs[1]) is None:
        return "its weights are not constant"
    if node.op in CONTRACTIONS and len(node.inputs) > 2 and not node.inputs[2].is_empty():
        bias = graph.constant(node.inputs[2])
        if bias is None:
            return "its bias is not constant"
        if any(size != 1 for size in bias.shape[:-1]):
            return "its bias is no vector"
    if node.op == "Gemm" and any(node.attrs.get(name, 1.0) != 1.0 for name in ("alpha", "beta")):
        return "it has factors of its own"
    if node.op == "Gemm" and node.attrs.get("transA", 0):
        return "it transposes what it reads"
    if node.op == "MatMul" and graph.constant(node.inputs[1]).ndim != 2:  # type: ignore[union-attr]
        return "its weights are no matrix"
    return ""


def _is_float(graph: Graph, tensor: Tensor) -> bool:
    known = graph.types.get(tensor.name)
    constant = graph.constant(tensor)
    if constant is not None:
        return bool(constant.dtype == "float32")
    return known is not None and known.element == onnx.TensorProto.FLOAT
