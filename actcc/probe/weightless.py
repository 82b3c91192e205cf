"""Graphs whose weights are others: what a kit holds in the place of a model's values.

Latency does not depend on the values of weights. All graphs read random ones from files that they
share; weights inside subgraphs and functions are random where they stand, because only those of
the main graph are read from files everywhere. Values stay that decide what is computed: shapes,
axes and indices, the scales of a Resize, and single numbers, also where they are repeated (bounds,
zero points, the scale of a whole tensor).
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import Message
from onnx import AttributeProto, TensorProto, numpy_helper

from actcc.errors import ModelError
from actcc.graph import Graph
from actcc.graph.files import messages_in, raw_bytes

# As many integers as may be a shape or its indices; structure hashes count them by value as well.
_LONGEST_SHAPE = 64
_LONGEST_LIST = 16
_INDICES = (TensorProto.INT64, TensorProto.INT32)
# What reads integers as quantized values, of which a bias has 32 bits.
_ARITHMETIC = {"DequantizeLinear", "QLinearConv", "Add", "Sub", "Mul"}
_RESIZING = {"Resize", "Upsample"}
_FLOATS = ("float16", "float", "double")
_BYTES = ("int8", "uint8")


def without_weights(graph: Graph) -> tuple[onnx.ModelProto, Mapping[str, int]]:
    """A graph with other weights, and the bytes that it reads of each file by name.

    Raises:
        ModelError: it holds values that cannot be replaced.
    """
    model = graph.to_proto()
    _constants_to_initializers(model.graph)
    _refuse_the_irreplaceable(model)
    readers = _readers(model)
    files: dict[str, int] = {}
    for tensor in model.graph.initializer:
        if not _decides(tensor, readers[tensor.name]):
            name, size = _file(tensor)
            files[name] = max(files.get(name, 0), size)
            _replace(tensor, data_location=TensorProto.EXTERNAL)
            for key, value in (("location", name), ("offset", "0"), ("length", str(size))):
                tensor.external_data.add(key=key, value=value)
    for tensor in _tensors(model, ""):
        inside = tensor.data_location != TensorProto.EXTERNAL
        if inside and not _decides(tensor, readers[tensor.name]):
            _replace(tensor, raw_data=random_values(*_file(tensor)))
    return model, files


def _file(tensor: TensorProto) -> tuple[str, int]:
    """Name of the file for a tensor, and the bytes that it needs of it."""
    kind = "weights" if len(tensor.dims) > 1 else "vectors"
    element = TensorProto.DataType.Name(tensor.data_type).lower()
    return f"{kind}_{element}.bin", raw_bytes(tensor.data_type, tensor.dims)


def _replace(tensor: TensorProto, **content: Any) -> None:
    tensor.CopyFrom(
        TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims, **content)
    )


def random_values(name: str, size: int) -> bytes:
    """The content of a file: weights of both signs; vectors above 0, since variances and scales
    are; zeros of types for which 0 alone is valid everywhere, as an index is."""
    kind, _, element = name.removesuffix(".bin").partition("_")
    generator = np.random.default_rng(0)
    if element in _BYTES:
        return bytes(generator.integers(0, 100, size).astype(element).tobytes())
    if element not in _FLOATS:
        return bytes(size)
    dtype = np.dtype("float32" if element == "float" else element)
    values = 0.05 * generator.standard_normal(size // dtype.itemsize)
    if kind == "vectors":
        values = np.abs(values) + 0.01
    return bytes(values.astype(dtype).tobytes())


def _tensors(message: Message, name: str) -> Iterator[TensorProto]:
    """Tensors anywhere in a message; that of a Constant node has the name of its output."""
    if isinstance(message, TensorProto):
        message.name = name or message.name
        yield message
        return
    if isinstance(message, onnx.NodeProto):
        name = message.output[0] if message.op_type == "Constant" else ""
    for inner in messages_in(message):
        yield from _tensors(inner, name)


def _refuse_the_irreplaceable(message: Message) -> None:
    what = ""
    if isinstance(message, onnx.SparseTensorProto):
        what = f"the sparse tensor '{message.values.name}'"
    elif isinstance(message, TensorProto) and len(message.string_data) > 1:
        what = f"the texts '{message.name}'"
    elif isinstance(message, AttributeProto) and _length(message) > _LONGEST_LIST:
        what = f"the attribute '{message.name}'"
    if what:
        raise ModelError(f"left out: {what} may be weights, and cannot be replaced by others")
    for inner in messages_in(message):
        _refuse_the_irreplaceable(inner)


def _length(attribute: AttributeProto) -> int:
    return max(len(attribute.floats), len(attribute.strings))


def _constants_to_initializers(graph: onnx.GraphProto) -> None:
    """Runtimes do the same; the nodes' values can then be read from files."""
    for node in [node for node in graph.node if node.op_type == "Constant"]:
        (attribute,) = node.attribute
        if attribute.type == AttributeProto.TENSOR:
            tensor = attribute.t
        elif attribute.type in (AttributeProto.FLOAT, AttributeProto.FLOATS):
            values = onnx.helper.get_attribute_value(attribute)
            tensor = numpy_helper.from_array(np.array(values, np.float32))
        elif attribute.type in (AttributeProto.INT, AttributeProto.INTS):
            values = onnx.helper.get_attribute_value(attribute)
            tensor = numpy_helper.from_array(np.array(values, np.int64))
        else:
            continue  # a text
        tensor.name = node.output[0]
        graph.initializer.append(tensor)
        graph.node.remove(node)


def _readers(message: Message) -> Mapping[str, set[tuple[str, int]]]:
    """Operators with the number of the input that reads a tensor, by the tensor's name."""
    found: dict[str, set[tuple[str, int]]] = defaultdict(set)

    def visit(inner: Message) -> None:
        if isinstance(inner, onnx.NodeProto):
            for index, name in enumerate(inner.input):
                found[name].add((inner.op_type, index))
        for further in messages_in(inner):
            visit(further)

    visit(message)
    return found


def _decides(tensor: TensorProto, readers: set[tuple[str, int]]) -> bool:
    """Whether a tensor's values say what is computed."""
    if tensor.data_type == TensorProto.STRING or math.prod(tensor.dims) <= 1:
        return True
    if any(op in _RESIZING and index > 0 for op, index in readers):
        return True
    if tensor.data_type in _INDICES and math.prod(tensor.dims) <= _LONGEST_SHAPE:
        quantized = tensor.data_type == TensorProto.INT32 and readers
        return not (quantized and {op for op, _ in readers} <= _ARITHMETIC)
    values = numpy_helper.to_array(tensor)
    return bool((values == values.flat[0]).all())
