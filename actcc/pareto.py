"""`pareto_front()`: the fastest verified plan for each of several accuracy budgets.

All budgets share what is known before the first trial, and all trials: a plan that was verified
serves every budget that it keeps. Budgets are taken from the smallest to the largest, each with an
even share of the trials that are left, and each search starts from what the trials before it have
measured.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path

from actcc.accuracy.metric import Metric
from actcc.budget import FRONT_DROPS, Amount, Budget, parse_drop
from actcc.calibration import Preprocessing, SampleSet
from actcc.effort import FRONT_EFFORT
from actcc.errors import BudgetError, DataError
from actcc.front import (
    Front,
    Point,
    check_folder,
    deliver_folder,
    distinct,
    front_file_name,
)
from actcc.graph import Graph
from actcc.graph.files import move_model
from actcc.job import Model, open_job
from actcc.pass_api import Pass
from actcc.pipeline import Prepared, prepare
from actcc.plan import LatencyFigures
from actcc.progress import Progress
from actcc.repair import RepairMethod
from actcc.result import make_plan, plan_path, trial_figures
from actcc.search import check_strategy
from actcc.targets import Target
from actcc.trials import Trial, Trials
from actcc.verify import Verifier

DEFAULT_DROPS = tuple(parse_drop(text) for text in FRONT_DROPS)


def pareto_front(
    model: Model,
    target: str | Path | Target = "cpu",
    *,
    drops: Sequence[Amount] = DEFAULT_DROPS,
    output: str | Path | None = None,
    budget: Budget | None = None,
    calibration: str | Path | SampleSet | None = None,
    evaluation: str | Path | SampleSet | None = None,
    preprocessing: str | Preprocessing | None = None,
    samples: int | None = None,
    labels: str | Path | None = None,
    metric: str | Metric = "fidelity",
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    passes: Sequence[Pass] | None = None,
    plugins: Sequence[str | Path] = (),
    skip: Sequence[str] = (),
    also: Sequence[str] = (),
    precision: str = "auto",
    repair: RepairMethod | None = None,
    search: str = "cpsat",
    max_trials: int = FRONT_EFFORT.max_trials,
    time_limit_s: float = FRONT_EFFORT.time_limit_s,
    seed: int = 0,
    workers: int | None = None,
    executor: Executor | None = None,
    cache: bool = True,
    resume: bool = False,
    progress: Progress | None = None,
) -> Front:
    """The front of latency over accuracy; each point is verified.

    Args:
        drops: the accuracy budgets; `Amount(0.01, relative=True)` is 1 % of the original.
        output: a folder that is not there yet, or empty: each point's model and plan go there.
        budget: what every point must keep beside its drop: memory, latency, size, and the
            confidence.
        calibration: as for `optimize`, but needed.
        max_trials: plans that are verified at most, for all budgets together.
        time_limit_s: for all budgets together.

    All other arguments are those of `actcc.optimize`.

    Raises:
        ActccError: bad input; `InfeasibleError` where no plan meets a budget of all points.
    """
    folder = None if output is None else Path(output)
    common = _checked(drops, budget or Budget(), calibration)
    check_strategy(search)
    if folder is not None:
        check_folder(folder)
    with open_job(
        model,
        target,
        output=folder,
        budget=replace(common, max_drop=max(drops, key=lambda drop: drop.value)),
        calibration=calibration,
        evaluation=evaluation,
        preprocessing=preprocessing,
        samples=samples,
        labels=labels,
        metric=metric,
        input_shapes=input_shapes,
        passes=passes,
        plugins=plugins,
        skip=skip,
        also=also,
        precision=precision,
        repair=repair,
        effort=FRONT_EFFORT.but(max_trials, time_limit_s),
        seed=seed,
        workers=workers,
        executor=executor,
        cache=cache,
        progress=progress,
        journal_for=f"pareto {search}",
        resume=resume,
    ) as job:
        prepared = prepare(job)
        trials = Trials(max_trials, job.deadline, "latency")
        limits = distinct(drops, abs(_original_value(prepared)))
        verifiers = {
            drop: prepared.verifier.under(replace(common, max_drop=drop)) for drop in limits
        }
        _explore_until_interrupted(prepared, verifiers, trials, search)
        timed = _timed_together(prepared, fastest(verifiers, trials.done))
        points = _points(prepared, verifiers, timed, trials, folder)
        if not trials.interrupted:
            job.journal.discard()
        return Front(
            points=points,
            empty=tuple(drop for drop in limits if drop not in timed.trials),
            trials=tuple(trial_figures(trial) for trial in trials.done),
            stage_seconds=dict(job.progress.seconds),
        )


def explore(
    prepared: Prepared, verifiers: Mapping[Amount, Verifier], trials: Trials, search: str
) -> None:
    """Fill `trials` with plans for all budgets.

    Args:
        verifiers: by budget, the smallest first.
        trials: in the end with verdicts under the budget that was searched last.
    """
    with prepared.job.progress.stage("Solving and verifying", trials.most) as advance:
        for index, verifier in enumerate(verifiers.values()):
            left = len(verifiers) - index
            share = math.ceil((trials.most - len(trials.done)) / left)
            now = time.monotonic()
            own = Trials(
                len(trials.done) + share,
                now + (trials.deadline - now) / left,
                trials.objective,
                judged(verifier, trials.done),
                list(trials.refused),
            )
            try:
                prepared.search(verifier, own, "model.onnx").run(search, advance)
            finally:  # an interruption loses no trial
                trials.done, trials.refused = own.done, own.refused


def judged(verifier: Verifier, trials: Sequence[Trial]) -> list[Trial]:
    """The same trials under the budget of a verifier."""
    return [replace(trial, verdict=verifier.judge(trial.verdict)) for trial in trials]


def fastest(verifiers: Mapping[Amount, Verifier], trials: Sequence[Trial]) -> dict[Amount, Trial]:
    """For each budget the fastest trial that keeps it, unless a smaller budget has it already."""
    found: dict[Amount, Trial] = {}
    for drop, verifier in verifiers.items():
        best = Trials(0, 0.0, "latency", judged(verifier, trials)).best
        if best is not None and all(best.path != other.path for other in found.values()):
            found[drop] = best
    return found


def _checked(drops: Sequence[Amount], budget: Budget, calibration: object) -> Budget:
    """The budget that all points share."""
    if not drops:
        raise BudgetError("no accuracy budgets for the front; give --drops, e.g. 0.5%,1%,2%")
    if not all(0 < drop.value < math.inf for drop in drops):
        raise BudgetError("--drops: each must be above 0 and finite; `actcc optimize` takes others")
    if budget.max_drop is not None or budget.objective != "latency":
        raise BudgetError(
            "a front has the accuracy drops of --drops and least latency as its objective; "
            "leave max_drop and objective out of its budget"
        )
    if calibration is None:
        raise DataError("a front over accuracy needs samples to measure it on; give --calib")
    return budget


def _original_value(prepared: Prepared) -> float:
    figures = prepared.verifier.unchanged_accuracy
    if figures is None:
        raise DataError("a front over accuracy needs samples to measure it on; give --calib")
    return figures.original


def _explore_until_interrupted(
    prepared: Prepared, verifiers: Mapping[Amount, Verifier], trials: Trials, search: str
) -> None:
    """Trials for all budgets; by Ctrl-C for as many as there is time."""
    try:
        explore(prepared, verifiers, trials, search)
    except KeyboardInterrupt:
        trials.interrupted = True
        if not fastest(verifiers, trials.done):
            raise
        prepared.job.progress.note(
            "interrupted: the front of the verified plans so far follows; --resume goes on"
        )


@dataclass(frozen=True)
class _Timed:
    """The points with latencies of one interleaved run, and the original's in that run."""

    original: LatencyFigures
    trials: dict[Amount, Trial]


