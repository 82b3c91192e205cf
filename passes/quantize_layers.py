"""A layer, sum, concatenation or pooling in int8 instead of floating point.

    x → Conv → y      →      x → Q → DQ → Conv → Q → DQ → y        Q: QuantizeLinear

The runtime fuses what stands between two int8 tensors into one kernel (`actcc.quantization.qdq`). A
node alone pays for the way into int8 and back; with a neighbour in int8 that way is saved, which
the solver knows as a price of the two together. Ranges of feature maps are those of least error on
calibration samples (`actcc.quantization.distribution`). Applied last of all, to the repaired
network, whose ranges are observed again. Approximate, bound by the budget.

Requires: float32; constant weights; a target whose profile says how many bits weights have in int8.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

import onnx

from actcc.activations import find_activations
from actcc.calibration import SampleSet
from actcc.graph import Graph, Node, Tensor
from actcc.graph.operators import CONTRACTIONS, ONNX_DOMAINS
from actcc.pass_api import Group, Pass, rewrite
from actcc.quantization import observed_ranges
from actcc.quantization.qdq import (
    QUANTIZABLE,
    feature_maps,
    is_dequantized,
    quantize_node,
    written_by,
)
from actcc.site import Candidate, OfferedSite, Refusal, Site
from actcc.targets import Target


@rewrite("quantize-layers", default=False)
class QuantizeLayers(Pass):
    """Layer  →  the same in int8, between quantize and dequantize nodes."""

    late = True

    def sites(self, graph: Graph) -> Iterable[Site | Refusal]:
        """Every node that has an int8 kernel."""
        for node in graph.nodes():
            if node.op in QUANTIZABLE and node.domain in ONNX_DOMAINS:
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
            node = graph.node(site.nodes[0])
            around = [*feature_maps(graph, node), node.outputs[0], written_by(graph, node)]
            # Where the activation behind is swapped for one that the kernel swallows.
            around += [activated[t.name] for t in node.outputs if t.name in activated]
            known = {t.name: ranges[t.name] for t in around if t.name in ranges}
            yield _with_ranges(site, known)

    def candidates(self, site: Site, target: Target) -> Iterable[Candidate | Refusal]:
        """Int8, with as many bits for weights as the target's kernels multiply exactly."""
        bits = target.int8_weight_bits
        if bits is None:
            yield Refusal("int8", f"target '{target.name}' runs no QuantizeLinear in its kernels")
        elif "ranges" not in site.facts:
            yield Refusal("int8", "ranges need calibration data; give --calib")
        else:
            yield Candidate(_NAMES[bits])

    def neighbours(self, graph: Graph, sites: Sequence[OfferedSite]) -> Iterator[Group]:
        """Nodes that read each other, and those with a swap between them that a kernel swallows."""
        own = {site.site.nodes[0]: site for site in sites if site.pass_name == self.name}
        swaps = {site.site.reads: site for site in sites if _swallowed(site)}
        for name, site in own.items():
            node = graph.node(name)
            for reader in _readers(graph, written_by(graph, node), own):
                yield (site, _names(site)), (reader, _names(reader))
            swap = swaps.get(node.outputs[0].name)
            if swap is not None:
                pair = (site, _names(site)), (swap, _swallowed(swap))
                yield pair
                for reader in _readers(graph, graph.tensor(swap.site.writes), own):
                    yield *pair, (reader, _names(reader))

    def apply(self, graph: Graph, site: Site, candidate: Candidate) -> None:
        """Put quantize and dequantize nodes around the node."""
        bits = next(bits for bits, name in _NAMES.items() if name == candidate.name)
        ranges = {name: (low, high) for name, (low, high) in _ranges(site).items()}
        quantize_node(graph, site.nodes[0], ranges, bits)


_NAMES = {8: "int8", 7: "int8, weights in 7 bits"}
# What a kernel in int8 cuts off for nothing.
_SWALLOWED = frozenset({"Relu", "Relu6"})


def _swallowed(site: OfferedSite) -> tuple[str, ...]:
    """Names of a site's candidates that cost nothing behind a kernel in int8."""
    return tuple(c.name for c in site.candidates if c.computes in _SWALLOWED)


def _names(site: OfferedSite) -> tuple[str, ...]:
    return tuple(candidate.name for candidate in site.candidates)


def _readers(graph: Graph, tensor: Tensor, own: Mapping[str, OfferedSite]) -> list[OfferedSite]:
    readers = dict.fromkeys(reader.name for reader in graph.consumers(tensor))
    return [own[name] for name in readers if name in own]


def _with_ranges(site: Site, ranges: dict[str, tuple[float, float]]) -> Site:
    """The site with the ranges of tensors around it."""
    return replace(site, facts={**site.facts, "ranges": json.dumps(ranges)})


def _ranges(site: Site) -> dict[str, list[float]]:
    found: dict[str, list[float]] = json.loads(str(site.facts["ranges"]))
    return found


def _obstacle(graph: Graph, node: Node) -> str:
    """Why a node cannot be computed in int8; empty where it can."""
    tensors = [*feature_maps(graph, node), *node.outputs]
    if not all(_is_float(graph, tensor) for tensor in tensors):
        return "not in float32"
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
