"""What a metric observes of a model on samples, in the runtime of a target."""

from __future__ import annotations

import math
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from actcc.accuracy.metric import Metric
from actcc.calibration import SampleSet
from actcc.latency_models import Profile
from actcc.progress import Advance
from actcc.runtime import ModelRun, open_model
from actcc.targets import Target
from actcc.tasks import map_tasks

_SMALLEST_TASK = 8
_TASKS = 8


class Network(Protocol):
    """A network that can be run on this machine; picklable."""

    def open(self) -> ModelRun:
        """Load it.

        Raises:
            ModelError: the runtime cannot load it.
        """


@dataclass(frozen=True)
class OnnxFile:
    """An ONNX file; picklable.

    Attributes:
        profile: of the target whose runtime runs it; ONNX Runtime without one.
    """

    path: Path
    profile: Profile | None = None

    def open(self) -> ModelRun:
        """See `Network`."""
        return (
            open_model(self.path) if self.profile is None else Target(self.profile).open(self.path)
        )


@dataclass(frozen=True)
class ObserveTask:
    """Some samples through one network, and what a metric keeps of them; picklable."""

    network: Network
    samples: SampleSet
    metric: Metric


def observe_part(task: ObserveTask) -> list[Any]:
    """Observations of the task's samples, in order."""
    outputs_of = task.network.open()
    return [task.metric.observe(outputs_of(sample.inputs), sample) for sample in task.samples]


def observe(
    network: Network,
    samples: SampleSet,
    metric: Metric,
    executor: Executor,
    advance: Advance,
) -> list[Any]:
    """What a metric observes of a network on every sample.

    Raises:
        ModelError: the network cannot be run.
        DataError: the metric cannot make sense of the outputs or the samples.
    """
    size = max(_SMALLEST_TASK, math.ceil(len(samples) / _TASKS))  # each task loads the network
    tasks = [
        ObserveTask(network, samples[start : start + size], metric)
        for start in range(0, len(samples), size)
    ]
    parts = map_tasks(executor, observe_part, tasks, advance)
    return [observation for part in parts for observation in part]
