"""`changes`: every change costs the same, so that a plan is as good as it changes little.

The baseline: an estimator that orders plans no better than by counting does not know which change
hurts.
"""

from __future__ import annotations

from actcc.accuracy.estimate import Estimates
from actcc.estimators.estimator import TYPICAL_LOSS, Needs, NetworkLoss, Subject


class ChangesEstimator:
    """The number of rewritten sites."""

    name = "changes"
    needs: Needs = "nothing"

    def losses(self, subject: Subject) -> Estimates:
        """See `Estimator`."""
        keys = [(s.id, c.computes) for s in subject.sites for c in s.candidates if not c.exact]
        return Estimates(dict.fromkeys(keys, TYPICAL_LOSS), {})

    def network_loss(self, subject: Subject) -> NetworkLoss | None:
        """See `Estimator`: None; it is the sum that is the estimate."""
        return None
