"""Rankings kept between runs: what `actcc rank` found, for `actcc optimize --estimator auto`.

One JSON file a (network, metric) in the cache folder. The network is known by the hash of its
normalized form, so that site ids mean the same places.
"""

from __future__ import annotations

import functools
import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actcc.accuracy.estimate import Key, LossTable
from actcc.errors import ModelError
from actcc.estimators import LEARNED
from actcc.estimators.ranking import EstimatorFigures, PlanFigures, Standings
from actcc.graph import Graph, content_hash
from actcc.graph.files import write_text
from actcc.price_cache import default_cache_path

FORMAT = 1
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class RankingRecord:
    """What is kept of a ranking; JSON.

    Attributes:
        network: content hash of the normalized network.
        metric: name of what was measured.
        evaluation: what it was measured on.
        learned: losses by the Bayesian ridge, for each change; empty without.
    """

    format: int
    network: str
    metric: str
    evaluation: str
    original: float
    plan_s: float
    estimators: tuple[EstimatorFigures, ...]
    plans: tuple[PlanFigures, ...]
    learned: tuple[tuple[Key, float], ...]

    @classmethod
    def of(cls, graph: Graph, metric: str, evaluation: str, found: Standings) -> RankingRecord:
        """What is to be kept of a ranking of a normalized network."""
        learned = found.tables.get(LEARNED, {})
        return cls(
            FORMAT,
            content_hash(graph),
            metric,
            evaluation,
            found.original,
            found.plan_s,
            found.estimators,
            found.plans,
            tuple(learned.items()),
        )

    @property
    def standings(self) -> Standings:
        """The ranking; of the losses it knows the learned ones only."""
        table: LossTable = dict(self.learned)
        tables = {LEARNED: table} if table else {}
        return Standings(self.original, self.plan_s, self.plans, self.estimators, tables)

    def to_json(self) -> str:
        """JSON text."""
        return str(_adapter().dump_json(self, indent=2).decode()) + "\n"


def default_folder() -> Path:
    """Where rankings are kept: beside the prices."""
    return default_cache_path().parent / "rankings"


def keep_ranking(folder: Path, record: RankingRecord) -> Path | None:
    """Write a ranking, in place of an older one; None, and a warning, where that cannot be done."""
    path = _path(folder, record.network, record.metric)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_text(path, record.to_json())
    except (OSError, ModelError) as error:
        _log.warning("ranking %s cannot be kept (%s); going on without", path, error)
        return None
    return path


def kept_ranking(folder: Path, graph: Graph, metric: str) -> RankingRecord | None:
    """The ranking of a normalized network by a metric; None where there is none to be read."""
    from pydantic import ValidationError

    network = content_hash(graph)
    path = _path(folder, network, metric)
    if not path.is_file():
        return None
    try:
        record: RankingRecord = _adapter().validate_json(path.read_bytes())
    except (ValidationError, OSError) as error:
        reason = str(error).splitlines()[0]
        _log.warning("ranking %s cannot be read (%s); going on without", path, reason)
        return None
    matching = (record.format, record.network, record.metric) == (FORMAT, network, metric)
    return record if matching else None


def _path(folder: Path, network: str, metric: str) -> Path:
    return folder / f"{network[:32]}-{hashlib.sha256(metric.encode()).hexdigest()[:12]}.json"


@functools.cache
def _adapter() -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(RankingRecord)
