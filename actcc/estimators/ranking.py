"""How well estimators order plans: Kendall's τ-b between what they predict and what is measured."""

from __future__ import annotations

import contextlib
import math
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from actcc.accuracy.estimate import Key, LossTable
from actcc.accuracy.metric import Metric
from actcc.calibration import SampleSet
from actcc.errors import ActccError
from actcc.estimators import ESTIMATORS
from actcc.estimators.bayesian_ridge import BayesianRidgeEstimator, Features, bayesian_ridge
from actcc.estimators.estimator import Estimator, NetworkLoss, Subject
from actcc.estimators.random_plans import DrawnPlan, draw_plans
from actcc.graph import Graph
from actcc.graph.view import Array
from actcc.pass_api import apply_candidates
from actcc.tasks import map_tasks
from actcc.verify import ObserveTask, observe_part

FEWEST_PLANS = 8
_WAVE = 8  # plans whose files lie on the disk at a time
_DRAWS = 400
_CONFIDENCE = 0.9


@dataclass(frozen=True)
class Tau:
    """Kendall's τ-b and where it lies with 90 % confidence (bootstrap over the plans)."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class EstimatorFigures:
    """How an estimator did.

    Attributes:
        tau: of the sum of the losses of single changes, as the solver uses it; None where all
            plans have one sum.
        network_tau: of the estimator's judgement of the whole rewritten network; None where it
            does not judge these, or finds them all alike.
        table_s: seconds to find all losses.
        plan_s: seconds to judge one whole network.
        skipped: why it was not tried; empty if it was.
    """

    name: str
    needs: str
    tau: Tau | None = None
    network_tau: Tau | None = None
    table_s: float = 0.0
    plan_s: float = 0.0
    skipped: str = ""


@dataclass(frozen=True)
class PlanFigures:
    """A drawn plan and what was measured of it."""

    changes: tuple[Key, ...]
    metric: float


@dataclass(frozen=True)
class Standings:
    """What a ranking found.

    Attributes:
        original: the metric of the original.
        estimators: best first.
        ridge: losses by the Bayesian ridge, which are learned from the plans; empty without.
    """

    original: float
    plans: tuple[PlanFigures, ...]
    estimators: tuple[EstimatorFigures, ...]
    ridge: LossTable

    @property
    def best(self) -> EstimatorFigures | None:
        """The estimator that orders the plans best for the solver; None if none does at all."""
        found = [figures for figures in self.estimators if _order(figures) > 0]
        return max(found, key=_order, default=None)


def rank_estimators(
    subject: Subject, count: int, metric: Metric, evaluation: SampleSet, names: Sequence[str]
) -> Standings:
    """Draw plans, measure them, and hold every estimator against them.

    Args:
        names: estimators, `bayesian-ridge` included.

    Raises:
        ActccError: scipy is missing, too few plans can be drawn or measured, or the metric cannot
            be taken.
    """
    kendall_tau([0.0, 1.0], [0.0, 1.0])
    drawn = draw_plans(subject.sites, count, subject.seed)
    tried = {name: _try(subject, ESTIMATORS[name]) for name in names if name in ESTIMATORS}
    networks = {name: t.network for name, t in tried.items() if t.network is not None}
    measured = measure_plans(subject, drawn, metric, evaluation, networks)
    metrics = [entry.metric for entry in measured.plans]
    figures = [_figures(name, found, measured) for name, found in tried.items()]
    ridge: LossTable = {}
    if "bayesian-ridge" in names:
        row, ridge = _ridge(subject, tried, measured)
        figures.append(row)
    del metrics
    ordered = sorted(figures, key=_order, reverse=True)
    return Standings(
        measured.original,
        tuple(PlanFigures(tuple(p.plan.keys), p.metric) for p in measured.plans),
        tuple(ordered),
        ridge,
    )


def _order(figures: EstimatorFigures) -> float:
    return figures.tau.value if figures.tau is not None else -math.inf


@dataclass(frozen=True)
class _Tried:
    """An estimator's losses of single changes, and its judge of whole networks."""

    losses: LossTable
    network: NetworkLoss | None
    seconds: float
    skipped: str = ""


