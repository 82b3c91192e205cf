"""Resize in TFLite, where one of its three ways of sampling is that of the ONNX node.

ONNX Resize (operator specification, opset 19) and TFLite's RESIZE_NEAREST_NEIGHBOR and
RESIZE_BILINEAR name their sampling differently; which source positions each of them reads is
computed and compared.
"""

from __future__ import annotations

import numpy as np

from actcc.backends.ethos_u.builder import CHANNELS_LAST, Builder, Step
from actcc.errors import PricingError
from actcc.graph import Array, Node

# (align corners, half-pixel centres) as TFLite has them.
_WAYS = ((False, False), (False, True), (True, False))


def resize(builder: Builder, step: Step) -> None:
    """RESIZE_NEAREST_NEIGHBOR or RESIZE_BILINEAR.

    Raises:
        PricingError: cubic, antialiased, or no way of TFLite's reads the same source positions.
    """
    node = step.node
    mode = str(node.attrs.get("mode", "nearest"))
    before, after = builder.shape(node.inputs[0]), builder.shape(step.writes)
    if mode not in ("nearest", "linear") or node.attrs.get("antialias", 0) or len(before) != 4:
        raise PricingError(
            f"node '{node.name}' ({node.op}) has the mode '{mode}' on {len(before) - 2} axes; "
            "TFLite resizes images by nearest neighbour or bilinearly"
        )
    if before[:2] != after[:2]:
        raise PricingError(f"node '{node.name}' ({node.op}) resizes the channels")
    align, half = _way(node, mode, before[2:], after[2:])
    source = builder.arranged(builder.value(node.inputs[0]), CHANNELS_LAST)
    size = builder.integers(after[2:], f"{step.writes}/size")
    code, table = "RESIZE_BILINEAR", "ResizeBilinearOptions"
    if mode == "nearest":
        code, table = "RESIZE_NEAREST_NEIGHBOR", "ResizeNearestNeighborOptions"
    builder.put(
        code,
        [source.index, size],
        step.writes,
        CHANNELS_LAST,
        table,
        AlignCorners=align,
        HalfPixelCenters=half,
    )


def _way(
    node: Node, mode: str, before: tuple[int, ...], after: tuple[int, ...]
) -> tuple[bool, bool]:
    wanted = [_onnx_positions(node, mode, b, a) for b, a in zip(before, after, strict=True)]
    for align, half in _WAYS:
        offered = [
            _tflite_positions(mode, b, a, align, half) for b, a in zip(before, after, strict=True)
        ]
        if all(np.allclose(w, o, atol=1e-4) for w, o in zip(wanted, offered, strict=True)):
            return align, half
    raise PricingError(
        f"node '{node.name}' ({node.op}) samples in a way that TFLite does not know "
        f"({node.attrs.get('coordinate_transformation_mode', 'half_pixel')})"
    )


def _onnx_positions(node: Node, mode: str, before: int, after: int) -> Array:
    """The source position of each target position, within the source."""
    way = str(node.attrs.get("coordinate_transformation_mode", "half_pixel"))
    if node.op == "Upsample":
        way = "asymmetric"
    target, scale = np.arange(after, dtype=np.float64), after / before
    if way == "align_corners":
        found = target * (before - 1) / max(after - 1, 1)
    elif way == "asymmetric":
        found = target / scale
    elif way in ("half_pixel", "pytorch_half_pixel", "half_pixel_symmetric"):
        found = (target + 0.5) / scale - 0.5
        if way == "pytorch_half_pixel" and after == 1:
            found = np.zeros(1)
    else:
        found = np.full(after, np.nan)
    if mode == "nearest":
        rounding = "floor" if node.op == "Upsample" else "round_prefer_floor"
        found = _rounded(found, str(node.attrs.get("nearest_mode", rounding)))
    return np.asarray(found.clip(0, before - 1))


def _rounded(positions: Array, way: str) -> Array:
    rounded = {
        "floor": np.floor(positions),
        "ceil": np.ceil(positions),
        "round_prefer_floor": np.ceil(positions - 0.5),
        "round_prefer_ceil": np.floor(positions + 0.5),
    }
    return np.asarray(rounded[way])


def _tflite_positions(mode: str, before: int, after: int, align: bool, half: bool) -> Array:
    target = np.arange(after, dtype=np.float64)
    scale = (before - 1) / (after - 1) if align and after > 1 else before / after
    found = (target + 0.5) * scale if half else target * scale
    if mode == "nearest":
        found = np.floor(found + 0.5) if align else np.floor(found)
    elif half:
        found = found - 0.5
    return np.asarray(found.clip(0, before - 1))
