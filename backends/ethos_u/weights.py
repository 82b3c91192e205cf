"""Weights and biases in int8: symmetric, with one scale for each output channel.

Specification: TensorFlow Lite 8-bit quantization specification (per-axis int8 weights in
[-127, 127] with zero point 0; int32 bias at scale of input × scale of weights).
"""

from __future__ import annotations

import numpy as np

from actcc.backends.ethos_u.builder import Builder
from actcc.backends.ethos_u.network import Quantization
from actcc.graph import Array

_LARGEST = 127
_INT32 = np.iinfo(np.int32)
_NOTHING = 1e-30  # below, a scale or that of a bias is none that float32 holds


def put_weights(
    builder: Builder, weights: Array, axis: int, bias: Array | None, source: Quantization, stem: str
) -> tuple[int, int]:
    """Indices of the constants of weights and bias.

    Args:
        weights: as TFLite stores them.
        axis: of their output channels.
        bias: one value a channel; None for zeros.
        source: quantization of the feature map that they are multiplied with.
    """
    others = tuple(other for other in range(weights.ndim) if other != axis)
    peaks = np.abs(weights).max(axis=others).astype(np.float64)
    # A channel of zeros gets the scale of the others: its bias has to fit as well.
    filler = float(peaks.max()) if peaks.max() > _NOTHING else 1.0
    scales = np.float32(np.where(peaks > _NOTHING, peaks, filler) / _LARGEST)
    bias_values = np.zeros(len(scales)) if bias is None else np.asarray(bias, np.float64)
    # A bias beyond int32 needs a coarser scale; it is that of a channel of next to no weight.
    least = np.abs(bias_values) / (source.scale * _INT32.max * 0.5)
    scales = np.maximum(scales, least.astype(np.float32))
    along = [1] * weights.ndim
    along[axis] = -1
    stored = np.round(weights / scales.reshape(along)).clip(-_LARGEST, _LARGEST).astype(np.int8)
    zeros = (0,) * len(scales)
    quantization = Quantization(tuple(float(scale) for scale in scales), zeros, axis)
    weight_index = builder.stored(stored, quantization, f"{stem}/weights")
    bias_scales = source.scale * np.asarray(scales, np.float64)
    rounded = np.round(bias_values / bias_scales).clip(_INT32.min, _INT32.max).astype(np.int32)
    bias_quantization = Quantization(tuple(float(scale) for scale in bias_scales), zeros, 0)
    return weight_index, builder.stored(rounded, bias_quantization, f"{stem}/bias")
