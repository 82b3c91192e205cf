"""Building a TFLite network tensor by tensor, each in the layout in which it was made.

ONNX counts channels second, TFLite last. No tensor is moved for that: every value remembers which
ONNX axis lies at each of its stored positions, a Transpose only renames these, and an operator that
needs another order asks for it. Where only axes of size 1 change places, a RESHAPE does it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from actcc.backends.ethos_u.network import (
    FlatNetwork,
    FlatOperator,
    FlatTensor,
    Quantization,
    int8_range,
)
from actcc.errors import PricingError
from actcc.graph import Array, Graph, Node, Tensor

Order = tuple[int, ...]
CHANNELS_LAST: Order = (0, 2, 3, 1)
NO_ACTIVATION = "NONE"


def identity(rank: int) -> Order:
    """The order in which ONNX stores a tensor."""
    return tuple(range(rank))


@dataclass(frozen=True)
class Value:
    """An ONNX tensor in the network.

    Attributes:
        index: of its TFLite tensor.
        shape: in ONNX's order of axes.
        order: the ONNX axis at each stored position.
    """

    index: int
    shape: tuple[int, ...]
    order: Order

    @property
    def stored(self) -> tuple[int, ...]:
        """Its shape as TFLite stores it."""
        return tuple(self.shape[axis] for axis in self.order)

    def position(self, axis: int) -> int:
        """Where an ONNX axis, which may count from the end, is stored."""
        return self.order.index(axis % len(self.shape))


@dataclass(frozen=True)
class Step:
    """One node with what fuses into it.

    Attributes:
        writes: the tensor that its operator writes: the node's own output, or that of the
            activation behind it.
        activation: name in `ActivationFunctionType` of what is applied on the way.
    """

    node: Node
    writes: str
    activation: str = NO_ACTIVATION


class Builder:
    """A network in the making.

    Args:
        quantizations: of every tensor that a run computes, by name.
    """

    def __init__(self, graph: Graph, quantizations: Mapping[str, Quantization]) -> None:
        self.graph = graph
        self._quantizations = quantizations
        self._tensors: list[FlatTensor] = []
        self._operators: list[FlatOperator] = []
        self._values: dict[str, Value] = {}
        self._arranged: dict[tuple[int, Order], Value] = {}
        self._names: dict[str, int] = {}
        self._origin: dict[str, str] = {}

    # ---------------------------------------------------------------- questions

    def shape(self, tensor: Tensor | str) -> tuple[int, ...]:
        """The static shape of an ONNX tensor; raises PricingError where it has none."""
        name = tensor if isinstance(tensor, str) else tensor.name
        found = self.graph.types.get(name)
        if found is None or not found.is_static or found.shape is None:
            raise PricingError(f"tensor '{name}' has no static shape; give the shapes with --shape")
        return tuple(int(size) for size in found.shape if isinstance(size, int))

    def constant(self, tensor: Tensor) -> Array | None:
        """The values of an operand that is known beforehand."""
        return self.graph.constant(tensor)

    def operands(self, node: Node) -> list[Tensor]:
        """The inputs of a node that are there."""
        return [tensor for tensor in node.inputs if not tensor.is_empty()]

    def value(self, tensor: Tensor) -> Value:
        """An ONNX tensor that a run computes.

        Raises:
            PricingError: it is computed by a node that has been left out.
        """
        found = self._values.get(tensor.name)
        if found is None:
            raise PricingError(
                f"tensor '{tensor.name}' is computed from constants or from a shape; "
                "fold constants before (the normalizing passes do)"
            )
        return found

    def quantization(self, name: str) -> Quantization:
        """The quantization of an ONNX tensor that a run computes."""
        return self._quantizations[name]

    def stored_quantization(self, index: int) -> Quantization:
        """The quantization of a TFLite tensor."""
        found = self._tensors[index].quantization
        assert found is not None
        return found

    # ---------------------------------------------------------------- tensors

    def add_input(self, tensor: Tensor, order: Order) -> int:
        """An input of the network, stored in that order."""
        shape = self.shape(tensor)
        stored = tuple(shape[axis] for axis in order)
        index = self._tensor(tensor.name, stored, self.quantization(tensor.name), tensor.name)
        self._values[tensor.name] = Value(index, shape, order)
        return index

    def integers(self, values: Sequence[int], stem: str) -> int:
        """A constant of int32 numbers, such as axes or a shape."""
        data = np.asarray(values, np.int32)
        return self._append(FlatTensor(self._fresh(stem), data.shape, None, data))

    def numbers(self, values: Array, stem: str, quantization: Quantization | None = None) -> int:
        """A constant of real numbers, stored as int8 over its own range or as asked."""
        if quantization is None:
            quantization = int8_range(float(values.min()), float(values.max()))
        return self.stored(quantization.quantize(values), quantization, stem)

    def stored(self, data: Array, quantization: Quantization | None, stem: str) -> int:
        """A constant whose elements are given as they are stored."""
        return self._append(FlatTensor(self._fresh(stem), data.shape, quantization, data))

    def alias(self, name: str, value: Value) -> None:
        """Let an ONNX tensor be a value that is there already."""
        self._values[name] = value

    # ---------------------------------------------------------------- operators

    def put(
        self,
        code: str,
        inputs: Sequence[int],
        name: str,
        order: Order,
        table: str = "",
        **options: Any,
    ) -> Value:
        """Add an operator that writes an ONNX tensor, stored in that order."""
        shape = self.shape(name)
        stored = tuple(shape[axis] for axis in order)
        index = self.scratch(code, inputs, name, stored, self.quantization(name), table, **options)
        self._values[name] = Value(index, shape, order)
        return self._values[name]

    def scratch(
        self,
        code: str,
        inputs: Sequence[int],
        owner: str,
        stored: tuple[int, ...],
        quantization: Quantization,
        table: str = "",
        **options: Any,
    ) -> int:
        """Add an operator that writes a tensor of its own on the way to an ONNX tensor `owner`."""
        index = self._tensor(owner, stored, quantization, owner)
        self.operator(code, inputs, [index], table, **options)
        return index

    def put_all(
        self,
        code: str,
        inputs: Sequence[int],
        names: Sequence[str],
        order: Order,
        table: str = "",
        **options: Any,
    ) -> None:
        """Add an operator that writes several ONNX tensors, stored in that order."""
        indices = []
        for name in names:
            shape = self.shape(name)
            stored = tuple(shape[axis] for axis in order)
            index = self._tensor(name, stored, self.quantization(name), name)
            self._values[name] = Value(index, shape, order)
            indices.append(index)
        self.operator(code, inputs, indices, table, **options)

    def operator(
        self, code: str, inputs: Sequence[int], outputs: Sequence[int], table: str, **options: Any
    ) -> None:
        """Add an operator between tensors that are there."""
        self._operators.append(FlatOperator(code, tuple(inputs), tuple(outputs), table, options))

    def rescaled(self, index: int, name: str, value: Value) -> None:
        """Let an ONNX tensor be a stored one, in the scale that the ONNX tensor is to have."""
        found = Value(index, value.shape, value.order)
        index = self.requantized(found, name, self.quantization(name))
        self._values[name] = Value(index, value.shape, value.order)

    def requantized(self, value: Value, owner: str, wanted: Quantization) -> int:
        """A value in another scale, on the way to an ONNX tensor `owner`."""
        if self.stored_quantization(value.index) == wanted:
            return value.index
        stored = value.stored
        return self.scratch("QUANTIZE", [value.index], owner, stored, wanted, "QuantizeOptions")

    # ---------------------------------------------------------------- layout

    def arranged(self, value: Value, order: Order) -> Value:
        """The value stored in that order; made once for all that ask for it."""
        if value.order == order:
            return value
        key = (value.index, order)
        if key not in self._arranged:
            self._arranged[key] = self._rearrange(value, order)
        return self._arranged[key]

    def _rearrange(self, value: Value, order: Order) -> Value:
        owner = self._origin[self._tensors[value.index].name]
        quantization = self.stored_quantization(value.index)
        stored = tuple(value.shape[axis] for axis in order)
        if extended(value.order, value.shape) == extended(order, value.shape):
            index = self.reshaped(value.index, stored, owner)
        else:
            permutation = [value.order.index(axis) for axis in order]
            operands = [value.index, self.integers(permutation, f"{owner}/permutation")]
            index = self.scratch(
                "TRANSPOSE", operands, owner, stored, quantization, "TransposeOptions"
            )
        return Value(index, value.shape, order)

    def reshaped(self, index: int, stored: tuple[int, ...], owner: str) -> int:
        """A stored tensor in another shape."""
        if self._tensors[index].shape == stored:
            return index
        quantization = self.stored_quantization(index)
        operands = [index, self.integers(stored, f"{owner}/shape")]
        return self.scratch("RESHAPE", operands, owner, stored, quantization, "ReshapeOptions")

    def with_rank(self, value: Value, rank: int) -> Value:
        """The value with axes of size 1 in front, as ONNX broadcasts it."""
        more = rank - len(value.shape)
        if more == 0:
            return value
        order = (*range(more), *(axis + more for axis in value.order))
        shape = (1,) * more + value.shape
        owner = self._origin[self._tensors[value.index].name]
        stored = tuple(shape[axis] for axis in order)
        return Value(self.reshaped(value.index, stored, owner), shape, order)

    # ---------------------------------------------------------------- result

    def network(self) -> FlatNetwork:
        """The finished network. Outputs of rank 4 stay in the order in which they were made."""
        outputs: list[int] = []
        orders: dict[str, Order] = {t.name: self.value(t).order for t in self.graph.inputs}
        inputs = tuple(self.value(tensor).index for tensor in self.graph.inputs)
        for tensor in self.graph.outputs:
            value = self.value(tensor)
            if value.order not in (CHANNELS_LAST, identity(len(value.shape))):
                value = self.arranged(value, identity(len(value.shape)))
            orders[tensor.name] = value.order
            outputs.append(value.index)
        return FlatNetwork(
            self._tensors, self._operators, inputs, tuple(outputs), orders, self._origin
        )

    def _tensor(
        self, stem: str, stored: tuple[int, ...], quantization: Quantization, owner: str
    ) -> int:
        name = self._fresh(stem)
        self._origin[name] = owner
        return self._append(FlatTensor(name, stored, quantization))

    def _append(self, tensor: FlatTensor) -> int:
        self._tensors.append(tensor)
        return len(self._tensors) - 1

    def _fresh(self, stem: str) -> str:
        # A comma would add a column to the compiler's table of layers.
        clean = stem.replace(",", "_")
        count = self._names.get(clean, 0)
        self._names[clean] = count + 1
        return clean if count == 0 else f"{clean}#{count}"


def extended(order: Order, shape: Sequence[int]) -> Order:
    """The axes of more than one element in the order in which they are stored."""
    return tuple(axis for axis in order if shape[axis] != 1)


def elements(shape: Sequence[int]) -> int:
    """Number of elements."""
    return math.prod(shape)
