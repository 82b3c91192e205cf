"""Which operators an element-wise activation f may change places with.

    f(D(x)) = D(f(x))   D moves, repeats or drops elements and computes none: any f
    f(max(x)) = max(f(x))   the largest element of each window: f non-decreasing

Padding of MaxPool counts as -∞ and never wins, so f need not keep it; a window that holds nothing
but padding would give f(-∞), and is looked for. Pad writes a constant c itself: f(c) = c.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from actcc.activations.functions import Activation
from actcc.graph import Graph, Node, Tensor
from actcc.graph.operators import ONNX_DOMAINS

JOIN = "Concat"
_MAXIMA = frozenset({"MaxPool", "GlobalMaxPool"})
_MOVES_DATA = frozenset(
    {
        "Concat",
        "DepthToSpace",
        "Expand",
        "Flatten",
        "Gather",
        "Pad",
        "Reshape",
        "Resize",
        "Slice",
        "SpaceToDepth",
        "Squeeze",
        "Tile",
        "Transpose",
        "Unsqueeze",
        "Upsample",
    }
)
_ALWAYS = frozenset({"Relu", "Relu6", "Clip", "Sigmoid", "Tanh", "Softplus", "Softsign"})
_WHERE_POSITIVE = ("alpha", "gamma")  # factors of the other non-decreasing functions
_SIGNED = frozenset({"LeakyRelu", "ThresholdedRelu", "Elu", "Selu", "Celu", "HardSigmoid"})


def moves_data(node: Node) -> bool:
    """Whether the node computes no number of its own: its results are elements of its data."""
    return node.domain in ONNX_DOMAINS and (node.op in _MOVES_DATA or node.op in _MAXIMA)


def moved_data(node: Node) -> list[Tensor]:
    """The tensors whose elements such a node moves; its other inputs say where to."""
    return list(node.inputs if node.op == JOIN else node.inputs[:1])


def is_non_decreasing(activation: Activation) -> bool:
    """Whether x ≤ y gives f(x) ≤ f(y); False where it is not known."""
    if activation.name in _ALWAYS:
        return True
    factors = [value for name, value in activation.parameters if name in _WHERE_POSITIVE]
    return activation.name in _SIGNED and min(factors) >= 0


def obstacle(graph: Graph, node: Node, activation: Activation) -> str:
    """Why an activation may not change places with a node that moves data; empty if it may."""
    if activation.name == "PRelu":
        return f"{activation.name} has a slope for each channel, so it is bound to its place"
    if any(not tensor.is_empty() for tensor in node.outputs[1:]):
        return f"{node.op} '{node.name}' also gives indices, which the activation would change"
    if node.op in _MAXIMA and not is_non_decreasing(activation):
        return (
            f"{activation} decreases somewhere: the largest input may not give the largest result"
        )
    if node.op == "MaxPool":
        return _window_of_padding(graph, node)
    if node.op in ("Resize", "Upsample"):
        return _interpolation(node)
    if node.op == "Pad":
        return _other_padding(graph, node, activation)
    return ""


def _interpolation(node: Node) -> str:
    mode = _text(node, "mode", "nearest")
    if mode != "nearest":
        return f"{node.op} '{node.name}' computes new values ({mode})"
    if _text(node, "coordinate_transformation_mode", "") == "tf_crop_and_resize":
        return f"{node.op} '{node.name}' writes a value of its own outside the picture"
    return ""


def _other_padding(graph: Graph, node: Node, activation: Activation) -> str:
    if _text(node, "mode", "constant") != "constant":
        return ""
    name = "value" if graph.opset < 11 else "constant_value"
    given = graph.opset >= 11 and len(node.inputs) > 2 and not node.inputs[2].is_empty()
    value = graph.argument(node, name, None if given else 0.0)
    if value is None:
        return f"what Pad '{node.name}' writes is not constant"
    value, result = float(value), float(activation(np.float64(value)))
    if result == value:
        return ""
    return f"Pad '{node.name}' writes {value:g}, and {activation} of that is {result:g}"


def _window_of_padding(graph: Graph, node: Node) -> str:
    """Why a window may lie in the padding alone, in whatever runtime; empty if none does.

    None does where padding is smaller than the kernel, without dilation and ceil_mode. Otherwise
    the windows are looked at, for which the size has to be known for every run.
    """
    kernel = node.attrs.get("kernel_shape", [])
    dilations = node.attrs.get("dilations", [1] * len(kernel))
    strides = node.attrs.get("strides", [1] * len(kernel))
    automatic = _text(node, "auto_pad", "NOTSET")
    pads = (node.attrs.get("pads") if automatic == "NOTSET" else None) or [0] * (2 * len(kernel))
    same = automatic.startswith("SAME")
    shape = graph.shape(node.inputs[0])
    axes = len(kernel) if shape is None else len(shape) - 2
    lengths = {len(kernel), len(strides), len(dilations), len(pads) / 2}
    if axes < 1 or lengths != {axes} or min(*kernel, *strides, *dilations) < 1:
        return f"the kernel, strides, dilations and pads of '{node.name}' do not fit its input"
    small = all(pad < size for pad, size in zip(pads, [*kernel, *kernel], strict=True))
    if max(dilations) == 1 and small and (same or not node.attrs.get("ceil_mode", 0)):
        return ""
    refused = f"windows of MaxPool '{node.name}' may lie in its padding alone"
    if same or graph.input_shapes or shape is None:
        return refused
    if not all(isinstance(size, int) for size in shape[2:]):
        return refused
    before, behind = pads[: len(kernel)], pads[len(kernel) :]
    sides = zip(shape[2:], kernel, strides, dilations, before, behind, strict=True)
    return "" if all(_reach_data(*side) for side in sides) else refused


def _reach_data(
    size: int, kernel: int, stride: int, dilation: int, before: int, behind: int
) -> bool:
    """Whether each window, counted with ceil_mode, touches an element along this axis."""
    count = math.ceil((size + before + behind - dilation * (kernel - 1) - 1) / stride) + 1
    starts = np.arange(count) * stride - before
    touched = starts[:, None] + np.arange(kernel) * dilation
    return bool(((touched >= 0) & (touched < size)).any(axis=1).all())


def _text(node: Node, name: str, default: str) -> str:
    value: Any = node.attrs.get(name, default)
    return value.decode() if isinstance(value, bytes) else str(value)