def _try(subject: Subject, estimator: Estimator) -> _Tried:
    started = time.perf_counter()
    try:
        network = estimator.network_loss(subject)
        losses = estimator.losses(subject).losses
    except ActccError as error:
        return _Tried({}, None, 0.0, str(error))
    if not losses:
        return _Tried({}, None, 0.0, "it finds no loss for any candidate")
    return _Tried(losses, network, time.perf_counter() - started)


@dataclass(frozen=True)
class PlanTask:
    """One plan's file to be measured and judged; picklable."""

    observe: ObserveTask
    input_shapes: Mapping[str, Sequence[int]]
    networks: Mapping[str, NetworkLoss]


@dataclass(frozen=True)
class PlanAnswer:
    """What came of a plan: observations of the metric, judgements, their seconds, or a failure."""

    observations: list[Any]
    losses: Mapping[str, float]
    seconds: Mapping[str, float]
    failure: str = ""


def run_plan(task: PlanTask) -> PlanAnswer:
    """Measure one plan, and judge it by every estimator that judges networks."""
    losses: dict[str, float] = {}
    seconds: dict[str, float] = {}
    try:
        observations = observe_part(task.observe)
        graph = Graph.load(task.observe.path, task.input_shapes)
    except ActccError as error:
        return PlanAnswer([], {}, {}, str(error))
    for name, network in task.networks.items():
        started = time.perf_counter()
        with contextlib.suppress(ActccError):  # a judgement that is missing is no figure
            losses[name] = network(graph)
        seconds[name] = time.perf_counter() - started
    return PlanAnswer(observations, losses, seconds)


@dataclass(frozen=True)
class MeasuredPlan:
    """A plan with its metric and what estimators that judge networks made of it."""

    plan: DrawnPlan
    metric: float
    answer: PlanAnswer


@dataclass(frozen=True)
class Measured:
    """All plans that could be measured, the original's metric, and the seconds a plan took."""

    plans: tuple[MeasuredPlan, ...]
    original: float
    seconds: float


def measure_plans(
    subject: Subject,
    drawn: Sequence[DrawnPlan],
    metric: Metric,
    evaluation: SampleSet,
    networks: Mapping[str, NetworkLoss],
) -> Measured:
    """Rewrite, run and judge plans; those that fail are left out and counted in a note.

    Raises:
        ActccError: fewer than `FEWEST_PLANS` can be measured, or the original cannot.
    """
    started = time.perf_counter()
    with subject.progress.stage("Measuring plans", len(drawn) + 1) as advance:
        (first,) = _wave(subject, [None], metric, evaluation, {}, advance)
        if first.failure:
            raise ActccError(first.failure)
        judge = metric.judge(first.observations, evaluation)
        every = np.arange(len(evaluation))
        original = judge(first.observations).value(every)
        answers: list[PlanAnswer] = []
        for start in range(0, len(drawn), _WAVE):
            wave = drawn[start : start + _WAVE]
            answers += _wave(subject, wave, metric, evaluation, networks, advance)
        plans, failures = [], []
        for plan, answer in zip(drawn, answers, strict=True):
            if answer.failure:
                failures.append(answer.failure)
                continue
            value = judge(answer.observations).value(every)
            plans.append(MeasuredPlan(plan, value, answer))
    if failures:
        subject.progress.note(f"{len(failures)} plans could not be measured: {failures[0]}")
    if len(plans) < FEWEST_PLANS:
        raise ActccError(
            f"{len(plans)} different plans could be measured, and a ranking needs {FEWEST_PLANS}; "
            "give more --samples, or choose the estimator by name"
        )
    return Measured(tuple(plans), original, (time.perf_counter() - started) / len(drawn))


