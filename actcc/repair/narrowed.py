"""Layers of a rewritten network that have some channels of the original's, and which those are.

What a rewrite left out is seen by the weights alone: where each output of a narrower layer has the
weights and the bias of one of the original's, its channels are those; activations and depthwise
layers hand them on, and the next layer reads them. Such a layer is fitted to those channels of what
the original gives, and holds on to the original's weights for them.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace

import numpy as np

from actcc.graph import Array
from actcc.repair.layer import Layer, same_geometry


@dataclass(frozen=True, eq=False)
class Kept:
    """Channels of an original layer that a layer has; None for all of them."""

    inputs: Array | None = None
    outputs: Array | None = None


ALL_CHANNELS = Kept()


class Narrowing:
    """Channels of the original that narrower tensors hold, learnt from layer to layer in order.

    Args:
        same: tensors that are the same in both networks.
        passed_on: by what they read, what activations write that are in both networks.
    """

    def __init__(self, same: Collection[str], passed_on: Mapping[str, str]) -> None:
        self._channels: dict[str, Array] = {}
        self._unchanged = set(same)
        self._passed_on = passed_on

    def counterpart(self, layer: Layer, original: Layer) -> tuple[Layer, Kept] | None:
        """The original layer with the channels that a layer has, or None where it has others."""
        if layer.op not in ("Conv", "Gemm", "MatMul") or layer.transposed != original.transposed:
            return None
        inputs = self._channels.get(layer.reads)
        found = original
        if inputs is not None:
            found = (
                _with_outputs(found, inputs) if layer.groups > 1 else _with_inputs(found, inputs)
            )
        outputs = inputs if layer.groups > 1 else None
        if layer.groups == found.groups == 1 and layer.outputs < found.outputs:
            outputs = _places(layer, found)
            found = found if outputs is None else _with_outputs(found, outputs)
        if not same_geometry(layer, found):
            return None
        if outputs is not None:
            sums_fewer = inputs is not None and layer.groups == 1
            self._learn(layer, outputs, unchanged=not sums_fewer and _equal(layer, found))
        return found, Kept(inputs, outputs)

    def is_unchanged(self, tensor: str) -> bool:
        """Whether a tensor holds what the original has in the same channels."""
        return tensor in self._unchanged

    def _learn(self, layer: Layer, outputs: Array, *, unchanged: bool) -> None:
        unchanged = unchanged and layer.reads in self._unchanged
        for name in (layer.writes, self._passed_on.get(layer.writes)):
            if name is not None:
                self._channels[name] = outputs
                self._unchanged |= {name} if unchanged else set()


def _output_axis(layer: Layer) -> int:
    return 0 if layer.window is not None or layer.transposed[1] else 1


def _with_inputs(layer: Layer, chosen: Array) -> Layer:
    axis = 1 - _output_axis(layer)
    if layer.groups > 1 or chosen.max(initial=-1) >= layer.shape[axis]:
        return layer
    return replace(layer, weights=np.take(layer.weights, chosen, axis))


def _with_outputs(layer: Layer, chosen: Array) -> Layer:
    axis, biases = _output_axis(layer), layer.biases
    if chosen.max(initial=-1) >= layer.shape[axis] or layer.groups not in (1, layer.shape[0]):
        return layer
    if biases is not None and biases.size > 1:
        biases = np.take(biases, chosen, -1)
    groups = len(chosen) if layer.groups > 1 else 1
    return replace(
        layer, weights=np.take(layer.weights, chosen, axis), biases=biases, groups=groups
    )


def _places(layer: Layer, original: Layer) -> Array | None:
    """Which outputs of the original a layer's are; None where one is none of them."""
    where: dict[bytes, deque[int]] = defaultdict(deque)
    for place, row in enumerate(_rows(original)):
        where[row].append(place)
    found = [where[row].popleft() if where[row] else -1 for row in _rows(layer)]
    return None if -1 in found else np.array(found, np.int64)


def _rows(layer: Layer) -> list[bytes]:
    """Weights and bias of each output."""
    rows = np.moveaxis(layer.weights, _output_axis(layer), 0)
    biases = np.zeros(1) if layer.biases is None else layer.biases
    offsets = np.broadcast_to(biases.reshape(-1), len(rows))
    return [row.tobytes() + offset.tobytes() for row, offset in zip(rows, offsets, strict=True)]


def _equal(layer: Layer, other: Layer) -> bool:
    if layer.biases is None or other.biases is None:
        biased_alike = layer.biases is other.biases
    else:
        biased_alike = bool(np.array_equal(layer.biases, other.biases))
    return biased_alike and bool(np.array_equal(layer.weights, other.weights))
