"""`rank_model()`: which estimator orders the plans of a network best, and what it costs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from pathlib import Path

from actcc.accuracy.metric import Metric
from actcc.budget import Budget
from actcc.calibration import Preprocessing, SampleSet
from actcc.effort import load_preset
from actcc.errors import DataError, SearchError
from actcc.estimators import Subject
from actcc.estimators.noise import value_ranges
from actcc.estimators.ranking import ALL_ESTIMATORS, rank_estimators
from actcc.estimators.record import RankingRecord, default_folder, keep_ranking
from actcc.job import Model, open_job
from actcc.normalize import normalize
from actcc.pass_api import Pass, find_sites
from actcc.progress import Progress
from actcc.targets import Target

# A site that alone loses all of the fidelity is estimated from few samples.
_WRECKED = 1.0


def rank_model(
    model: Model,
    target: str | Path | Target = "cpu",
    *,
    plans: int = 40,
    estimators: Sequence[str] = ALL_ESTIMATORS,
    calibration: str | Path | SampleSet | None = None,
    evaluation: str | Path | SampleSet | None = None,
    preprocessing: str | Preprocessing | None = None,
    limit: int | None = None,
    labels: str | Path | None = None,
    metric: str | Metric = "fidelity",
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    passes: Sequence[Pass] | None = None,
    plugins: Sequence[str | Path] = (),
    skip: Sequence[str] = (),
    also: Sequence[str] = (),
    seed: int = 0,
    workers: int | None = None,
    executor: Executor | None = None,
    cache: bool = True,
    progress: Progress | None = None,
) -> RankingRecord:
    """Draw random plans, measure them, and hold every estimator against them.

    The result is kept in the cache folder, where `optimize(estimator="auto")` finds it.

    Args:
        target: its candidates are what plans are drawn from; nothing is timed.
        plans: how many to draw.
        estimators: names of `actcc.estimators.ranking.ALL_ESTIMATORS`.
        calibration: what estimators may see; those that need it are left out without.
        evaluation: what the plans are measured on; None holds part of `calibration` out.
        limit: most samples to use of each.
        cache: whether the result is kept.

    All other arguments are those of `actcc.optimize`.

    Raises:
        ActccError: bad input, no approximate candidate, or the extra `rank` is not installed.
    """
    unknown = [name for name in estimators if name not in ALL_ESTIMATORS]
    if unknown:
        known = ", ".join(ALL_ESTIMATORS)
        raise SearchError(f"there is no estimator '{unknown[0]}'; use some of: {known}")
    if calibration is None and evaluation is None:
        raise DataError("plans have to be measured on something; give --calib, --eval or both")
    with open_job(
        model,
        target,
        output=None,
        budget=Budget(),
        estimator="noise" if calibration is None else "fidelity",
        calibration=calibration,
        evaluation=evaluation,
        preprocessing=preprocessing,
        samples=limit,
        labels=labels,
        metric=metric,
        input_shapes=input_shapes,
        passes=passes,
        plugins=plugins,
        skip=skip,
        also=also,
        effort=load_preset("default").but(None, math.inf),
        seed=seed,
        workers=workers,
        executor=executor,
        cache=cache,
        progress=progress,
    ) as job:
        if job.data is None:
            raise DataError("plans have to be measured on something; give --calib or --eval")
        with job.progress.stage("Normalizing"):
            graph = normalize(job.original, skip=job.skip).graph
        subject = Subject(
            graph,
            find_sites(graph, job.passes, job.target, samples=job.fitted_samples).sites,
            job.passes,
            job.data.calibration,
            job.executor,
            value_ranges(job.data.calibration or job.data.evaluation),
            job.seed,
            enough_loss=_WRECKED,
            progress=job.progress,
        )
        found = rank_estimators(subject, plans, job.metric, job.data.evaluation, estimators)
        record = RankingRecord.of(graph, job.metric.name, job.data.evaluation.source, found)
        if cache:
            keep_ranking(default_folder(), record)
        return record
