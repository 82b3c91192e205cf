"""Shape inference that never serialises the weights.

`onnx.shape_inference` works on one serialised proto. Large initializers are therefore declared as
inputs of the same type first: only small integer constants ever decide a shape.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import onnx
from onnx import shape_inference

from actcc.errors import ModelError
from actcc.graph.files import LARGEST_SHAPE_CONSTANT, tensor_bytes
from actcc.graph.shape_values import shape_values

Dimension = int | str | None
Shape = tuple[Dimension, ...]


@dataclass(frozen=True)
class TensorType:
    """Element type (`onnx.TensorProto.DataType`) and shape; None where the rank is unknown."""

    element: int
    shape: Shape | None

    @property
    def is_static(self) -> bool:
        """Whether every dimension is a number."""
        return self.shape is not None and all(isinstance(d, int) for d in self.shape)

    @property
    def elements(self) -> int:
        """Number of elements; raises ModelError where the shape is not static."""
        count = 1
        for dimension in self.shape or ():
            if not isinstance(dimension, int):
                raise ModelError(f"shape {self.shape} is not static; give it with --shape")
            count *= dimension
        if self.shape is None:
            raise ModelError("a tensor has no shape; give the input shapes with --shape")
        return count

    @property
    def bytes(self) -> int:
        """Size in bytes of a static tensor."""
        return tensor_bytes(self.element, (self.elements,))


def same_shape(shape: Shape | None, other: Shape | None) -> bool:
    """Whether both shapes are known and the same in every run, symbols included."""
    return shape is not None and None not in shape and shape == other


def other_shape(shape: Shape | None, other: Shape | None) -> bool:
    """Whether two shapes differ in every run, as far as they are known."""
    if shape is None or other is None:
        return False
    if len(shape) != len(other):
        return True
    pairs = zip(shape, other, strict=True)
    return any(a != b for a, b in pairs if isinstance(a, int) and isinstance(b, int))


def type_of(info: onnx.ValueInfoProto) -> TensorType:
    """The tensor type that a value info declares; a negative size is an unknown one."""
    tensor = info.type.tensor_type
    shape: Shape | None = None
    if tensor.HasField("shape"):
        shape = tuple(
            d.dim_value if d.HasField("dim_value") and d.dim_value >= 0 else (d.dim_param or None)
            for d in tensor.shape.dim
        )
    return TensorType(tensor.elem_type, shape)


def value_info(name: str, tensor_type: TensorType) -> onnx.ValueInfoProto:
    """The inverse of `type_of`."""
    shape: Sequence[int | str | None] | None = tensor_type.shape
    return onnx.helper.make_tensor_value_info(name, tensor_type.element, shape)


def declared_types(model: onnx.ModelProto) -> dict[str, TensorType]:
    """Types that the model's value infos declare, for what ONNX cannot infer."""
    return {
        info.name: type_of(info)
        for info in model.graph.value_info
        if info.type.HasField("tensor_type")
    }


@dataclass(frozen=True)
class Inference:
    """What shape inference found.

    Attributes:
        types: of all tensors of the main graph.
        contradiction: what made the strict inference fail, where only the lenient one, which
            leaves out nodes that do not fit their inputs, gets through; empty where none did.
    """

    types: dict[str, TensorType]
    contradiction: str


def infer_types(
    model: onnx.ModelProto,
    input_shapes: Mapping[str, Sequence[int]],
    hints: Mapping[str, TensorType],
) -> Inference:
    """Types of all tensors of the main graph.

    Args:
        model: left as it is.
        input_shapes: concrete shapes for inputs with symbolic dimensions.
        hints: types of tensors that ONNX cannot infer (outputs of custom operators).

    Raises:
        ModelError: not even the lenient inference gets through.
    """
    light = onnx.ModelProto(ir_version=max(model.ir_version, 4))
    light.opset_import.extend(model.opset_import)
    light.functions.extend(model.functions)
    light.graph.name = model.graph.name
    light.graph.node.extend(model.graph.node)
    types: dict[str, TensorType] = {}
    declared = _declare_weights(model.graph.initializer, light.graph, types)
    for source in model.graph.input:
        if source.name not in declared:
            entry = light.graph.input.add()
            entry.CopyFrom(source)
            if source.name in input_shapes:
                entry.CopyFrom(
                    value_info(
                        source.name,
                        TensorType(type_of(source).element, tuple(input_shapes[source.name])),
                    )
                )
    fed = {source.name for source in model.graph.input} | declared
    for output in model.graph.output:
        if output.name in fed:
            continue  # handed through: an output without a shape would take its shape away
        # A declared shape would hide what is inferred, and clash with bound input shapes.
        element = output.type.tensor_type.elem_type
        if output.type.HasField("tensor_type"):
            light.graph.output.append(value_info(output.name, TensorType(element, None)))
        else:
            light.graph.output.append(output)
    light.graph.value_info.extend(value_info(name, hint) for name, hint in hints.items())
    inferred, contradiction = _infer(light)
    types.update(_types_in(inferred))
    while _settle_shape_values(light, types):
        inferred, contradiction = _infer(light)
        types.update(_types_in(inferred))
    for output in model.graph.output:
        found = types.get(output.name)
        if found is not None and found.shape is None and not input_shapes:
            types[output.name] = type_of(output)  # an operator that ONNX does not know
    return Inference(types, contradiction)


def _types_in(inferred: onnx.ModelProto) -> dict[str, TensorType]:
    graph = inferred.graph
    return {
        info.name: type_of(info)
        for info in (*graph.value_info, *graph.input, *graph.output)
        if info.type.HasField("tensor_type")
    }


def _settle_shape_values(light: onnx.ModelProto, types: dict[str, TensorType]) -> bool:
    """Put constants in the place of what the static shapes decide; whether there was any."""
    nodes = light.graph.node
    if all(types[name].is_static for node in nodes for name in node.output if name in types):
        return False
    static = {
        name: tuple(d for d in found.shape or () if isinstance(d, int))
        for name, found in types.items()
        if found.is_static
    }
    values = shape_values(light, static)
    kept = [node for node in nodes if values.keys().isdisjoint(node.output)]
    del light.graph.node[:]
    light.graph.node.extend(kept)
    for name, value in values.items():
        constant = onnx.numpy_helper.from_array(value, name)
        light.graph.initializer.append(constant)
        types[name] = TensorType(constant.data_type, value.shape)
    return bool(values)


def _infer(light: onnx.ModelProto) -> tuple[onnx.ModelProto, str]:
    contradiction = ""
    for strict in (True, False):
        try:
            return (
                shape_inference.infer_shapes(light, strict_mode=strict, data_prop=True),
                contradiction,
            )
        except (shape_inference.InferenceError, ValueError, RuntimeError) as error:
            contradiction = " ".join(str(error).split())[:300]
    raise ModelError(f"shape inference failed: {contradiction}; check the export")


def _declare_weights(
    initializers: Iterable[onnx.TensorProto],
    graph: onnx.GraphProto,
    types: dict[str, TensorType],
) -> set[str]:
    declared = set()
    for tensor in initializers:
        declared.add(tensor.name)
        types[tensor.name] = TensorType(tensor.data_type, tuple(tensor.dims))
        if tensor_bytes(tensor.data_type, tensor.dims) <= LARGEST_SHAPE_CONSTANT:
            graph.initializer.append(tensor)
        else:
            graph.input.append(value_info(tensor.name, types[tensor.name]))
    return declared
