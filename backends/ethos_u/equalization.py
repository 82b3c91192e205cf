"""Channels brought to one range in front of depthwise convolutions, which have one scale for each.

An int8 tensor has one step for all of its channels. Where a depthwise convolution reads it, small
channels may count as much as large ones, and all that they say is lost below that step. Scaling a
channel by s > 0 in the layer in front and by 1/s behind changes nothing in float where
f(s·x) = s·f(x) (`actcc.quantization.layer_pairs`); here for gated activations too:

    layer → f → depthwise            =   s·layer → f → depthwise/s
    layer → x·g(x) → depthwise       =   s·layer → x'·g(x'/s) → depthwise/s          x' = s·x

The division inside of g is a depthwise convolution of one tap, which takes g in as its table.

A channel's scale brings it to the range of the largest; for a gated activation, the range of the
pre-activation counts too, down to where the gate is shut. It is done where rounding to one step
makes noise that is seen behind the depthwise convolution,

    noise = mean_c step²/12 · Σ W[c]² / (s_c² · var(output_c))
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import onnx

from actcc.activations import Match
from actcc.activations.functions import QUICK_GELU_ALPHA
from actcc.calibration import Sample
from actcc.graph import Array, Graph, Node
from actcc.quantization import Range
from actcc.quantization.layer_pairs import HOMOGENEOUS, find_pairs
from actcc.quantization.observe import channel_values
from actcc.site import Site

_STEPS = 255
_MOST_SAMPLES = 32
# A gate on scaled channels costs an operator more than a table does; all else costs nothing.
_LEAST_NOISE, _LEAST_NOISE_OF_GATES = 0.0005, 0.005
_LEAST_GAIN = 2.0
# Beyond this a channel is as good as constant; made large, it would clip on other samples.
_LARGEST_SCALE = 4096.0
_SHUT = -4.0
# g(x) of x·g(x) as table(factor·x + offset)
_GATES: Mapping[str, tuple[float, float, str]] = MappingProxyType(
    {
        "Silu": (1.0, 0.0, "Sigmoid"),
        "QuickGelu": (QUICK_GELU_ALPHA, 0.0, "Sigmoid"),
        "HardSwish": (1 / 6, 0.5, "Clip"),
    }
)


@dataclass(frozen=True, eq=False)
class Chain:
    """A convolution, an activation and the depthwise convolution that reads nothing else."""

    layer: Node
    match: Match
    depthwise: Node


@dataclass(frozen=True)
class Channels:
    """What the channels of a chain were seen to be, each an array of one number a channel.

    Attributes:
        reads: least and greatest value in front of the activation.
        writes: the same behind it.
        counts: Σ W[c]² / var(output_c) of the depthwise convolution.
    """

    reads: tuple[Array, Array]
    writes: tuple[Array, Array]
    counts: Array

    def noise(self, width: float | Array) -> float:
        """What rounding adds to the outputs of the depthwise convolution, in parts of their spread.

        Args:
            width: of the range that int8 stands for, in units of each channel.
        """
        return float(np.mean(np.square(width / _STEPS) / 12 * self.counts))


def equalized(graph: Graph, ranges: Mapping[str, Range], samples: Sequence[Sample]) -> Graph:
    """A copy of a network that computes the same, with channels of like range where that pays.

    Args:
        ranges: what int8 stands for, by tensor, in the network as it is.

    Returns:
        The same graph where there is nothing to gain.

    Raises:
        ModelError: ONNX Runtime cannot run the graph on the samples.
    """
    chains = find_chains(graph)
    if not chains:
        return graph
    seen = _observed(graph, chains, samples[:_MOST_SAMPLES])
    result = graph.copy()
    changed = False
    for chain in chains:
        channels, name = seen[chain.layer.name], chain.match.activation.name
        scales = channel_scales(name, channels)
        low, high = ranges[chain.match.writes.name]
        before = channels.noise(high - low)
        after = channels.noise(_width(*(end * scales for end in channels.writes)) / scales)
        least = _LEAST_NOISE_OF_GATES if name in _GATES else _LEAST_NOISE
        if before > max(least, _LEAST_GAIN * after):
            scale_channels(result, chain, scales)
            changed = True
    return result if changed else graph


def find_chains(graph: Graph) -> list[Chain]:
    """The places where channels can be scaled."""
    found: list[Chain] = []
    for pair in find_pairs(graph, HOMOGENEOUS | _GATES.keys()):
        layer, depthwise = graph.node(pair.first), graph.node(pair.second)
        if not _has_weights(graph, layer) or not _is_depthwise(graph, depthwise):
            continue
        match = pair.activation
        if match is not None and match.element == onnx.TensorProto.FLOAT:
            found.append(Chain(layer, match, depthwise))
    return found


def channel_scales(activation: str, channels: Channels) -> Array:
    """The factor of each channel that brings it to the range of the largest."""
    size = np.maximum(*(np.abs(end) for end in channels.writes))
    if activation in _GATES:
        low, high = channels.reads
        size = np.maximum(size, np.maximum(np.abs(np.maximum(low, _SHUT)), np.abs(high)))
    largest = float(size.max())
    scales: Array = (
        largest / np.maximum(size, largest / _LARGEST_SCALE) if largest > 0 else size + 1
    )
    return scales


def scale_channels(graph: Graph, chain: Chain, scales: Array) -> None:
    """Scale what the layer of a chain writes, and undo that behind the activation."""
    layer, depthwise = graph.node(chain.layer.name), graph.node(chain.depthwise.name)
    weights, bias = _weights(graph, layer)
    graph.set_input(layer, 1, weights * _along_first(scales, weights))
    if bias is not None:
        graph.set_input(layer, 2, bias * np.float32(scales))
    weights, _ = _weights(graph, depthwise)
    repeated = np.repeat(1 / scales, len(weights) // len(scales))
    graph.set_input(depthwise, 1, weights * _along_first(repeated, weights))
    match = chain.match
    if match.activation.name in _GATES:
        with graph.marking("equalize", match.writes.name, "scaled gate"):
            _scale_gate(graph, match, scales, *_GATES[match.activation.name])


def _scale_gate(
    graph: Graph, match: Match, scales: Array, factor: float, offset: float, table: str
) -> None:
    source = graph.tensor(match.reads.name)
    rank = len(graph.shape(source) or ())
    taps = np.float32(factor / scales).reshape(-1, *(1,) * (rank - 1))
    operands = [source, taps]
    if offset:
        operands.append(np.full(len(scales), offset, np.float32))
    gate = graph.insert("Conv", operands, like=source, group=len(scales))
    bounds = [np.float32(0.0), np.float32(1.0)] if table == "Clip" else []
    gate = graph.insert(table, [gate, *bounds], like=source)
    graph.replace(Site(match.nodes, match.reads, match.writes), "Mul", [source, gate])


def _observed(
    graph: Graph, chains: Sequence[Chain], samples: Sequence[Sample]
) -> dict[str, Channels]:
    names = {
        tensor.name
        for chain in chains
        for tensor in (chain.match.reads, chain.match.writes, chain.depthwise.outputs[0])
    }
    low: dict[str, Array] = {}
    high: dict[str, Array] = {}
    variance: dict[str, Array] = {}
    for seen in channel_values(graph, samples, names):
        for name, values in seen.items():
            least, most = values.min(axis=1), values.max(axis=1)
            low[name] = np.minimum(low.get(name, least), least)
            high[name] = np.maximum(high.get(name, most), most)
            variance[name] = variance.get(name, 0.0) + values.var(axis=1, dtype=np.float64)
    found: dict[str, Channels] = {}
    for chain in chains:
        weights, _ = _weights(graph, chain.depthwise)
        ends = [
            (low[tensor.name], high[tensor.name])
            for tensor in (chain.match.reads, chain.match.writes)
        ]
        spread = variance[chain.depthwise.outputs[0].name] / len(samples)
        energy = np.square(weights, dtype=np.float64).reshape(len(weights), -1).sum(axis=1)
        share = energy / np.maximum(spread, spread.mean() * 1e-4 + 1e-12)
        counts = share.reshape(len(ends[0][0]), -1).sum(axis=1)
        found[chain.layer.name] = Channels(ends[0], ends[1], counts)
    return found


def _width(low: Array, high: Array) -> float:
    """Of the range that takes in all channels."""
    return max(float(high.max()), 0.0) - min(float(low.min()), 0.0)


def _weights(graph: Graph, node: Node) -> tuple[Array, Array | None]:
    weights = graph.constant(node.inputs[1])
    assert weights is not None
    has_bias = len(node.inputs) > 2 and not node.inputs[2].is_empty()
    return weights, graph.constant(node.inputs[2]) if has_bias else None


def _has_weights(graph: Graph, node: Node) -> bool:
    """Whether it is a convolution whose weights and bias are known."""
    return node.op == "Conv" and all(
        tensor.is_empty() or graph.constant(tensor) is not None for tensor in node.inputs[1:]
    )


def _is_depthwise(graph: Graph, node: Node) -> bool:
    if not _has_weights(graph, node):
        return False
    weights, _ = _weights(graph, node)
    return weights.shape[1] == 1 and int(node.attrs.get("group", 1)) > 1


def _along_first(factors: Array, weights: Array) -> Array:
    return factors.astype(np.float32).reshape(-1, *(1,) * (weights.ndim - 1))
