"""Multiply-accumulates and parameters of a graph, and the shape of the work in a contraction."""

from __future__ import annotations

import math
from dataclasses import dataclass

import onnx_graphsurgeon as gs

from actcc.errors import PricingError
from actcc.graph.graph import Graph
from actcc.graph.view import Node, Tensor

_CONVOLUTIONS = frozenset({"Conv", "QLinearConv", "ConvInteger", "ConvTranspose"})
_GATES = {"LSTM": 4, "GRU": 3, "RNN": 1}


@dataclass(frozen=True)
class Contraction:
    """The work of a convolution or matrix product: at each position, for each group, each output
    channel sums over kernel and input channels.

    Attributes:
        batch: independent repetitions.
        rows, columns: positions in the plane; one row where there is no plane.
        groups: independent groups of channels.
        inputs, outputs: channels of one group.
        kernel: (height, width).
        stride: (height, width); for a transposed convolution the factor by which it upsamples.
        transposed: rows and columns are those of the input, not of the output.
        dilation: steps between elements of the kernel, (height, width).
    """

    batch: int
    rows: int
    columns: int
    groups: int
    inputs: int
    outputs: int
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    transposed: bool = False
    dilation: tuple[int, int] = (1, 1)

    @property
    def positions(self) -> int:
        """Places at which the kernel is laid, over the whole batch."""
        return self.batch * self.rows * self.columns

    @property
    def weights(self) -> int:
        """Number of weights without the bias."""
        return self.groups * self.inputs * self.outputs * self.kernel[0] * self.kernel[1]

    @property
    def macs(self) -> int:
        """Multiply-accumulates; those with padding count too."""
        return self.positions * self.weights

    @property
    def depthwise(self) -> bool:
        """Whether every output channel reads one input channel of several."""
        return self.groups > 1 and self.inputs == 1


def contraction(graph: Graph, node: Node) -> Contraction | None:
    """The work of a Conv, ConvTranspose, Gemm, MatMul or a quantized form of them.

    Returns None for other operators, and for convolutions over three or more spatial axes.

    Raises:
        ModelError: a shape is not static.
    """
    if node.op in _CONVOLUTIONS:
        return _convolution(graph, node)
    if node.op == "Gemm":
        return _gemm(graph, node)
    if node.op in ("MatMul", "MatMulInteger", "QLinearMatMul"):
        return _matmul(graph, node)
    return None


def node_macs(graph: Graph, node: Node) -> int:
    """Multiply-accumulates of one node; 0 for operators that are not counted in them.

    Raises:
        ModelError: a shape is not static.
    """
    work = contraction(graph, node)
    if work is not None:
        return work.macs
    if node.op in _CONVOLUTIONS:
        weights = _static(graph, node.inputs[_weight_index(node)])
        plane = _static(graph, node.inputs[0] if node.op == "ConvTranspose" else node.outputs[0])
        return plane[0] * math.prod(plane[2:]) * math.prod(weights)
    if node.op in _GATES:
        steps, batch, size = _static(graph, node.inputs[0])
        recurrent = _static(graph, node.inputs[2])
        directions, hidden = recurrent[0], recurrent[2]
        return steps * batch * directions * _GATES[node.op] * hidden * (hidden + size)
    return 0


def count_macs(graph: Graph) -> int:
    """Multiply-accumulates of one inference; nodes inside subgraphs do not count.

    Raises:
        ModelError: a shape is not static.
    """
    return sum(node_macs(graph, node) for node in graph.nodes())


def count_parameters(graph: Graph) -> int:
    """Elements of all initializers and Constant nodes that the main graph reads, each once."""
    read = {id(t): t for node in graph.nodes() for t in node.inputs}
    return sum(_elements(graph, tensor) for tensor in read.values())


def _elements(graph: Graph, tensor: Tensor) -> int:
    constant = isinstance(tensor, gs.Constant) or any(n.op == "Constant" for n in tensor.inputs)
    return math.prod(_static(graph, tensor)) if constant else 0


def _weight_index(node: Node) -> int:
    return 3 if node.op in ("QLinearConv", "QLinearMatMul") else 1


def _convolution(graph: Graph, node: Node) -> Contraction | None:
    source, weights = node.inputs[0], node.inputs[_weight_index(node)]
    kernel = _static(graph, weights)
    if not 3 <= len(kernel) <= 4:
        return None
    groups = int(node.attrs.get("group", 1))
    if groups < 1:
        raise PricingError(f"node '{node.name}' has {groups} groups; export the model again")
    transposed = node.op == "ConvTranspose"
    plane = _static(graph, source if transposed else node.outputs[0])
    # The weights are [outputs, inputs / groups, ...]; transposed [inputs, outputs / groups, ...].
    inputs = kernel[0] // groups if transposed else kernel[1]
    outputs = kernel[1] if transposed else kernel[0] // groups
    strides = tuple(node.attrs.get("strides", ())) or (1,) * (len(kernel) - 2)
    dilations = tuple(node.attrs.get("dilations", ())) or (1,) * (len(kernel) - 2)
    rows, columns = _plane(plane[2:])
    return Contraction(
        batch=plane[0],
        rows=rows,
        columns=columns,
        groups=groups,
        inputs=inputs,
        outputs=outputs,
        kernel=_plane(kernel[2:]),
        stride=_plane(strides),
        transposed=transposed,
        dilation=_plane(dilations),
    )


def _gemm(graph: Graph, node: Node) -> Contraction:
    left, right = (_static(graph, tensor) for tensor in node.inputs[:2])
    inputs, rows = left if node.attrs.get("transA", 0) else left[::-1]
    outputs = right[0] if node.attrs.get("transB", 0) else right[1]
    return Contraction(1, 1, rows, 1, inputs, outputs)


def _matmul(graph: Graph, node: Node) -> Contraction:
    left = _static(graph, node.inputs[0])
    right = _static(graph, node.inputs[_weight_index(node)])
    outputs = right[-1] if len(right) > 1 else 1
    rows = left[-2] if len(left) > 1 else 1
    product = _static(graph, node.outputs[0])
    if len(right) <= 2:
        # One matrix for the whole batch: its rows are so many positions.
        return Contraction(1, 1, math.prod(product) // outputs, 1, left[-1], outputs)
    batch = math.prod(product) // (rows * outputs)
    return Contraction(batch, 1, rows, 1, left[-1], outputs)


def _plane(sizes: tuple[int, ...]) -> tuple[int, int]:
    return (1, sizes[0]) if len(sizes) == 1 else (sizes[0], sizes[1])


def _static(graph: Graph, tensor: Tensor) -> tuple[int, ...]:
    shape = tensor.shape if isinstance(tensor, gs.Constant) else graph.shape(tensor)
    sizes = tuple(dimension for dimension in shape or () if isinstance(dimension, int))
    if shape is None or len(sizes) < len(shape):
        raise PricingError(
            f"tensor '{tensor.name}' has no static shape ({shape}); give the input shapes "
            "with --shape"
        )
    return sizes
