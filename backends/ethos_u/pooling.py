"""Pooling and reductions in TFLite."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np

from actcc.backends.ethos_u.builder import CHANNELS_LAST, Builder, Step
from actcc.backends.ethos_u.flatbuffer import enumeration
from actcc.backends.ethos_u.padding import padded
from actcc.backends.ethos_u.windows import window_of
from actcc.errors import PricingError
from actcc.graph import Node

Rule = Callable[[Builder, Step], None]


def maximum_pool(builder: Builder, step: Step) -> None:
    """MAX_POOL_2D; what SAME does not describe is padded with the least value.

    Raises:
        PricingError: it is dilated, or its indices are used.
    """
    node = step.node
    if len(node.outputs) > 1 and node.outputs[1].outputs:
        raise PricingError(f"node '{node.name}' (MaxPool) gives indices; TFLite's gives none")
    _pool(builder, step, "MAX_POOL_2D", lowest=True)


def average_pool(builder: Builder, step: Step) -> None:
    """AVERAGE_POOL_2D, which leaves padding out of the mean; where it counts it is made before.

    Raises:
        PricingError: padding that does not count and that SAME does not describe.
    """
    _pool(builder, step, "AVERAGE_POOL_2D", lowest=False)


def _pool(builder: Builder, step: Step, code: str, *, lowest: bool) -> None:
    node = step.node
    window = window_of(builder, node, tuple(node.attrs["kernel_shape"]))
    if window.dilations != (1, 1):
        raise PricingError(f"node '{node.name}' ({node.op}) is dilated; TFLite's is not")
    counted = bool(node.attrs.get("count_include_pad", 0))
    if not lowest and window.explicit and not counted:
        raise PricingError(
            f"node '{node.name}' ({node.op}) leaves padding out of its mean that is not SAME in "
            "TFLite"
        )
    source = builder.arranged(builder.value(node.inputs[0]), CHANNELS_LAST)
    padding = window.padding
    if window.explicit or (counted and window.padded):
        source = padded(builder, source, window.before, window.after, step.writes, lowest=lowest)
        padding = "VALID"
    builder.put(
        code,
        [source.index],
        step.writes,
        CHANNELS_LAST,
        "Pool2DOptions",
        Padding=enumeration("Padding", padding),
        StrideW=window.strides[1],
        StrideH=window.strides[0],
        FilterWidth=window.kernel[1],
        FilterHeight=window.kernel[0],
        FusedActivationFunction=enumeration("ActivationFunctionType", step.activation),
    )


def global_pool(code: str) -> Rule:
    """A reduction over all spatial axes, which stay with size 1."""

    def rule(builder: Builder, step: Step) -> None:
        rank = len(builder.shape(step.node.inputs[0]))
        _reduce(builder, step, code, list(range(2, rank)), keep=True)

    return rule


def reduction(code: str) -> Rule:
    """A reduction over the axes that the node names; all of them where it names none."""

    def rule(builder: Builder, step: Step) -> None:
        node = step.node
        rank = len(builder.shape(node.inputs[0]))
        axes = _axes(builder, node, rank)
        _reduce(builder, step, code, axes, keep=bool(node.attrs.get("keepdims", 1)))

    return rule


def _axes(builder: Builder, node: Node, rank: int) -> list[int]:
    named = builder.graph.argument(node, "axes")
    if named is not None:
        return [int(axis) % rank for axis in np.atleast_1d(named)]
    if len(builder.operands(node)) > 1:
        raise PricingError(f"node '{node.name}' ({node.op}) computes its axes")
    return [] if node.attrs.get("noop_with_empty_axes", 0) else list(range(rank))


def _reduce(builder: Builder, step: Step, code: str, axes: list[int], *, keep: bool) -> None:
    source = builder.value(step.node.inputs[0])
    if not axes:
        builder.rescaled(source.index, step.writes, source)
        return
    stored = builder.integers(sorted(source.position(axis) for axis in axes), f"{step.writes}/axes")
    order = source.order
    if not keep:
        left = [axis for axis in range(len(order)) if axis not in axes]
        order = tuple(left.index(axis) for axis in order if axis in left)
    builder.put(code, [source.index, stored], step.writes, order, "ReducerOptions", KeepDims=keep)


RULES: Mapping[str, Rule] = MappingProxyType(
    {
        "MaxPool": maximum_pool,
        "AveragePool": average_pool,
        "GlobalAveragePool": global_pool("MEAN"),
        "GlobalMaxPool": global_pool("REDUCE_MAX"),
        "ReduceMean": reduction("MEAN"),
        "ReduceSum": reduction("SUM"),
        "ReduceMax": reduction("REDUCE_MAX"),
        "ReduceMin": reduction("REDUCE_MIN"),
    }
)
