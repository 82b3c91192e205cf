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

Requires: what `actcc.quantization.layer_pairs` says of f, and weights that are the layers' own.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from actcc.calibration import Sample
from actcc.graph import Array, Graph
from actcc.quantization.layer_pairs import Pair, find_pairs
from actcc.quantization.observe import channel_values
from actcc.repair.layers import Layer, find_layers

_LARGEST_FACTOR = 1e3
_SMALLEST_RANGE = 1e-6
_SMALLEST_WEIGHT = 1e-9


def equalizable_pairs(graph: Graph, nodes: Collection[str]) -> list[Pair]:
    """Pairs that can be equalized and of which one is among some nodes, in order."""
    layers = {layer.node: layer for layer in find_layers(graph)[0].values()}
    return [
        pair
        for pair in find_pairs(graph)
        if (pair.first in nodes or pair.second in nodes)
        and _share_channels(layers.get(pair.first), layers.get(pair.second))
    ]


def equalized(graph: Graph, pairs: Sequence[Pair], samples: Sequence[Sample]) -> Graph:
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


def _share_channels(first: Layer | None, second: Layer | None) -> bool:
    """Whether both are known, and what the one writes the other reads channel by channel."""
    if first is None or second is None or second.transposed[0]:
        return False
    return first.groups * first.outputs == _channels(second)


def _taps(layer: Layer) -> int:
    return 1 if layer.window is None else layer.window.taps


def _channels(layer: Layer) -> int:
    """That it reads."""
    return layer.groups * layer.columns // _taps(layer)


def _channel_ranges(
    graph: Graph, names: Sequence[str], samples: Sequence[Sample]
) -> dict[str, Array]:
    """The largest |value| of each channel, mean over the samples."""
    sums: dict[str, Array] = {}
    for seen in channel_values(graph, samples, names):
        for name, values in seen.items():
            largest = np.abs(values).max(axis=1).astype(np.float64)
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
