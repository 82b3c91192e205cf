"""Nodes of a graph as convolutions, and a convolution as a node's operands.

Read are Conv; BatchNormalization, which scales and shifts each channel; and AveragePool where every
window divides by the same number: without padding, or with the padding counted.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from actcc.errors import PassError
from actcc.graph import Array, Graph, Node, Tensor
from actcc.graph.operators import ONNX_DOMAINS
from actcc.graph.shapes import TensorType
from actcc.linear.batch_norm import statistics_as_scale, training_obstacle
from actcc.linear.convolution import (
    Axis,
    Convolution,
    Obstacle,
    Sizes,
    average,
    on_axes,
    per_channel,
)
from actcc.linear.linear_layer import keeps_digits

Types = Mapping[str, TensorType]

_FLOATS = (np.float16, np.float32, np.float64)
CONVOLUTIONS = frozenset({"Conv", "BatchNormalization", "AveragePool"})


def is_convolution(node: Node) -> bool:
    """Whether the node is of an operator that `convolution_of` may be able to read."""
    return node.op in CONVOLUTIONS and node.domain in ONNX_DOMAINS


def convolution_of(graph: Graph, node: Node, types: Types) -> Convolution | Obstacle:
    """The node as a convolution of its first input, or why it is none.

    Args:
        types: of the graph's tensors, asked once: `graph.types` infers anew after each edit.
    """
    if node.op == "Conv":
        return _from_conv(graph, node, types)
    if node.op == "BatchNormalization":
        return _from_batch_norm(graph, node, types)
    return _from_average_pool(graph, node, types)


def types_in_every_run(graph: Graph) -> Types:
    """Types as the model declares them: sizes that only `--shape` fixes are symbols."""
    return graph.without_input_shapes().types if graph.input_shapes else graph.types


def spatial_sizes(tensor: Tensor, rank: int, types: Types) -> Sizes:
    """Sizes of the tensor's spatial axes; None for each that is not fixed."""
    shape = _shape(tensor, types)
    if shape is None or len(shape) != rank + 2:
        return [None] * rank
    return [size if isinstance(size, int) else None for size in shape[2:]]


def element_of(graph: Graph, node: Node) -> np.dtype[Any]:
    """Element type of a layer's weights.

    Raises:
        PassError: they are not constant; `convolution_of` tells before.
    """
    weights: Array | None = graph.constant(node.inputs[1])
    if weights is None:
        raise PassError(f"the weights of '{node.name}' are not constant; read the layer first")
    return np.dtype(weights.dtype)


def as_operands(
    graph: Graph, convolution: Convolution, source: Tensor, element: np.dtype[Any], stem: str
) -> tuple[list[Tensor], dict[str, Any]]:
    """Inputs and attributes of a Conv node; the weights are rounded to `element`.

    A bias of zeros is left out.
    """
    inputs = [source, graph.initializer(f"{stem}_weight", convolution.weights.astype(element))]
    if convolution.bias.any():
        inputs.append(graph.initializer(f"{stem}_bias", convolution.bias.astype(element)))
    return inputs, {
        "kernel_shape": [int(taps) for taps in convolution.weights.shape[2:]],
        "strides": list(convolution.strides),
        "pads": list(convolution.pads),
        "dilations": list(convolution.dilations),
        "group": convolution.groups,
    }


def fits(values: Sequence[Array], element: np.dtype[Any]) -> bool:
    """Whether the values are finite when rounded to the element type, and keep their digits."""
    return all(keeps_digits(value, element) for value in values)


# -------------------------------------------------------------------- operators


