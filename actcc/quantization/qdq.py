"""One node in int8, as plain ONNX says it: QuantizeLinear and DequantizeLinear around it.

    x → Conv → Relu → y      →      x → Q → DQ → Conv → Relu → Q → DQ → y

Runtimes fuse each such group into one int8 kernel, and a DequantizeLinear with the QuantizeLinear
behind it into nothing. Feature maps are uint8 with a zero point, weights int8 with one scale for
each output and no zero point, biases int32 in the product of both scales (Jacob et al. 2018,
"Quantization and training of neural networks for efficient integer-arithmetic-only inference").
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from actcc.activations.ranges import Range as ValueRange
from actcc.activations.ranges import clip_bounds
from actcc.errors import PassError
from actcc.graph import Graph, Node, Tensor
from actcc.linear.units import output_axis
from actcc.quantization.distribution import Range
from actcc.quantization.steps import Step
from actcc.site import Site

# The first in which weights may have a scale for each output.
OPSET = 13
_SMALLEST_SCALE = 1e-12
# In steps; the other half of 32 bits is for the products that are added.
LARGEST_BIAS = 2**30

# Operators with int8 kernels, and the inputs that are feature maps; None for all.
_FEATURE_MAPS: Mapping[str, tuple[int, ...] | None] = {
    "Add": (0, 1),
    "AveragePool": (0,),
    "Concat": None,
    "Conv": (0,),
    "Gemm": (0,),
    "GlobalAveragePool": (0,),
    "MatMul": (0,),
    "MaxPool": (0,),
    "Mul": (0, 1),
    **dict.fromkeys(("Flatten", "Reshape", "Resize", "Squeeze", "Transpose", "Unsqueeze"), (0,)),
}
QUANTIZABLE = frozenset(_FEATURE_MAPS)
# What they write has the scale of what they read.
SAME_SCALE = frozenset(
    {"Flatten", "MaxPool", "Reshape", "Resize", "Squeeze", "Transpose", "Unsqueeze"}
)
_LAYERS = frozenset({"Conv", "Gemm", "MatMul"})
# A kernel in int8 cuts off what these cut off for nothing, where the range ends there.
CUTS = frozenset({"Relu", "Clip"})


def feature_maps(graph: Graph, node: Node) -> list[Tensor]:
    """What a quantizable node reads that a run computes."""
    places = _FEATURE_MAPS[node.op]
    inputs = list(node.inputs) if places is None else [node.inputs[index] for index in places]
    return [tensor for tensor in inputs if not tensor.is_empty()]


def cut_behind(graph: Graph, node: Node) -> Node | None:
    """The Relu or Clip that alone reads what a layer or an Add writes."""
    written = node.outputs[0]
    readers = graph.consumers(written)
    alone = len(readers) == 1 and not graph.is_output(written)
    if node.op not in _LAYERS | {"Add"} or not alone or graph.is_read_in_subgraph(written):
        return None
    return readers[0] if readers[0].op in CUTS else None


def written_by(graph: Graph, node: Node) -> Tensor:
    """What a node in int8 writes, with what is cut off behind it."""
    cut = cut_behind(graph, node)
    return (cut or node).outputs[0]


def is_dequantized(graph: Graph, tensor: Tensor) -> bool:
    """Whether a tensor comes from int8 already."""
    writer = graph.producer(tensor)
    return writer is not None and writer.op == "DequantizeLinear"


def quantize_node(graph: Graph, name: str, ranges: Mapping[str, Range], weight_bits: int) -> None:
    """Let one node be computed in int8, in place.

    What it writes keeps its name. Feature maps that are quantized already are read as they are.

    Args:
        ranges: of the feature maps that it reads and writes, by name.
        weight_bits: 8, or 7 where products of two 8-bit numbers would saturate 16 bits.

    Raises:
        PassError: the graph cannot be brought to operator set 13, or a range is missing.
    """
    graph.raise_opset(OPSET)
    node = graph.node(name)
    cut = cut_behind(graph, node)
    last = cut or node
    # What one int8 kernel stands for.
    group = Site([n for n in (node, cut) if n is not None], node.inputs[0], last.outputs[0])
    reads = {t.name: read(graph, t, ranges) for t in feature_maps(graph, node)}
    inputs = [reads.get(tensor.name, tensor) for tensor in node.inputs]
    first = next(iter(reads.values()))
    if node.op in _LAYERS:
        inputs[1:] = weights_in_int8(graph, node, _step_of(graph, first).scale, weight_bits)
    result = graph.insert(node.op, inputs, like=node.outputs[0], **node.attrs)
    if cut is not None:
        result = graph.insert(cut.op, [result, *cut.inputs[1:]], like=result, **cut.attrs)
    if node.op in SAME_SCALE:
        step = _step_of(graph, first)
    else:
        # Between two activations that act as one nothing was observed.
        known = group.writes if group.writes in ranges else node.outputs[0].name
        values = range_of(ranges, known)
        step = Step.of(values if cut is None else _cut_off(graph, cut, values))
    graph.replace(group, "DequantizeLinear", [stored(graph, result, step), *step.constants])


def _cut_off(graph: Graph, cut: Node, values: Range) -> Range:
    """The part of a range that a Relu or Clip leaves.

    The kernel takes the place of both only where its range ends where they cut off, and what was
    observed may come from another activation that stood there.
    """
    bounds = clip_bounds(graph, cut)
    if bounds is None:
        return values
    left = ValueRange(*values).clipped(bounds)
    return left.low, left.high


def stored(graph: Graph, tensor: Tensor, step: Step) -> Tensor:
    """A tensor as uint8."""
    return graph.insert("QuantizeLinear", [tensor, *step.constants])


def dequantized(graph: Graph, tensor: Tensor, step: Step, *, like: Tensor) -> Tensor:
    """A tensor of uint8 as real values, of the type of `like`."""
    return graph.insert("DequantizeLinear", [tensor, *step.constants], like=like)


def range_of(ranges: Mapping[str, Range], name: str) -> Range:
    """The range of a tensor; raises PassError where it is not known."""
    if name not in ranges:
        raise PassError(f"nothing is known of the values of '{name}'")
    return ranges[name]


def read(graph: Graph, tensor: Tensor, ranges: Mapping[str, Range]) -> Tensor:
    """A feature map from int8; one that several nodes read is quantized once."""
    if is_dequantized(graph, tensor):
        return tensor
    for reader in graph.consumers(tensor):
        if reader.op == "QuantizeLinear":
            behind = graph.consumers(reader.outputs[0])
            if behind and behind[0].op == "DequantizeLinear" and _has_step(graph, behind[0]):
                return behind[0].outputs[0]
    step = Step.of(range_of(ranges, tensor.name))
    return dequantized(graph, stored(graph, tensor, step), step, like=tensor)


def _has_step(graph: Graph, node: Node) -> bool:
    """Whether what a node dequantizes is uint8 with one scale; a model may hold other kinds."""
    if Step.read(graph, node) is None:
        return False
    zero_point = graph.constant(node.inputs[2])
    return zero_point is not None and zero_point.dtype.name == "uint8"


def _step_of(graph: Graph, dequantized: Tensor) -> Step:
    writer = graph.producer(dequantized)
    assert writer is not None
    step = Step.read(graph, writer)
    if step is None:
        raise PassError(f"'{dequantized.name}' is quantized by channel, which no layer reads")
    return step


def weights_in_int8(graph: Graph, node: Node, input_scale: float, bits: int) -> list[Tensor]:
    """Weights, and bias if there is one, as int8 and int32 behind DequantizeLinear."""
    weights = graph.constant(node.inputs[1])
    if weights is None:
        raise PassError(f"the weights of '{node.name}' are not constant")
    axis = output_axis(node)
    others = tuple(index for index in range(weights.ndim) if index != axis)
    highest = 2 ** (bits - 1) - 1
    scales = np.abs(weights).max(axis=others).astype(np.float32) / np.float32(highest)
    bias = graph.constant(node.inputs[2]) if len(node.inputs) > 2 else None
    least = np.full(len(scales), _SMALLEST_SCALE)
    if bias is not None:
        bias = np.broadcast_to(bias.reshape(-1).astype(np.float64), len(scales))
        # Weights may be that small, or zero; the bias has to fit all the same.
        least = np.maximum(least, np.abs(bias) / (LARGEST_BIAS * input_scale))
    scales = np.maximum(scales, least.astype(np.float32))
    shape = [-1 if index == axis else 1 for index in range(weights.ndim)]
    rounded = np.clip(np.round(weights / scales.reshape(shape)), -highest, highest)
    zeros = np.zeros(len(scales), np.int8)
    found = [
        graph.insert(
            "DequantizeLinear",
            [rounded.astype(np.int8), scales, zeros],
            axis=axis,
            name=f"{node.name}_weights",
        )
    ]
    if bias is not None:
        bias_scales = (scales * np.float32(input_scale)).astype(np.float32)
        whole = np.round(bias / bias_scales).astype(np.int32)
        found.append(
            graph.insert(
                "DequantizeLinear",
                [whole, bias_scales, np.zeros(len(scales), np.int32)],
                axis=0,
                name=f"{node.name}_bias",
            )
        )
    return found
