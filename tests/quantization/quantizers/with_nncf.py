"""NNCF's quantize and quantize_with_accuracy_control, on ONNX and on OpenVINO models.

Both functions take either kind and give the same; of torch models accuracy control takes none.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from actcc.backends.openvino_model import import_openvino, run_request
from actcc.calibration import SampleSet
from quantizers.job import Job, Quantizer
from quantizers.runs import observations, opened


@dataclass(frozen=True)
class Settings:
    """Settings beside NNCF's defaults.

    Attributes:
        name: for the table.
        mixed: asymmetric activations.
        for_onnx_runtime: after quant_pre_process; one scale a tensor of activations, since ONNX
            Runtime has no int8 kernel for a scale per channel, which NNCF gives what depthwise
            layers read; weights of half the range, so that sums do not saturate without VNNI.
    """

    name: str
    mixed: bool = False
    for_onnx_runtime: bool = False


DEFAULTS = Settings("defaults")
MIXED = Settings("MIXED", mixed=True)
FOR_ONNX_RUNTIME = Settings(
    "pre-processed, MIXED, activations per tensor, overflow fix", mixed=True, for_onnx_runtime=True
)
_KINDS = {".onnx": ("ONNX", FOR_ONNX_RUNTIME), ".xml": ("OpenVINO", MIXED)}


def installed() -> bool:
    """Whether there is NNCF."""
    return importlib.util.find_spec("nncf") is not None


def version() -> str:
    """Of NNCF, or that it is missing, for the line above the table."""
    if not installed():
        return "nncf is not installed, so that its rows are missing (pip install nncf)"
    return f"nncf {nncf_module().__version__}"


def nncf_module(name: str = "nncf") -> Any:
    """A module of NNCF, which reports every call to its vendor unless NNCF_CI is set."""
    os.environ.setdefault("NNCF_CI", "1")
    return importlib.import_module(name)


def quantizers(suffix: str) -> list[Quantizer]:
    """With its defaults, and with its best settings.

    Args:
        suffix: ".onnx" or ".xml", which says what kind of model is quantized.
    """
    kind, best = _KINDS[suffix]
    name, full = f"nncf.quantize on {kind}", "full bias correction"
    slow = partial(quantize, settings=best, fast_bias_correction=False)
    return [
        Quantizer(f"{name}, {DEFAULTS.name}", suffix, quantize),
        Quantizer(f"{name}, {best.name}", suffix, partial(quantize, settings=best)),
        Quantizer(f"{name}, {best.name}, {full}", suffix, slow),
    ]


def with_accuracy_control(suffix: str, said: str) -> Quantizer:
    """With its best settings, held to a budget.

    Args:
        said: the budget, for the table.
    """
    kind, best = _KINDS[suffix]
    name = f"nncf.quantize_with_accuracy_control on {kind}, {best.name}, {said}"
    return Quantizer(name, suffix, partial(quantize_with_accuracy_control, settings=best))


def quantize(
    job: Job, result: Path, *, settings: Settings = DEFAULTS, fast_bias_correction: bool = True
) -> None:
    """Quantize a model of the kind that the suffix of `result` names."""
    quantized = nncf_module().quantize(
        _source(job, result, settings),
        _dataset(job.calibration),
        subset_size=len(job.calibration),
        fast_bias_correction=fast_bias_correction,
        preset=_preset(settings),
        advanced_parameters=_advanced(settings),
    )
    _save(quantized, result)


def quantize_with_accuracy_control(job: Job, result: Path, *, settings: Settings) -> None:
    """Quantize, and take layers back to floating point until the drop is kept.

    Raises:
        ValueError: there are no labelled images.
    """
    if job.control is None:
        raise ValueError("accuracy control needs labels; give --calib-labels")
    nncf, limit = nncf_module(), job.max_drop
    quantized = nncf.quantize_with_accuracy_control(
        _source(job, result, settings),
        _dataset(job.calibration),
        nncf.Dataset(range(len(job.control))),
        Validation(job, job.control),
        max_drop=limit.value,
        drop_type=nncf.DropType.RELATIVE if limit.relative else nncf.DropType.ABSOLUTE,
        subset_size=len(job.calibration),
        preset=_preset(settings),
        advanced_quantization_parameters=_advanced(settings),
    )
    _save(quantized, result)


class Validation:
    """NNCF's `validation_fn` from a metric of actcc."""

    def __init__(self, job: Job, samples: SampleSet) -> None:
        """Run the original on all samples: some metrics compare with it, and it checks the labels.

        Raises:
            DataError: the metric cannot make sense of the outputs or the labels.
        """
        self._job, self._samples = job, samples
        outputs_of = opened(str(job.model), job.runtime)
        self._reference = observations(outputs_of, samples, job.metric)
        self._judge = job.metric.judge(self._reference, samples)

    def __call__(self, model: Any, items: Iterable[int]) -> tuple[float, list[float]]:
        """The metric on the chosen samples, and on each alone, by which layers are ranked.

        Args:
            model: `onnx.ModelProto` or `openvino.CompiledModel`.
            items: numbers of samples.
        """
        chosen = list(items)
        samples = [self._samples[item] for item in chosen]
        if _is_onnx(model):
            outputs_of = opened(model.SerializeToString(), self._job.runtime)
        else:
            names = [output.get_any_name() for output in model.outputs]
            outputs_of = partial(run_request, model.create_infer_request(), names)
        found = observations(outputs_of, samples, self._job.metric)
        # Judged among all samples, since a few of them may make no sense on their own.
        seen = list(self._reference)
        for item, observation in zip(chosen, found, strict=True):
            seen[item] = observation
        scores = self._judge(seen)
        # Where the metric is not defined on one image, the image does not rank layers.
        of_each = np.nan_to_num([scores.value(np.array([item])) for item in chosen])
        return scores.value(np.array(chosen)), of_each.tolist()


def _is_onnx(model: Any) -> bool:
    return isinstance(model, onnx.ModelProto)


def _source(job: Job, result: Path, settings: Settings) -> Any:
    """The model as an object of the kind that the suffix of `result` names."""
    if result.suffix == ".xml":
        # Not read_model, which leaves nodes between weights and layers: depthwise ones stay float.
        return import_openvino().convert_model(job.model)
    return onnx.load(job.pre_processed() if settings.for_onnx_runtime else job.source)


def _save(model: Any, path: Path) -> None:
    if _is_onnx(model):
        onnx.save(model, path)
    else:  # in the precision that it was verified in
        import_openvino().save_model(model, path, compress_to_fp16=False)


def _dataset(samples: SampleSet) -> Any:
    return nncf_module().Dataset(samples, lambda sample: sample.inputs)


def _preset(settings: Settings) -> Any:
    """None is NNCF's own choice."""
    return nncf_module().QuantizationPreset.MIXED if settings.mixed else None


def _advanced(settings: Settings) -> Any:
    """None is NNCF's own choice."""
    if not settings.for_onnx_runtime:
        return None
    advanced = nncf_module("nncf.quantization.advanced_parameters")
    return advanced.AdvancedQuantizationParameters(
        overflow_fix=advanced.OverflowFix.ENABLE,
        activations_quantization_params=advanced.QuantizationParameters(per_channel=False),
    )
