"""Channels of a feature map made alike, by the layers in front of it and behind it.

    A → f → B        →        A, output c / s_c → f → B, weights of channel c · s_c

The network computes the same, but a feature map of which one channel is a hundred times as large as
another no longer leaves that one two steps of 255 (Nagel et al. 2019, "Data-free quantization
through weight equalization and bias correction", section 4.1). With r_c the largest |value| of
channel c, and w_c the largest |weight| that B has for it,

    s_c = r_c              B depthwise: its weights have one scale for each channel anyway
    s_c = √(r_c / w_c)     else, so that the weights of B do not become as unlike instead

up to a factor for all. The ranges are observed, where the paper infers them from A's weights: A's
weights have one scale for each of its outputs, and lose nothing.

Requires: f(s·x) = s·f(x) for s > 0, so Relu, LeakyRelu, PRelu or nothing: Relu6 and Clip bound all
channels alike, and would need a bound for each. The feature map has one reader, and does not leave
the graph.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from actcc.activations import find_activations
from actcc.calibration import Sample
from actcc.graph import Array, Graph
from actcc.repair.layers import Layer, find_layers
from actcc.runtime import run, session

_HOMOGENEOUS = frozenset({"Relu", "LeakyRelu", "PRelu"})
_LAYERS = frozenset({"Conv", "Gemm"})
_LARGEST_FACTOR = 1e3
_SMALLEST_RANGE = 1e-6
_SMALLEST_WEIGHT = 1e-9


@dataclass(frozen=True, eq=False)
class Pair:
    """Two layers with a feature map between them that no other node reads.

    Attributes:
        first, second: names of the nodes.
        between: name of what the second reads.
    """

    first: str
    second: str
    between: str


def find_pairs(graph: Graph, nodes: Collection[str]) -> list[Pair]:
    """Pairs that can be equalised and of which one is among some nodes, in order."""
    layers = {layer.node: layer for layer in find_layers(graph)[0].values()}
    behind = _homogeneous(graph)
    found = []
    for layer in layers.values():
        between = graph.tensor(behind.get(layer.writes, layer.writes))
        readers = graph.consumers(between)
        if layer.op not in _LAYERS or len(readers) != 1 or graph.is_output(between):
            continue
        second = layers.get(readers[0].name)
        if second is None or second.op != layer.op or second.reads != between.name:
            continue
        alone = layer.writes == between.name or not graph.is_output(graph.tensor(layer.writes))
        alike = layer.groups * layer.outputs == _channels(second) and not second.transposed[0]
        known = alone and alike and not graph.is_read_in_subgraph(between)
        if known and (layer.node in nodes or second.node in nodes):
            found.append(Pair(layer.node, second.node, between.name))
    return found


def equalised(graph: Graph, pairs: Sequence[Pair], samples: Sequence[Sample]) -> Graph:
    """A copy that computes the same, with the channels between the layers of each pair alike.

    Raises:
        ModelError: ONNX Runtime cannot run the graph on the samples.
    """
    result = graph.copy()
    ranges = _channel_ranges(graph, [pair.between for pair in pairs], samples)
    layers = {layer.node: name for name, layer in find_layers(graph)[0].items()}
    for pair in pairs:
        present = find_layers(result)[0]
        first, second = present[layers[pair.first]], present[layers[pair.second]]
        factors = _factors(second, ranges[pair.between])
        if factors is not None:
            _scale(result, first, second, factors)
    return result


def _homogeneous(graph: Graph) -> dict[str, str]:
    """What such an activation writes, by what it alone reads."""
    found = {}
    for match in find_activations(graph):
        inside = {node.name for node in match.nodes}
        alone = {node.name for node in graph.consumers(match.reads)} <= inside
        alone = alone and not graph.is_read_in_subgraph(match.reads)
        # What is rounded inside has steps that do not grow with it.
        if match.activation.name in _HOMOGENEOUS and alone and not match.rounds:
            found[match.reads.name] = match.writes.name
    return found


def _taps(layer: Layer) -> int:
    return 1 if layer.window is None else layer.window.taps


def _channels(layer: Layer) -> int:
    """That it reads."""
    return layer.groups * layer.columns // _taps(layer)


def _channel_ranges(
    graph: Graph, names: Sequence[str], samples: Sequence[Sample]
) -> dict[str, Array]:
    """The largest |value| of each channel (axis 1), mean over the samples."""
    model = graph.to_proto()
    del model.graph.output[:]
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    runner = session(model, optimise=False)
    sums: dict[str, Array] = {}
    for sample in samples:
        for name, values in run(runner, sample.inputs).items():
            others = tuple(axis for axis in range(values.ndim) if axis != 1)
            largest = np.abs(values).max(axis=others).astype(np.float64)
            sums[name] = sums.get(name, 0.0) + largest / len(samples)
    return sums


def _factors(second: Layer, ranges: Array) -> Array | None:
    """By which channels are divided; None where no channel says anything."""
    weights = np.abs(second.matrix).reshape(second.groups, -1, _taps(second), second.outputs)
    largest = weights.max(axis=(2, 3)).reshape(-1)
    known = np.isfinite(ranges) & (ranges > _SMALLEST_RANGE) & (largest > _SMALLEST_WEIGHT)
    if not known.any():
        return None
    depthwise = second.columns == _taps(second)
    wanted = ranges[known] if depthwise else np.sqrt(ranges[known] / largest[known])
    factors = np.ones(len(ranges))
    factors[known] = wanted / np.exp(np.log(wanted).mean())
    return np.clip(factors, 1 / _LARGEST_FACTOR, _LARGEST_FACTOR)


def _scale(graph: Graph, first: Layer, second: Layer, factors: Array) -> None:
    outputs = factors.reshape(first.groups, first.outputs)
    node = graph.node(first.node)
    graph.set_input(node, 1, first.tensor(first.matrix / outputs[:, None]))
    if first.biases is not None:
        graph.set_input(node, 2, first.vector(first.offset / outputs))
    columns = np.repeat(factors.reshape(second.groups, -1), _taps(second), axis=1)
    graph.set_input(graph.node(second.node), 1, second.tensor(second.matrix * columns[:, :, None]))
