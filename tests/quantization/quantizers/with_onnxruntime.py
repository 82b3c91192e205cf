"""onnxruntime's quantize_static."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path

from actcc.graph import Array
from quantizers.job import Job, Quantizer

PERCENTILE = 99.99


def quantizers() -> list[Quantizer]:
    """With its defaults, and as its documentation advises for x86-64 without VNNI."""
    found = [Quantizer("quantize_static, defaults (per tensor, MinMax)", ".onnx", quantize_static)]
    advised = "quantize_static, pre-processed, per channel, reduced range"
    for method in ("MinMax", "Percentile", "Entropy"):
        said = f"{method} {PERCENTILE}" if method == "Percentile" else method
        write = partial(quantize_static, method=method, advised=True)
        found.append(Quantizer(f"{advised}, {said}", ".onnx", write))
    return found


def quantize_static(
    job: Job, result: Path, *, method: str = "MinMax", advised: bool = False
) -> None:
    """Quantize to QDQ form.

    Args:
        method: of calibration, a member of CalibrationMethod.
        advised: uint8 activations and weights of 7 bits per channel, after quant_pre_process, as
            the documentation says for x86-64 without VNNI; the defaults otherwise.
    """
    from onnxruntime import quantization

    class Samples(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.feeds = (sample.inputs for sample in job.calibration)

        def get_next(self) -> Mapping[str, Array] | None:
            return next(self.feeds, None)

    if not advised:
        quantization.quantize_static(job.source, result, Samples())
        return
    quantization.quantize_static(
        job.pre_processed(),
        result,
        Samples(),
        per_channel=True,
        reduce_range=True,
        activation_type=quantization.QuantType.QUInt8,
        calibrate_method=quantization.CalibrationMethod[method],
        extra_options={"CalibPercentile": PERCENTILE} if method == "Percentile" else None,
    )
