"""Operators that move data: views, slices, joins, enlargement."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from actcc.backends.ethos_u.builder import (
    CHANNELS_LAST,
    Builder,
    Order,
    Step,
    Value,
    elements,
    extended,
    identity,
)
from actcc.backends.ethos_u.padding import pad
from actcc.backends.ethos_u.ranges import FIXED_OPERATORS
from actcc.backends.ethos_u.resizing import resize
from actcc.errors import PricingError
from actcc.graph import Array
from actcc.graph.axes import axis_groups

Rule = Callable[[Builder, Step], None]


def same(builder: Builder, step: Step) -> None:
    """Nothing is done: Identity, Dropout, and casts between floats."""
    source = builder.value(step.node.inputs[0])
    dtypes = [builder.graph.dtype(t) for t in (step.node.inputs[0], step.node.outputs[0])]
    if any(dtype is None or dtype.kind != "f" for dtype in dtypes):
        raise PricingError(
            f"node '{step.node.name}' ({step.node.op}) is of {dtypes[0]} and {dtypes[1]}; only "
            "floats become int8"
        )
    builder.alias(step.writes, source)


def transpose(builder: Builder, step: Step) -> None:
    """Transpose renames the stored axes; who needs another order moves the data."""
    source = builder.value(step.node.inputs[0])
    rank = len(source.shape)
    permutation = [int(axis) for axis in step.node.attrs.get("perm") or reversed(range(rank))]
    order = tuple(permutation.index(axis) for axis in source.order)
    shape = tuple(source.shape[axis] for axis in permutation)
    builder.alias(step.writes, Value(source.index, shape, order))


def reshape(builder: Builder, step: Step) -> None:
    """Reshape, Flatten, Squeeze and Unsqueeze; data moves only where axes that are merged or
    split do not lie beside each other.
    """
    source = builder.value(step.node.inputs[0])
    shape = builder.shape(step.writes)
    groups = axis_groups(source.shape, shape)
    stored = extended(source.order, source.shape)
    ordered = [axis for before, _ in _as_stored(groups, stored) for axis in before]
    if tuple(ordered) != stored:
        ones = tuple(axis for axis in source.order if source.shape[axis] == 1)
        source = builder.arranged(source, (*ones, *ordered))
    behind = [axis for _, after in _as_stored(groups, tuple(ordered)) for axis in after]
    order = _with_ones(tuple(behind), shape)
    index = builder.reshaped(source.index, tuple(shape[axis] for axis in order), step.writes)
    builder.alias(step.writes, Value(index, shape, order))


def _as_stored(
    groups: list[tuple[tuple[int, ...], tuple[int, ...]]], stored: Order
) -> list[tuple[tuple[int, ...], tuple[int, ...]]]:
    """The groups in the order in which the first of their axes is stored."""
    return sorted(groups, key=lambda group: min(stored.index(axis) for axis in group[0]))


def _with_ones(behind: Order, shape: tuple[int, ...]) -> Order:
    """A full order; axes of size 1 go where a common order has them."""
    rank = len(shape)
    for order in (CHANNELS_LAST if rank == 4 else identity(rank), identity(rank)):
        if extended(order, shape) == behind:
            return order
    return (*(axis for axis in range(rank) if shape[axis] == 1), *behind)


def slices(builder: Builder, step: Step) -> None:
    """Slice as STRIDED_SLICE.

    Raises:
        PricingError: bounds that are computed, or a negative step.
    """
    node = step.node
    source = builder.value(node.inputs[0])
    rank = len(source.shape)
    starts, ends = (builder.graph.argument(node, name) for name in ("starts", "ends"))
    if starts is None or ends is None:
        raise PricingError(f"node '{node.name}' (Slice) computes its bounds")
    firsts, lasts = np.atleast_1d(starts), np.atleast_1d(ends)
    axes = np.atleast_1d(builder.graph.argument(node, "axes", np.arange(len(firsts))))
    steps = np.atleast_1d(builder.graph.argument(node, "steps", np.ones(len(firsts), int)))
    cuts = [slice(0, size, 1) for size in source.shape]
    for axis, first, last, stride in zip(axes, firsts, lasts, steps, strict=True):
        place = int(axis) % rank
        if stride < 1:
            raise PricingError(f"node '{node.name}' (Slice) goes backwards, which is not lowered")
        bounds = slice(int(first), int(last), int(stride)).indices(source.shape[place])
        cuts[place] = slice(*bounds)
    _cut(builder, step.writes, source, cuts)


def gather(builder: Builder, step: Step) -> None:
    """Gather of one index as STRIDED_SLICE.

    Raises:
        PricingError: several indices, or computed ones.
    """
    node = step.node
    source = builder.value(node.inputs[0])
    indices = builder.constant(node.inputs[1])
    if indices is None or indices.size != 1:
        raise PricingError(f"node '{node.name}' (Gather) takes other than one constant index")
    place = int(node.attrs.get("axis", 0)) % len(source.shape)
    first = int(indices.reshape(-1)[0]) % source.shape[place]
    cuts = [slice(0, size, 1) for size in source.shape]
    cuts[place] = slice(first, first + 1, 1)
    shape = tuple(1 if axis == place else size for axis, size in enumerate(source.shape))
    part = Value(_cut_index(builder, step.writes, source, cuts, shape), shape, source.order)
    if indices.ndim == 1:
        builder.alias(step.writes, part)
        return
    order = tuple(axis - (axis > place) for axis in source.order if axis != place)
    left = tuple(size for axis, size in enumerate(shape) if axis != place)
    index = builder.reshaped(part.index, tuple(left[axis] for axis in order), step.writes)
    builder.alias(step.writes, Value(index, left, order))


def _cut(builder: Builder, name: str, source: Value, cuts: list[slice]) -> None:
    shape = builder.shape(name)
    index = _cut_index(builder, name, source, cuts, shape)
    builder.alias(name, Value(index, shape, source.order))


def _cut_index(
    builder: Builder, name: str, source: Value, cuts: list[slice], shape: tuple[int, ...]
) -> int:
    stored = [cuts[axis] for axis in source.order]
    operands = [
        builder.integers([cut.start for cut in stored], f"{name}/begin"),
        builder.integers([cut.stop for cut in stored], f"{name}/end"),
        builder.integers([cut.step for cut in stored], f"{name}/strides"),
    ]
    return builder.scratch(
        "STRIDED_SLICE",
        [source.index, *operands],
        name,
        tuple(shape[axis] for axis in source.order),
        builder.stored_quantization(source.index),
        "StridedSliceOptions",
    )


def split(builder: Builder, step: Step) -> None:
    """Split as SPLIT into equal parts, else as SPLIT_V."""
    node = step.node
    source = builder.value(node.inputs[0])
    place = source.position(int(node.attrs.get("axis", 0)))
    names = [tensor.name for tensor in node.outputs]
    axis = int(node.attrs.get("axis", 0)) % len(source.shape)
    sizes = [builder.shape(name)[axis] for name in names]
    if len(set(sizes)) == 1:
        operands = [builder.stored(np.array(place, np.int32), None, f"{names[0]}/axis")]
        operands.append(source.index)
        code, table = "SPLIT", "SplitOptions"
    else:
        operands = [source.index, builder.integers(sizes, f"{names[0]}/sizes")]
        operands.append(builder.stored(np.array(place, np.int32), None, f"{names[0]}/axis"))
        code, table = "SPLIT_V", "SplitVOptions"
    builder.put_all(code, operands, names, source.order, table, NumSplits=len(names))


def concat(builder: Builder, step: Step) -> None:
    """CONCATENATION in the order of the largest operand, in one scale."""
    node = step.node
    rank = len(builder.shape(step.writes))
    constants = [builder.constant(tensor) for tensor in node.inputs]
    computed = [
        builder.value(tensor)
        for tensor, values in zip(node.inputs, constants, strict=True)
        if values is None
    ]
    order = max(computed, key=lambda value: elements(value.shape)).order
    quantization = builder.quantization(step.writes)
    operands = []
    for tensor, values in zip(node.inputs, constants, strict=True):
        if values is None:
            value = builder.arranged(builder.value(tensor), order)
            operands.append(builder.requantized(value, step.writes, quantization))
        else:
            arranged: Array = values.transpose(order)
            operands.append(builder.numbers(arranged, f"{step.writes}/part", quantization))
    place = order.index(int(node.attrs["axis"]) % rank)
    builder.put("CONCATENATION", operands, step.writes, order, "ConcatenationOptions", Axis=place)


def softmax(builder: Builder, step: Step) -> None:
    """SOFTMAX over the axis that is stored last; its scale is fixed.

    Raises:
        PricingError: opsets before 13 over several axes at once.
    """
    node = step.node
    source = builder.value(node.inputs[0])
    rank = len(source.shape)
    old = builder.graph.opset < 13
    axis = int(node.attrs.get("axis", 1 if old else -1)) % rank
    if old and elements(source.shape[axis + 1 :]) != 1:
        raise PricingError(f"node '{node.name}' (Softmax) sums over several axes at once")
    order = (*(other for other in source.order if other != axis), axis)
    source = builder.arranged(source, order)
    index = builder.scratch(
        "SOFTMAX",
        [source.index],
        step.writes,
        source.stored,
        FIXED_OPERATORS["Softmax"],
        "SoftmaxOptions",
        Beta=1.0,
    )
    builder.rescaled(index, step.writes, source)


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "Identity": same,
        "Dropout": same,
        "Cast": same,
        "Transpose": transpose,
        "Reshape": reshape,
        "Flatten": reshape,
        "Squeeze": reshape,
        "Unsqueeze": reshape,
        "Slice": slices,
        "Gather": gather,
        "Split": split,
        "Concat": concat,
        "Pad": pad,
        "Resize": resize,
        "Upsample": resize,
        "Softmax": softmax,
    }
)
