"""`macs`: the network that multiplies more knows more.

The baseline that every zero-cost score is held against (Abdelfattah et al. 2021; NAS-Bench-Suite-
Zero, Krishnakumar et al. 2022). A swapped activation changes no multiply-accumulate, so that it
tells such plans not apart; a block that is restructured does.
"""

from __future__ import annotations

from actcc.accuracy.estimate import Estimates
from actcc.estimators.estimator import Needs, Subject
from actcc.estimators.structural import StructuralShift, structural_losses
from actcc.graph.macs import count_macs


class MacsEstimator:
    """Multiply-accumulates of one inference."""

    name = "macs"
    needs: Needs = "nothing"

    def losses(self, subject: Subject) -> Estimates:
        """See `Estimator`."""
        return structural_losses(subject, self.network_loss(subject), self.name)

    def network_loss(self, subject: Subject) -> StructuralShift:
        """See `Estimator`."""
        return StructuralShift(count_macs, count_macs(subject.graph))
