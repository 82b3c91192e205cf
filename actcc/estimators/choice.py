"""`--estimator`: by name, or the best for this network by a ranking."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from actcc.accuracy.fidelity import Fidelity
from actcc.calibration import SampleSet
from actcc.errors import DataError, SearchError, require_known
from actcc.estimators import ESTIMATORS, LEARNED
from actcc.estimators.estimator import Estimator, Subject
from actcc.estimators.ranking import ALL_ESTIMATORS, Standings, rank_estimators
from actcc.estimators.record import kept_ranking
from actcc.estimators.table import TableEstimator
from actcc.graph import Graph

AUTO = "auto"
CHOICES = (*ALL_ESTIMATORS, AUTO)
_QUICK_PLANS = {AUTO: 12, LEARNED: 40}
_MOST_HELD_OUT = 32
_FEWEST_SAMPLES = 2


def check_estimator(name: str) -> str:
    """The name itself.

    Raises:
        SearchError: no estimator is called so.
    """
    return require_known("--estimator", "estimator", name, CHOICES, SearchError)


def works_without_calibration(name: str) -> bool:
    """Whether an estimator can be used where there is no calibration data."""
    return name not in ESTIMATORS or ESTIMATORS[name].needs == "nothing"


def require_ranking(
    name: str, graph: Graph, calibration: SampleSet | None, metric: str, folder: Path | None
) -> None:
    """Refuse an estimator that is chosen or learned by a ranking, where there can be none.

    Args:
        graph: the normalized network.
        metric, folder: as for `choose_estimator`.

    Raises:
        DataError: no ranking is kept, and there is too little calibration data to make one.
    """
    if name not in ESTIMATORS and (folder is None or kept_ranking(folder, graph, metric) is None):
        _enough_to_rank(name, calibration)


def _enough_to_rank(name: str, calibration: SampleSet | None) -> SampleSet:
    if calibration is None or len(calibration) < _FEWEST_SAMPLES:
        raise DataError(
            f"--estimator {name} needs a ranking; run `actcc rank` first, give more --calib, or "
            "choose an estimator by name"
        )
    return calibration


def choose_estimator(name: str, subject: Subject, metric: str, folder: Path | None) -> Estimator:
    """The estimator of that name; for `auto` and `bayesian-ridge` by a ranking of the network.

    That is the one that `actcc rank` kept for the network and the metric. Where there is none, a
    small ranking is made, by fidelity on calibration samples that the estimates do not use: the
    evaluation samples stay unseen.

    Args:
        metric: name of the metric that the budget is held in.
        folder: where rankings are kept; None to look for none.

    Raises:
        DataError: a ranking has to be made, and there is too little calibration data for it.
        SearchError: no estimator is called so, or none orders the plans of the ranking.
    """
    if check_estimator(name) in ESTIMATORS:
        return ESTIMATORS[name]
    record = None if folder is None else kept_ranking(folder, subject.graph, metric)
    if record is not None:
        said = f"{len(record.plans)} plans by {record.metric} on {record.evaluation}"
        chosen = _pick(name, record.standings, subject)
    else:
        standings = _quick_ranking(name, subject)
        said = f"{len(standings.plans)} plans by fidelity on calibration samples"
        chosen = _pick(name, standings, subject)
    subject.progress.note(f"estimator {chosen.name}, from a ranking of {said}")
    return chosen


def _pick(name: str, standings: Standings, subject: Subject) -> Estimator:
    wanted = name
    if name == AUTO:
        usable = [
            figures
            for figures in standings.estimators
            if subject.calibration is not None or works_without_calibration(figures.name)
        ]
        best = replace(standings, estimators=tuple(usable)).best
        if best is None:
            raise SearchError(
                "--estimator auto: no estimator orders the plans of the ranking better than "
                "chance; rank more of them with `actcc rank`, or choose an estimator by name"
            )
        wanted = best.name
    if wanted in standings.tables:
        needs = "measured plans" if wanted == LEARNED else ESTIMATORS[wanted].needs
        return TableEstimator(wanted, needs, standings.tables[wanted])
    if wanted == LEARNED:
        skipped = [f.skipped for f in standings.estimators if f.name == LEARNED and f.skipped]
        raise SearchError(skipped[0] if skipped else f"the ranking has no {LEARNED}; rank again")
    return ESTIMATORS[wanted]


def _quick_ranking(name: str, subject: Subject) -> Standings:
    count = _QUICK_PLANS[name]
    calibration = _enough_to_rank(name, subject.calibration)
    used = min(subject.estimate_samples, len(calibration) // 2)
    held_out = calibration[used:].take(_MOST_HELD_OUT)
    subject.progress.note(
        f"--estimator {name}: `actcc rank` has not ranked this network by this metric; "
        f"{count} plans are drawn and measured now"
    )
    inner = replace(subject, calibration=calibration.take(used))
    return rank_estimators(inner, count, Fidelity(), held_out, ALL_ESTIMATORS)
