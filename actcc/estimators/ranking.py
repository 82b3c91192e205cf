"""How well estimators order plans: Kendall's τ between what they predict and what is measured."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from actcc.accuracy.estimate import Key, LossTable
from actcc.accuracy.metric import Metric
from actcc.calibration import SampleSet
from actcc.errors import ActccError
from actcc.estimators import ESTIMATORS, LEARNED
from actcc.estimators.bayesian_ridge import Features, PlanRegression
from actcc.estimators.estimator import Estimator, NetworkLoss, Subject
from actcc.estimators.kendall import Tau, kendall_tau, tau_of
from actcc.estimators.plan_measurement import Measured, measure_plans
from actcc.estimators.random_plans import draw_plans

ALL_ESTIMATORS = (*ESTIMATORS, LEARNED)


@dataclass(frozen=True)
class EstimatorFigures:
    """How an estimator did.

    Attributes:
        tau: of the sum of the losses of single changes, as the solver uses it; for the learned
            one of plans that it has not seen. None where all plans have one sum.
        network_tau: of the estimator's judgement of whole rewritten networks; None where it does
            not judge these, or finds them all alike.
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
    """A drawn plan's changes, and what was measured of it."""

    changes: tuple[Key, ...]
    metric: float


@dataclass(frozen=True)
class Standings:
    """What a ranking found.

    Attributes:
        original: the metric of the original.
        plan_s: seconds to measure the metric of one plan.
        estimators: best first.
        tables: the losses that were found, by estimator.
    """

    original: float
    plan_s: float
    plans: tuple[PlanFigures, ...]
    estimators: tuple[EstimatorFigures, ...]
    tables: Mapping[str, LossTable]

    @property
    def best(self) -> EstimatorFigures | None:
        """The one that orders the plans best for the solver; None if none does so at all."""
        first = max(self.estimators, key=_order, default=None)
        return None if first is None or _order(first) <= 0 else first


def rank_estimators(
    subject: Subject, count: int, metric: Metric, evaluation: SampleSet, names: Sequence[str]
) -> Standings:
    """Draw plans, measure them, and hold every estimator against them.

    Args:
        names: of `ALL_ESTIMATORS`.

    Raises:
        ActccError: scipy is missing, too few plans can be drawn or measured, or the metric cannot
            be taken.
    """
    kendall_tau(np.zeros(2), np.zeros(2))  # refuses early where scipy is missing
    drawn = draw_plans(subject.sites, count, subject.seed)
    tried = {name: _try(subject, ESTIMATORS[name]) for name in names if name in ESTIMATORS}
    networks = {name: found.network for name, found in tried.items() if found.network is not None}
    measured = measure_plans(subject, drawn, metric, evaluation, networks)
    figures = [_figures(name, found, measured) for name, found in tried.items()]
    tables = {name: found.losses for name, found in tried.items() if found.losses}
    if LEARNED in names:
        row, learned = _learn(subject, tried, measured)
        figures.append(row)
        if learned:
            tables[LEARNED] = learned
    return Standings(
        measured.original,
        measured.seconds,
        tuple(PlanFigures(tuple(entry.plan.keys), entry.metric) for entry in measured.plans),
        tuple(sorted(figures, key=_order, reverse=True)),
        tables,
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
        found = estimator.losses(subject)
    except ActccError as error:
        return _Tried({}, None, 0.0, str(error))
    reason = "" if found.losses else next(iter(found.failed.values()), "there is no candidate")
    return _Tried(found.losses, network, time.perf_counter() - started, reason)


def _figures(name: str, found: _Tried, measured: Measured) -> EstimatorFigures:
    judged = [entry for entry in measured.plans if name in entry.losses]
    network_tau = tau_of([e.losses[name] for e in judged], [e.metric for e in judged])
    seconds = [entry.seconds[name] for entry in judged]
    tau = None
    if found.losses:
        # A change that could not be estimated is not a cheap one.
        largest = max(found.losses.values())
        sums = [
            sum(found.losses.get(key, largest) for key in entry.plan.keys)
            for entry in measured.plans
        ]
        tau = tau_of(sums, measured.metrics)
    return EstimatorFigures(
        name,
        ESTIMATORS[name].needs,
        tau,
        network_tau,
        found.seconds,
        float(np.mean(seconds)) if seconds else 0.0,
        found.skipped,
    )


def _learn(
    subject: Subject, tried: Mapping[str, _Tried], measured: Measured
) -> tuple[EstimatorFigures, LossTable]:
    """The regression on the plans, with what a cheaper estimator says as one of its features.

    That is fidelity, or noise where there is no calibration data.
    """
    needs = "measured plans"
    started = time.perf_counter()
    bases = [tried[name] for name in ("fidelity", "noise") if name in tried]
    base = next((found for found in bases if found.losses), None)
    single = {} if base is None else base.losses
    plans = [entry.plan.keys for entry in measured.plans]
    regression = PlanRegression(Features.of(subject.sites, single), plans, measured.metrics)
    try:
        predicted, table = regression.held_out_losses(), regression.table()
    except ActccError as error:
        return EstimatorFigures(LEARNED, needs, skipped=str(error)), {}
    spent = time.perf_counter() - started + len(plans) * measured.seconds
    spent += 0.0 if base is None else base.seconds
    return EstimatorFigures(LEARNED, needs, tau_of(predicted, measured.metrics), None, spent), table
