"""Arithmetic with constants as a scale and a shift: y = scale · x + shift."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from actcc.graph.graph import Graph
from actcc.graph.operators import ONNX_DOMAINS
from actcc.graph.view import Array, Node, Tensor
from actcc.linear.batch_norm import statistics_as_scale, training_obstacle

_ZERO, _ONE = np.zeros(()), np.ones(())


@dataclass(frozen=True)
class ScaleShift:
    """What a node computes of the one tensor that it reads.

    Attributes:
        scale, shift: float64; they broadcast against the tensor, or, once laid along the channels,
            are vectors of one value or one a channel.
        spread: whether a constant has axes of its own, so that it might enlarge a tensor.
    """

    reads: Tensor
    scale: Array
    shift: Array
    spread: bool

    def along_channels(self, rank: int, axis: int | None, channels: int) -> ScaleShift | None:
        """With vectors for constants; None where they differ along another axis.

        Args:
            rank: number of axes of the tensor.
            axis: of its channels; None where they have none of their own.
        """
        scale = _vector(self.scale, rank, axis, channels)
        shift = _vector(self.shift, rank, axis, channels)
        if scale is None or shift is None:
            return None
        return replace(self, scale=scale, shift=shift)

    def then(self, behind: ScaleShift) -> ScaleShift:
        """This one and another behind it, both along the channels, as one."""
        return replace(
            self,
            scale=behind.scale * self.scale,
            shift=behind.scale * self.shift + behind.shift,
            spread=self.spread or behind.spread,
        )


def scale_shift(graph: Graph, node: Node) -> ScaleShift | None:
    """What Add, Sub, Mul or Div with a floating-point constant, or Neg computes; else None."""
    if node.domain not in ONNX_DOMAINS or not 1 <= len(node.inputs) <= 2:
        return None
    if node.op == "Neg":
        return ScaleShift(node.inputs[0], -_ONE, _ZERO, spread=False)
    if node.op not in ("Add", "Sub", "Mul", "Div") or len(node.inputs) != 2:
        return None
    first, second = (graph.constant(tensor) for tensor in node.inputs)
    if (first is None) == (second is None):
        return None
    constant = first if second is None else second
    if constant is None or constant.dtype not in (np.float16, np.float32, np.float64):
        return None
    if constant.size == 0 or (node.op == "Div" and second is None):
        return None
    reads = node.inputs[0] if first is None else node.inputs[1]
    with np.errstate(all="ignore"):
        scale, shift = _of(node.op, constant.astype(np.float64), is_first=second is None)
    if not (np.isfinite(scale).all() and np.isfinite(shift).all()):
        return None
    return ScaleShift(reads, scale, shift, spread=constant.ndim > 0)


def batch_norm_scale_shift(graph: Graph, node: Node, rank: int) -> ScaleShift | None:
    """What a BatchNormalization of a tensor with `rank` axes computes; None where it is trained."""
    if node.op != "BatchNormalization" or node.domain not in ONNX_DOMAINS or rank < 2:
        return None
    found = None if training_obstacle(graph, node) else statistics_as_scale(graph, node)
    if found is None or not all(np.isfinite(values).all() for values in found):
        return None
    scale, shift = (values.reshape(-1, *[1] * (rank - 2)) for values in found)
    return ScaleShift(node.inputs[0], scale, shift, spread=True)


def _of(op: str, constant: Array, *, is_first: bool) -> tuple[Array, Array]:
    if op == "Mul":
        return constant, _ZERO
    if op == "Div":
        return 1 / constant, _ZERO
    if op == "Add":
        return _ONE, constant
    return (-_ONE, constant) if is_first else (_ONE, -constant)


def _vector(values: Array, rank: int, axis: int | None, channels: int) -> Array | None:
    if values.ndim > rank:
        return None
    shape = [1] * (rank - values.ndim) + list(values.shape)
    varying = [index for index, size in enumerate(shape) if size > 1]
    if not varying:
        return values.reshape(-1)
    if axis is None or varying != [axis % rank] or shape[axis % rank] != channels:
        return None
    return values.reshape(-1)