def _from_conv(graph: Graph, node: Node, types: Types) -> Convolution | Obstacle:
    biased = len(node.inputs) > 2 and not node.inputs[2].is_empty()
    weights = graph.constant(node.inputs[1])
    bias = graph.constant(node.inputs[2]) if biased else None
    if weights is None or (biased and bias is None):
        return Obstacle("weights or bias are not constant")
    if weights.dtype not in _FLOATS or weights.ndim < 3:
        return Obstacle(f"weights of type {weights.dtype} with {weights.ndim} axes")
    kernel = [int(taps) for taps in weights.shape[2:]]
    axes = _axes(node, kernel, spatial_sizes(node.inputs[0], len(kernel), types))
    if isinstance(axes, Obstacle):
        return axes
    wide = np.zeros(len(weights)) if bias is None else bias.astype(np.float64)
    groups = int(node.attrs.get("group", 1))
    return on_axes(weights.astype(np.float64), wide, axes, groups)


def _from_batch_norm(graph: Graph, node: Node, types: Types) -> Convolution | Obstacle:
    problem = training_obstacle(graph, node)
    if problem:
        return Obstacle(problem)
    shape = _shape(node.inputs[0], types)
    if shape is None or len(shape) < 3:
        return Obstacle("its input has no spatial axes, or an unknown number of them")
    found = statistics_as_scale(graph, node)
    if found is None:
        return Obstacle("its statistics are not constant")
    return per_channel(*found, len(shape) - 2)


def _from_average_pool(graph: Graph, node: Node, types: Types) -> Convolution | Obstacle:
    shape = _shape(node.inputs[0], types)
    if shape is None or len(shape) < 3 or not isinstance(shape[1], int):
        return Obstacle("the number of its channels is unknown")
    kernel = [int(taps) for taps in node.attrs["kernel_shape"]]
    sizes = spatial_sizes(node.inputs[0], len(kernel), types)
    axes = _axes(node, kernel, sizes)
    if isinstance(axes, Obstacle):
        return axes
    padded = any(axis.before or axis.after for axis in axes)
    if padded and not node.attrs.get("count_include_pad", 0):
        return Obstacle("it divides by fewer elements at the padded border")
    rounded_up = node.attrs.get("ceil_mode", 0) and any(
        size is None or (size - 1 + axis.surplus) % axis.stride
        for axis, size in zip(axes, sizes, strict=True)
    )
    if rounded_up:
        return Obstacle("its last window reaches beyond the padding (ceil_mode)")
    return average(shape[1], axes)


def _axes(node: Node, kernel: Sequence[int], sizes: Sizes) -> list[Axis] | Obstacle:
    rank = len(kernel)
    strides = node.attrs.get("strides") or [1] * rank
    dilations = node.attrs.get("dilations") or [1] * rank
    plain = [Axis(*column) for column in zip(kernel, strides, dilations, strict=True)]
    policy = node.attrs.get("auto_pad", "NOTSET")
    if policy in ("SAME_UPPER", "SAME_LOWER"):
        return _same_size(plain, sizes, extra_behind=policy == "SAME_UPPER")
    pads = node.attrs.get("pads") or [0] * (2 * rank)
    if policy == "VALID":
        pads = [0] * (2 * rank)
    if min(pads, default=0) < 0:
        return Obstacle("its pads are negative")
    return [
        Axis(axis.kernel, axis.stride, axis.dilation, before, after)
        for axis, before, after in zip(plain, pads[:rank], pads[rank:], strict=True)
    ]


def _same_size(axes: Sequence[Axis], sizes: Sizes, *, extra_behind: bool) -> list[Axis] | Obstacle:
    """Pads such that there is an output for every `stride` elements (ONNX, Conv, auto_pad)."""
    padded: list[Axis] = []
    for axis, size in zip(axes, sizes, strict=True):
        if axis.stride == 1:
            total = axis.reach
        elif size is None:
            return Obstacle("its padding depends on a size that is not fixed (auto_pad)")
        else:
            total = max((-(-size // axis.stride) - 1) * axis.stride + axis.reach + 1 - size, 0)
        less = total // 2
        before, after = (less, total - less) if extra_behind else (total - less, less)
        padded.append(Axis(axis.kernel, axis.stride, axis.dilation, before, after))
    return padded


def _shape(tensor: Tensor, types: Types) -> Sequence[Any] | None:
    found = types.get(tensor.name)
    return None if found is None else found.shape
