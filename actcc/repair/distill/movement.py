"""Operator → PyTorch function: operators that move, cut, join and summarise.

A network that was exported for one sample is run on several at a time: where the first axis of a
Reshape is 1 and its input brings more, it becomes theirs. The network is compared with itself,
sample by sample, before that is relied on (`TorchNetwork.batches`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from actcc.repair.distill.reading import Function, Reading, UntranslatableError


def _concat(reading: Reading) -> Function:
    axis = int(reading.attribute("axis"))
    return lambda values: torch.cat(list(values), axis)


def _split(reading: Reading) -> Function:
    axis, count = int(reading.attribute("axis", 0)), len(reading.node.outputs)
    sizes = reading.numbers("split", 1)
    if sizes is not None:
        lengths = sizes
        return lambda values: torch.split(values[0], lengths, axis)

    def split(values: Sequence[Any]) -> Any:
        length = -(-values[0].shape[axis] // count)
        return torch.split(values[0], length, axis)

    return split


def _slice(reading: Reading) -> Function:
    starts, ends = reading.numbers("starts", 1), reading.numbers("ends", 2)
    if starts is None or ends is None:
        raise UntranslatableError("Slice without bounds")
    axes = reading.numbers("axes", 3) or list(range(len(starts)))
    steps = reading.numbers("steps", 4) or [1] * len(starts)
    reading.refuse_unless(min(steps) > 0, "backwards")
    rank = reading.rank()
    parts = [slice(None)] * rank
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        parts[axis % rank] = slice(start, min(end, np.iinfo(np.int64).max), step)
    which = tuple(parts)
    return lambda values: values[0][which]


def _reshape(reading: Reading) -> Function:
    wanted = reading.numbers("shape", 1) or []
    reading.refuse_unless(not reading.attribute("allowzero", 0), "with allowzero")

    def reshape(values: Sequence[Any]) -> Any:
        x = values[0]
        shape = [x.shape[i] if size == 0 else size for i, size in enumerate(wanted)]
        if shape and shape[0] == 1 and x.ndim and x.shape[0] > 1:
            shape[0] = x.shape[0]
        return x.reshape(shape)

    return reshape


def _transpose(reading: Reading) -> Function:
    order = reading.attribute("perm")
    if order is None:
        return lambda values: values[0].permute(*reversed(range(values[0].ndim)))
    axes = [int(axis) for axis in order]
    return lambda values: values[0].permute(*axes)


def _flatten(reading: Reading) -> Function:
    axis = int(reading.attribute("axis", 1))

    def flatten(values: Sequence[Any]) -> Any:
        x = values[0]
        rows = int(np.prod(x.shape[: axis % (x.ndim + 1) if axis < 0 else axis], dtype=np.int64))
        return x.reshape(rows, -1)

    return flatten


def _squeeze(reading: Reading) -> Function:
    axes = reading.numbers("axes", 1)
    if axes is None:
        raise UntranslatableError("Squeeze without axes")
    return lambda values: values[0].squeeze(tuple(axes))


def _unsqueeze(reading: Reading) -> Function:
    axes, rank = reading.numbers("axes", 1) or [], reading.rank()
    places = sorted(axis % (rank + len(axes)) for axis in axes)

    def unsqueeze(values: Sequence[Any]) -> Any:
        x = values[0]
        for place in places:
            x = x.unsqueeze(place)
        return x

    return unsqueeze


def _gather(reading: Reading) -> Function:
    axis = int(reading.attribute("axis", 0))
    indices = reading.constant(1)
    if indices is None:
        raise UntranslatableError("Gather without indices")
    if indices.ndim == 0:
        place = int(indices)
        return lambda values: values[0].select(axis, place)
    reading.refuse_unless(indices.ndim == 1, "with a table of indices")
    places = torch.from_numpy(np.ascontiguousarray(indices, np.int64))

    def gather(values: Sequence[Any]) -> Any:
        x = values[0]
        wrapped = torch.where(places < 0, places + x.shape[axis], places)
        return x.index_select(axis, wrapped.to(x.device))

    return gather


def _expand(reading: Reading) -> Function:
    wanted = reading.numbers("shape", 1) or []

    def expand(values: Sequence[Any]) -> Any:
        return values[0].expand(np.broadcast_shapes(values[0].shape, tuple(wanted)))

    return expand


def _reduce(function: Callable[..., Any], axes_input_since: int) -> Callable[[Reading], Function]:
    """A reduction whose axes became an input at some operator set."""

    def factory(reading: Reading) -> Function:
        axes = reading.numbers("axes", 1 if reading.opset >= axes_input_since else 99)
        keep = bool(reading.attribute("keepdims", 1))
        if axes is None:
            reading.refuse_unless(not reading.attribute("noop_with_empty_axes", 0), "of no axis")
            axes = list(range(reading.rank()))
        places = tuple(axes)
        return lambda values: function(values[0], dim=places, keepdim=keep)

    return factory


MOVEMENT: Mapping[str, Callable[[Reading], Function]] = MappingProxyType(
    {
        "Concat": _concat,
        "Expand": _expand,
        "Flatten": _flatten,
        "Gather": _gather,
        "ReduceMax": _reduce(torch.amax, 18),
        "ReduceMean": _reduce(torch.mean, 18),
        "ReduceMin": _reduce(torch.amin, 18),
        "ReduceSum": _reduce(torch.sum, 13),
        "Reshape": _reshape,
        "Slice": _slice,
        "Split": _split,
        "Squeeze": _squeeze,
        "Transpose": _transpose,
        "Unsqueeze": _unsqueeze,
    }
)
