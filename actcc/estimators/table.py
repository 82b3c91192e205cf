"""Losses that were found before: by a ranking, or learned from its plans."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from actcc.accuracy.estimate import Estimates, Key
from actcc.estimators.estimator import Needs, NetworkLoss, Subject


@dataclass(frozen=True)
class TableEstimator:
    """An estimator whose losses are known.

    Attributes:
        table: a loss for each (site, function).
    """

    name: str
    needs: Needs
    table: Mapping[Key, float]

    def losses(self, subject: Subject) -> Estimates:
        """See `Estimator`; what the table does not know is not offered."""
        keys = [(s.id, c.computes) for s in subject.sites for c in s.candidates if not c.exact]
        unknown = "the ranking did not look at it; run `actcc rank` for this target"
        return Estimates(
            {key: self.table[key] for key in keys if key in self.table},
            {key: unknown for key in keys if key not in self.table},
        )

    def network_loss(self, subject: Subject) -> NetworkLoss | None:
        """See `Estimator`: None; the table knows single changes only."""
        return None
