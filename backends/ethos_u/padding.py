"""Pad, and the padding of windows that TFLite's SAME does not describe."""

from __future__ import annotations

import numpy as np

from actcc.backends.ethos_u.builder import CHANNELS_LAST, Builder, Step, Value
from actcc.backends.ethos_u.flatbuffer import enumeration
from actcc.backends.ethos_u.network import INT8_LOW
from actcc.errors import PricingError


def padded(
    builder: Builder,
    value: Value,
    before: tuple[int, int],
    after: tuple[int, int],
    owner: str,
    *,
    lowest: bool = False,
) -> Value:
    """A feature map, stored with channels last, in a border of zeros or of the least value."""
    amounts = np.array([[0, 0], [before[0], after[0]], [before[1], after[1]], [0, 0]], np.int32)
    shape = tuple(
        size + int(extra)
        for size, extra in zip(value.shape, amounts.sum(axis=1)[[0, 3, 1, 2]], strict=True)
    )
    stored = tuple(shape[axis] for axis in CHANNELS_LAST)
    quantization = builder.stored_quantization(value.index)
    operands = [value.index, builder.stored(amounts, None, f"{owner}/padding")]
    code, table = "PAD", "PadOptions"
    if lowest:
        fill = np.array([INT8_LOW], np.int8)
        operands.append(builder.stored(fill, quantization, f"{owner}/lowest"))
        code, table = "PADV2", "PadV2Options"
    index = builder.scratch(code, operands, owner, stored, quantization, table)
    return Value(index, shape, CHANNELS_LAST)


def pad(builder: Builder, step: Step) -> None:
    """Pad as PAD, PADV2 or MIRROR_PAD.

    Raises:
        PricingError: its amounts are computed or negative, or it repeats the edge.
    """
    node = step.node
    source = builder.value(node.inputs[0])
    rank = len(source.shape)
    amounts = builder.graph.argument(node, "pads")
    if amounts is None:
        raise PricingError(f"node '{node.name}' (Pad) computes how much it pads")
    axes = builder.graph.argument(node, "axes")
    chosen = range(rank) if axes is None else [int(axis) % rank for axis in np.atleast_1d(axes)]
    pairs = np.zeros((rank, 2), np.int32)
    pairs[list(chosen)] = np.asarray(amounts, np.int32).reshape(2, -1).T
    mode = node.attrs.get("mode", "constant")
    if pairs.min() < 0 or mode not in ("constant", "reflect"):
        raise PricingError(
            f"node '{node.name}' (Pad) crops or has the mode '{mode}'; TFLite pads with a constant "
            "or by reflection"
        )
    stored = builder.stored(pairs[list(source.order)], None, f"{step.writes}/padding")
    operands = [source.index, stored]
    name = "value" if node.attrs.get("value") is not None else "constant_value"
    fill = float(builder.graph.argument(node, name, 0.0))
    if mode == "reflect":
        reflect = enumeration("MirrorPadMode", "REFLECT")
        builder.put(
            "MIRROR_PAD", operands, step.writes, source.order, "MirrorPadOptions", Mode=reflect
        )
    elif fill == 0.0:
        builder.put("PAD", operands, step.writes, source.order, "PadOptions")
    else:
        quantization = builder.stored_quantization(source.index)
        value = builder.numbers(np.array([fill]), f"{step.writes}/value", quantization)
        builder.put("PADV2", [*operands, value], step.writes, source.order, "PadV2Options")