def _wave(
    subject: Subject,
    plans: Sequence[DrawnPlan | None],
    metric: Metric,
    evaluation: SampleSet,
    networks: Mapping[str, NetworkLoss],
    advance: Any,
) -> list[PlanAnswer]:
    """Write some plans, None for the original, and run them; the files go when they are done."""
    by_id = {site.id: site for site in subject.sites}
    answers: dict[int, PlanAnswer] = {}
    tasks: dict[int, PlanTask] = {}
    with tempfile.TemporaryDirectory(prefix="actcc-plans-") as folder:
        for index, plan in enumerate(plans):
            chosen = [] if plan is None else [(by_id[k], name) for k, name in plan.chosen.items()]
            path = Path(folder) / f"plan-{index}.onnx"
            try:
                rewritten = apply_candidates(subject.graph, subject.passes, chosen)
                rewritten.save(path, external=subject.graph.external)
            except ActccError as error:
                answers[index] = PlanAnswer([], {}, {}, str(error))
                continue
            observe = ObserveTask(path, evaluation, metric)
            tasks[index] = PlanTask(observe, subject.graph.input_shapes, networks)
        found = map_tasks(subject.executor, run_plan, list(tasks.values()), advance)
        answers.update(zip(tasks, found, strict=True))
    return [answers[index] for index in range(len(plans))]


def _figures(name: str, found: _Tried, measured: Measured) -> EstimatorFigures:
    needs = ESTIMATORS[name].needs
    if found.skipped:
        return EstimatorFigures(name, needs, skipped=found.skipped)
    metrics = [entry.metric for entry in measured.plans]
    largest = max(found.losses.values())
    sums = [
        sum(found.losses.get(key, largest) for key in entry.plan.keys) for entry in measured.plans
    ]
    judged = [entry for entry in measured.plans if name in entry.answer.losses]
    seconds = [entry.answer.seconds[name] for entry in judged]
    return EstimatorFigures(
        name,
        needs,
        tau_of(sums, metrics),
        tau_of([e.answer.losses[name] for e in judged], [e.metric for e in judged]),
        found.seconds,
        float(np.mean(seconds)) if seconds else 0.0,
    )


def _ridge(
    subject: Subject, tried: Mapping[str, _Tried], measured: Measured
) -> tuple[EstimatorFigures, LossTable]:
    """The Bayesian ridge over what a cheaper estimator says: fidelity, or noise without data."""
    needs = "measured plans"
    try:
        bayesian_ridge()
    except ActccError as error:
        return EstimatorFigures("bayesian-ridge", needs, skipped=str(error)), {}
    base = next((t for t in (tried.get("fidelity"), tried.get("noise")) if t and t.losses), None)
    single = {} if base is None else base.losses
    started = time.perf_counter()
    metrics = [entry.metric for entry in measured.plans]
    estimator = BayesianRidgeEstimator(
        Features.of(subject.sites, single), [entry.plan.keys for entry in measured.plans], metrics
    )
    predicted = estimator.held_out_losses()
    table = estimator.table()
    learning = time.perf_counter() - started
    spent = learning + len(metrics) * measured.seconds + (base.seconds if base else 0.0)
    figures = EstimatorFigures("bayesian-ridge", needs, tau_of(predicted, metrics), None, spent)
    return figures, table


def tau_of(losses: Sequence[float], metrics: Sequence[float]) -> Tau | None:
    """τ-b between predicted losses, negated, and measured metrics; None where it is undefined.

    It is undefined where all predictions, or all metrics, are equal.
    """
    predicted, actual = -np.array(losses, float), np.array(metrics, float)
    if len(predicted) < 2:
        return None
    value = kendall_tau(predicted, actual)
    if math.isnan(value):
        return None
    random = np.random.default_rng(0)
    drawn = [random.integers(0, len(actual), len(actual)) for _ in range(_DRAWS)]
    resampled = [kendall_tau(predicted[indices], actual[indices]) for indices in drawn]
    known = [found for found in resampled if not math.isnan(found)]
    tail = 50 * (1 - _CONFIDENCE)
    low, high = np.percentile(known, [tail, 100 - tail])
    return Tau(value, float(low), float(high))


def kendall_tau(left: Array | Sequence[float], right: Array | Sequence[float]) -> float:
    """scipy's τ-b; NaN where one side is constant.

    Raises:
        ActccError: scipy is not installed.
    """
    try:
        from scipy.stats import kendalltau
    except ImportError as error:
        raise ActccError("ranking estimators needs scipy; pip install 'actcc[rank]'") from error
    return float(kendalltau(left, right).statistic)
