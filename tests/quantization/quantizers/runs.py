"""Model files on a target's runtime: what they give, and how long they take."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

from actcc.accuracy.metric import Metric
from actcc.backends.onnx_runtime import OnnxRuntimeBackend
from actcc.backends.onnx_session import open_session
from actcc.backends.openvino import OpenVinoBackend
from actcc.calibration import Sample
from actcc.errors import TargetError
from actcc.graph import Array
from actcc.prices import Timing
from actcc.runtime import ModelRun, SessionSource, run
from actcc.targets import Target

Runtime: TypeAlias = OnnxRuntimeBackend | OpenVinoBackend


def runtime_of(target: Target) -> Runtime:
    """The backend of a target that runs models on this machine.

    Raises:
        TargetError: it does not run any.
    """
    if not isinstance(target.backend, OnnxRuntimeBackend | OpenVinoBackend):
        raise TargetError(
            f"target '{target.name}' runs no models on this machine; choose cpu or openvino-cpu"
        )
    return target.backend


def opened(source: SessionSource, runtime: Runtime) -> ModelRun:
    """A model loaded as it is timed.

    Args:
        source: the path of an ONNX file or, for OpenVINO, of its IR; or the bytes of the former.

    Raises:
        ModelError: the runtime cannot load it.
    """
    if isinstance(runtime, OpenVinoBackend):
        return runtime.open(source)
    return partial(run, open_session(source, runtime.settings))


def observations(outputs_of: ModelRun, samples: Iterable[Sample], metric: Metric) -> list[Any]:
    """What the metric observes of every sample."""
    return [metric.observe(outputs_of(sample.inputs), sample) for sample in samples]


def timed(paths: Sequence[Path], runtime: Runtime, feeds: Mapping[str, Array]) -> list[Timing]:
    """Of model files, in one interleaved run; the ratios are to the first.

    Each gets the time that it has in a comparison of two.
    """
    values = runtime.values(feeds)
    jobs = [runtime.loaded(str(path), values) for path in paths]
    found = runtime.measure(jobs, runtime.settings.model_seconds * len(jobs) / 2)
    return [runtime.timing(measurement) for measurement in found]
