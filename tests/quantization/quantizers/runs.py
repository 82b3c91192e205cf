"""Model files on a target's runtime: what they give, and how long they take."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from actcc.accuracy.metric import Metric
from actcc.backends.onnx_runtime import OnnxRuntimeBackend
from actcc.backends.onnx_session import open_session
from actcc.backends.openvino import OpenVinoBackend
from actcc.backends.openvino_model import compile_model
from actcc.calibration import Sample
from actcc.errors import TargetError
from actcc.graph import Array
from actcc.prices import Timing
from actcc.runtime import SessionSource, run
from actcc.targets import Target

Outputs: TypeAlias = Callable[[Mapping[str, Array]], Mapping[str, Array]]
"""All outputs of one run, by name."""
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


class OpenVinoRun:
    """Outputs of an `openvino.CompiledModel`."""

    def __init__(self, compiled: Any) -> None:
        self._request = compiled.create_infer_request()

    def __call__(self, feeds: Mapping[str, Array]) -> Mapping[str, Array]:
        """Copies, which the next run leaves alone."""
        found = self._request.infer(dict(feeds))
        return {entry.get_any_name(): np.array(value) for entry, value in found.items()}


def opened(source: SessionSource, runtime: Runtime, feeds: Mapping[str, Array]) -> Outputs:
    """A model loaded as it is timed.

    Args:
        source: the path of an ONNX file or, for OpenVINO, of its IR; or the bytes of the former.
        feeds: whose shapes the model gets where its own are open.

    Raises:
        ModelError: the runtime cannot load it.
    """
    if isinstance(runtime, OnnxRuntimeBackend):
        return partial(run, open_session(source, runtime.settings))
    shapes = {name: array.shape for name, array in feeds.items()}
    return OpenVinoRun(compile_model(source, shapes, runtime.settings))


def observations(outputs_of: Outputs, samples: Iterable[Sample], metric: Metric) -> list[Any]:
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
