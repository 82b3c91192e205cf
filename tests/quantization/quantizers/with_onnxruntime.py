"""onnxruntime's quantize_static."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from actcc.graph import Array
from quantizers.job import Job, Quantizer

PERCENTILE = 99.99


def quantizers(*, reduce_range: bool) -> list[Quantizer]:
    """With its defaults, and as its documentation advises for x86-64.

    Args:
        reduce_range: as is advised where the processor has no VNNI.
    """
    found = [Quantizer("quantize_static, defaults (per tensor, MinMax)", ".onnx", quantize_static)]
    weights = "reduced range" if reduce_range else "whole range"
    advised = f"quantize_static, pre-processed, per channel, {weights}"
    for method in ("MinMax", "Percentile", "Entropy"):
        said = f"{method} {PERCENTILE}" if method == "Percentile" else method
        write = partial(advised_static, method=method, reduce_range=reduce_range)
        found.append(Quantizer(f"{advised}, {said}", ".onnx", write))
    return found


def quantize_static(job: Job, result: Path) -> None:
    """Quantize to QDQ form, with the defaults."""
    from onnxruntime import quantization

    quantization.quantize_static(job.source, result, _reader(job))


def advised_static(job: Job, result: Path, *, method: str, reduce_range: bool) -> None:
    """The same with uint8 activations and weights per channel, after quant_pre_process.

    Args:
        method: of calibration, a member of CalibrationMethod.
        reduce_range: weights of 7 bits.
    """
    from onnxruntime import quantization

    quantization.quantize_static(
        job.pre_processed(),
        result,
        _reader(job),
        per_channel=True,
        reduce_range=reduce_range,
        activation_type=quantization.QuantType.QUInt8,
        calibrate_method=quantization.CalibrationMethod[method],
        extra_options={"CalibPercentile": PERCENTILE} if method == "Percentile" else None,
    )


def _reader(job: Job) -> Any:
    """The calibration images as onnxruntime reads them."""
    from onnxruntime import quantization

    class Samples(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.feeds = (sample.inputs for sample in job.calibration)

        def get_next(self) -> Mapping[str, Array] | None:
            return next(self.feeds, None)

    return Samples()
