"""Drawn plans, rewritten and measured with the metric that counts."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from actcc.accuracy.metric import Metric
from actcc.calibration import SampleSet
from actcc.errors import ActccError
from actcc.estimators.estimator import NetworkLoss, Subject
from actcc.estimators.random_plans import DrawnPlan
from actcc.graph import Graph
from actcc.observation import ObserveTask, OnnxFile, observe_part
from actcc.pass_api import apply_candidates
from actcc.progress import Advance
from actcc.tasks import map_tasks

FEWEST_PLANS = 8
_WAVE = 8  # plans whose files lie on the disk at a time


@dataclass(frozen=True)
class MeasuredPlan:
    """A plan with its metric, and what estimators that judge networks made of it.

    Attributes:
        losses: by estimator; those that failed on it are missing.
        seconds: that each of them took.
    """

    plan: DrawnPlan
    metric: float
    losses: Mapping[str, float]
    seconds: Mapping[str, float]


@dataclass(frozen=True)
class Measured:
    """All plans that could be measured.

    Attributes:
        original: the original's metric.
        seconds: to measure one plan.
    """

    plans: tuple[MeasuredPlan, ...]
    original: float
    seconds: float

    @property
    def metrics(self) -> list[float]:
        """In the order of the plans."""
        return [entry.metric for entry in self.plans]


@dataclass(frozen=True)
class PlanTask:
    """One plan's file to be measured and judged; picklable."""

    path: Path
    observe: ObserveTask
    input_shapes: Mapping[str, Sequence[int]]
    networks: Mapping[str, NetworkLoss]


@dataclass(frozen=True)
class PlanAnswer:
    """What came of a plan: what the metric observed, judgements and their seconds, or a failure."""

    observations: list[Any] = field(default_factory=list)
    losses: Mapping[str, float] = field(default_factory=dict)
    seconds: Mapping[str, float] = field(default_factory=dict)
    observing_s: float = 0.0
    failure: str = ""


def measure_plans(
    subject: Subject,
    drawn: Sequence[DrawnPlan],
    metric: Metric,
    evaluation: SampleSet,
    networks: Mapping[str, NetworkLoss],
) -> Measured:
    """Rewrite, run and judge plans; those that fail are left out and counted in a note.

    So are those that the subject's deadline comes before.

    Raises:
        ActccError: fewer than `FEWEST_PLANS` can be measured, or the original cannot.
    """
    plans: list[MeasuredPlan] = []
    failures: list[str] = []
    spent = 0.0
    with subject.progress.stage("Measuring plans", len(drawn) + 1) as advance:
        first = _wave(subject, [None], metric, evaluation, {}, advance).get(0)
        if first is None:
            raise _too_few(0, late=True)
        if first.failure:
            raise ActccError(first.failure)
        judge = metric.judge(first.observations, evaluation)
        every = np.arange(len(evaluation))
        original = judge(first.observations).value(every)
        for start in range(0, len(drawn), _WAVE):
            wave = drawn[start : start + _WAVE]
            found = _wave(subject, wave, metric, evaluation, networks, advance)
            for index, answer in found.items():
                if answer.failure:
                    failures.append(answer.failure)
                    continue
                value = judge(answer.observations).value(every)
                plans.append(MeasuredPlan(wave[index], value, answer.losses, answer.seconds))
                spent += answer.observing_s
    late = len(drawn) - len(plans) - len(failures)
    if failures:
        subject.progress.note(f"{len(failures)} plans could not be measured: {failures[0]}")
    if late:
        subject.progress.note(f"time limit: {late} of {len(drawn)} plans were not measured")
    if len(plans) < FEWEST_PLANS:
        raise _too_few(len(plans), late=late > 0)
    return Measured(tuple(plans), original, spent / len(plans))


def _too_few(count: int, *, late: bool) -> ActccError:
    more = "raise --time-limit" if late else "draw more with --samples"
    return ActccError(
        f"{count} different plans could be measured, and a ranking needs {FEWEST_PLANS}; "
        f"{more}, or choose an estimator by name"
    )


def run_plan(task: PlanTask) -> PlanAnswer:
    """Measure one plan, and have it judged by every estimator that judges networks."""
    losses: dict[str, float] = {}
    seconds: dict[str, float] = {}
    started = time.perf_counter()
    try:
        observations = observe_part(task.observe)
        observing_s = time.perf_counter() - started
        graph = Graph.load(task.path, task.input_shapes)
    except ActccError as error:
        return PlanAnswer(failure=str(error))
    for name, network in task.networks.items():
        started = time.perf_counter()
        with contextlib.suppress(ActccError):  # a judgement that is missing is no figure
            losses[name] = network(graph)
        seconds[name] = time.perf_counter() - started
    return PlanAnswer(observations, losses, seconds, observing_s)


def _wave(
    subject: Subject,
    plans: Sequence[DrawnPlan | None],
    metric: Metric,
    evaluation: SampleSet,
    networks: Mapping[str, NetworkLoss],
    advance: Advance,
) -> dict[int, PlanAnswer]:
    """Write some plans, None for the original, and run them; the files go when they are done.

    Returns:
        answers by index, in order, of the plans that were run before the deadline.
    """
    by_id = {site.id: site for site in subject.sites}
    answers: dict[int, PlanAnswer] = {}
    tasks: dict[int, PlanTask] = {}
    with tempfile.TemporaryDirectory(prefix="actcc-plans-") as folder:
        for index, plan in enumerate(plans):
            if time.monotonic() >= subject.deadline:
                break
            chosen = [] if plan is None else [(by_id[k], name) for k, name in plan.chosen.items()]
            path = Path(folder) / f"plan-{index}.onnx"
            try:
                rewritten = apply_candidates(subject.graph, subject.passes, chosen)
                rewritten.save(path, external=subject.graph.external)
            except ActccError as error:
                answers[index] = PlanAnswer(failure=str(error))
                continue
            observe = ObserveTask(OnnxFile(path), evaluation, metric)
            tasks[index] = PlanTask(path, observe, subject.graph.input_shapes, networks)
        written = list(tasks)
        map_tasks(
            subject.executor,
            run_plan,
            list(tasks.values()),
            advance,
            deadline=subject.deadline,
            finished=lambda place, answer: answers.update({written[place]: answer}),
        )
    return dict(sorted(answers.items()))
