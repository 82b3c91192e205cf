"""Operator → PyTorch function: convolutions, pooling, padding and resizing, in 1 to 3 dimensions.

ONNX pads each side by itself; PyTorch pads both sides alike, so uneven pads are laid around the
input first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import torch
from torch.nn import functional

from actcc.repair.distill.reading import Function, Reading, UntranslatableError

_CONVOLUTIONS = (functional.conv1d, functional.conv2d, functional.conv3d)
_TRANSPOSED = (
    functional.conv_transpose1d,
    functional.conv_transpose2d,
    functional.conv_transpose3d,
)
_MAX_POOLS = (functional.max_pool1d, functional.max_pool2d, functional.max_pool3d)
_AVERAGE_POOLS: tuple[Callable[..., Any], ...] = (
    functional.avg_pool1d,
    functional.avg_pool2d,
    functional.avg_pool3d,
)


def _dimensions(reading: Reading) -> int:
    count = reading.rank() - 2
    reading.refuse_unless(1 <= count <= 3, f"over {count} spatial axes")
    return count


def _sizes(reading: Reading, name: str, default: int, count: int) -> list[int]:
    return [int(value) for value in reading.attribute(name, [default] * count)]


def _pads(reading: Reading, kernel: Sequence[int], count: int) -> tuple[list[int], list[int]]:
    """Pads before and after each spatial axis."""
    automatic = reading.text("auto_pad", "NOTSET")
    if automatic == "VALID":
        return [0] * count, [0] * count
    if automatic in ("SAME_UPPER", "SAME_LOWER"):
        return _same_pads(reading, kernel, count, upper=automatic == "SAME_UPPER")
    pads = _sizes(reading, "pads", 0, 2 * count)
    reading.refuse_unless(min(pads, default=0) >= 0, "with negative pads")
    return pads[:count], pads[count:]


def _same_pads(
    reading: Reading, kernel: Sequence[int], count: int, *, upper: bool
) -> tuple[list[int], list[int]]:
    shape = reading.graph.shape(reading.node.inputs[0])
    strides = _sizes(reading, "strides", 1, count)
    dilations = _sizes(reading, "dilations", 1, count)
    before, after = [], []
    for axis in range(count):
        size = None if shape is None else shape[2 + axis]
        if not isinstance(size, int):
            raise UntranslatableError(f"{reading.node.op} pads an input of unknown size")
        reach = (-(-size // strides[axis]) - 1) * strides[axis]
        total = max(reach + (kernel[axis] - 1) * dilations[axis] + 1 - size, 0)
        small, large = total // 2, total - total // 2
        before.append(small if upper else large)
        after.append(large if upper else small)
    return before, after


def _padded(x: torch.Tensor, before: Sequence[int], after: Sequence[int], value: float) -> Any:
    flat = [size for pair in zip(reversed(before), reversed(after), strict=True) for size in pair]
    return functional.pad(x, flat, value=value)


def _kernel(reading: Reading, count: int) -> list[int]:
    given = reading.attribute("kernel_shape")
    shape = given or (reading.graph.shape(reading.node.inputs[1]) or ())[2:]
    sizes = [int(size) for size in shape if isinstance(size, int)]
    if len(sizes) != count or len(shape) != count:
        raise UntranslatableError(f"{reading.node.op} with a kernel of unknown size")
    return sizes


def _conv(reading: Reading) -> Function:
    count = _dimensions(reading)
    before, after = _pads(reading, _kernel(reading, count), count)
    strides = _sizes(reading, "strides", 1, count)
    dilations = _sizes(reading, "dilations", 1, count)
    groups, function = int(reading.attribute("group", 1)), _CONVOLUTIONS[count - 1]
    even = before == after
    padding = before if even else [0] * count

    def conv(values: Sequence[Any]) -> Any:
        x = values[0] if even else _padded(values[0], before, after, 0.0)
        bias = values[2] if len(values) > 2 else None
        return function(x, values[1], bias, strides, padding, dilations, groups)

    return conv


def _conv_transpose(reading: Reading) -> Function:
    count = _dimensions(reading)
    reading.refuse_unless(reading.attribute("output_shape") is None, "with output_shape")
    automatic = reading.text("auto_pad", "NOTSET")
    reading.refuse_unless(automatic in ("NOTSET", "VALID"), f"with auto_pad {automatic}")
    before, after = _pads(reading, _kernel(reading, count), count)
    extra = _sizes(reading, "output_padding", 0, count)
    strides = _sizes(reading, "strides", 1, count)
    dilations = _sizes(reading, "dilations", 1, count)
    groups, function = int(reading.attribute("group", 1)), _TRANSPOSED[count - 1]

    def conv_transpose(values: Sequence[Any]) -> Any:
        bias = values[2] if len(values) > 2 else None
        full = function(values[0], values[1], bias, strides, [0] * count, extra, groups, dilations)
        places = [slice(None)] * 2
        for size, low, high in zip(full.shape[2:], before, after, strict=True):
            places.append(slice(low, size - high))
        return full[tuple(places)]

    return conv_transpose


def _max_pool(reading: Reading) -> Function:
    count = _dimensions(reading)
    reading.refuse_unless(len(reading.node.outputs) == 1, "with indices")
    kernel = _kernel(reading, count)
    before, after = _pads(reading, kernel, count)
    strides = _sizes(reading, "strides", 1, count)
    dilations = _sizes(reading, "dilations", 1, count)
    ceil, function = bool(reading.attribute("ceil_mode", 0)), _MAX_POOLS[count - 1]

    def max_pool(values: Sequence[Any]) -> Any:
        x = values[0]
        if any(before) or any(after):
            x = _padded(x, before, after, float("-inf"))
        return function(x, kernel, strides, 0, dilations, ceil)

    return max_pool


def _average_pool(reading: Reading) -> Function:
    count = _dimensions(reading)
    kernel = _kernel(reading, count)
    before, after = _pads(reading, kernel, count)
    strides = _sizes(reading, "strides", 1, count)
    padded = bool(reading.attribute("count_include_pad", 0))
    dilations = _sizes(reading, "dilations", 1, count)
    reading.refuse_unless(max(dilations) == 1, "with dilations")
    reading.refuse_unless(not reading.attribute("ceil_mode", 0), "with ceil_mode")
    even = before == after
    reading.refuse_unless(even or padded, "over uneven pads that do not count")
    function = _AVERAGE_POOLS[count - 1]
    padding = before if even else [0] * count

    def average_pool(values: Sequence[Any]) -> Any:
        x = values[0] if even else _padded(values[0], before, after, 0.0)
        return function(x, kernel, strides, padding, False, padded)

    return average_pool


def _global_pool(function: Callable[..., Any]) -> Callable[[Reading], Function]:
    def factory(reading: Reading) -> Function:
        axes = tuple(range(2, reading.rank()))
        return lambda values: function(values[0], dim=axes, keepdim=True)

    return factory


def _pad(reading: Reading) -> Function:
    mode = reading.text("mode", "constant")
    reading.refuse_unless(mode == "constant", f"in mode '{mode}'")
    reading.refuse_unless(not reading.has(3), "with axes")
    pads = reading.numbers("pads", 1) or []
    filling = reading.constant(2) if reading.opset >= 11 else None
    value = float(reading.attribute("value", 0.0)) if filling is None else float(filling.item())
    half = len(pads) // 2
    return lambda values: _padded(values[0], pads[:half], pads[half:], value)


def _resize(reading: Reading) -> Function:
    """Nearest neighbour and (bi-, tri-) linear, where PyTorch samples at the same places."""
    count = _dimensions(reading)
    mode = reading.text("mode", "nearest")
    places = reading.text("coordinate_transformation_mode", "half_pixel")
    sizes = _resized(reading, count)
    if mode == "nearest":
        whole = all(new % old == 0 for old, new in sizes)
        reading.refuse_unless(whole, "nearest by a factor that is not whole")
        factors = [new // old for old, new in sizes]

        def nearest(values: Sequence[Any]) -> Any:
            return functional.interpolate(
                values[0], scale_factor=[float(f) for f in factors], mode="nearest"
            )

        rounding = reading.text("nearest_mode", "round_prefer_floor")
        copied = (places, rounding) in _COPIES or places == "half_pixel"
        reading.refuse_unless(copied or reading.node.op == "Upsample", f"at {places}, {rounding}")
        return nearest
    reading.refuse_unless(mode == "linear", f"in mode '{mode}'")
    corners = places == "align_corners"
    reading.refuse_unless(corners or places in ("half_pixel", "pytorch_half_pixel"), f"at {places}")
    spelled = ("linear", "bilinear", "trilinear")[count - 1]
    size = [new for _, new in sizes]
    return lambda values: functional.interpolate(
        values[0], size=size, mode=spelled, align_corners=corners
    )


# Settings under which growing by a whole factor copies each value that many times.
_COPIES = frozenset({("asymmetric", "floor"), ("pytorch_half_pixel", "round_prefer_floor")})


def _resized(reading: Reading, count: int) -> list[tuple[int, int]]:
    """Size of each spatial axis before and after."""
    old = reading.graph.shape(reading.node.inputs[0]) or ()
    new = reading.graph.shape(reading.node.outputs[0]) or ()
    sizes = [size for size in (*old[1:], *new[1:]) if isinstance(size, int)]
    if len(old) != count + 2 or len(new) != len(old) or len(sizes) != 2 * (count + 1):
        raise UntranslatableError(f"{reading.node.op} between unknown sizes")
    reading.refuse_unless(old[1] == new[1], "over channels")
    return list(zip(sizes[1 : count + 1], sizes[count + 2 :], strict=True))


SPATIAL: Mapping[str, Callable[[Reading], Function]] = MappingProxyType(
    {
        "AveragePool": _average_pool,
        "Conv": _conv,
        "ConvTranspose": _conv_transpose,
        "GlobalAveragePool": _global_pool(torch.mean),
        "GlobalMaxPool": _global_pool(torch.amax),
        "MaxPool": _max_pool,
        "Pad": _pad,
        "Resize": _resize,
    }
)