def _timed_together(prepared: Prepared, found: Mapping[Amount, Trial]) -> _Timed:
    """Points that are no faster than a more accurate one beyond the noise are left out."""
    verifier = prepared.verifier
    with prepared.job.progress.stage("Timing the front"):
        graphs = [Graph.load(trial.path, verifier.input_shapes) for trial in found.values()]
        before, *after = verifier.time(graphs)
    original = LatencyFigures(before.latency_ns, before.latency_ns, 1.0, 0.0, before.source)
    kept: dict[Amount, Trial] = {}
    # An original that is too large is no point to be faster than.
    least = math.inf if any(t.verdict.size_counts for t in found.values()) else 1.0
    for (drop, trial), timing in zip(found.items(), after, strict=True):
        if timing.ratio + timing.ratio_noise >= least:
            continue
        least = timing.ratio
        latency = replace(
            original,
            result_ns=timing.latency_ns,
            ratio=timing.ratio,
            ratio_noise=timing.ratio_noise,
        )
        pace = before.latency_ns / trial.verdict.latency.original_ns
        kept[drop] = replace(
            trial,
            predicted_latency_ns=trial.predicted_latency_ns * pace,
            verdict=replace(trial.verdict, latency=latency),
        )
    return _Timed(original, kept)


def _points(
    prepared: Prepared,
    verifiers: Mapping[Amount, Verifier],
    timed: _Timed,
    trials: Trials,
    folder: Path | None,
) -> tuple[Point, ...]:
    """The original and the points, with their files in place if a folder is given."""
    outcome = prepared.outcome(trials)
    shapes = prepared.verifier.input_shapes
    original = Graph.load(outcome.source, shapes)
    unchanged = replace(make_plan(outcome, None, original), latency=timed.original)
    points = [Point(None, unchanged, original)]
    staged = prepared.job.staging / "front"
    staged.mkdir()
    for drop, trial in timed.trials.items():
        verifier = verifiers[drop]
        graph = Graph.load(trial.path, shapes)
        own = replace(trial, verdict=verifier.judge(trial.verdict))
        plan = make_plan(replace(outcome, verifier=verifier), own, graph)
        name = front_file_name(outcome.source.name, drop)
        move_model(trial.path, staged / name)
        plan.save(plan_path(staged / name))
        points.append(Point(drop, plan, graph, None if folder is None else folder / name))
    if folder is not None:
        deliver_folder(staged, folder)
    return tuple(points)
