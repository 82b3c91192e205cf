"""`fidelity`: one site at a time on calibration data; what the outputs lose against the original's.

The default. See `actcc.accuracy.fidelity` for the loss and `actcc.accuracy.estimate` for how it is
found without running a layer twice.
"""

from __future__ import annotations

from actcc.accuracy.estimate import Estimates, reference_outputs
from actcc.accuracy.fidelity import FidelityReference
from actcc.calibration import SampleSet
from actcc.errors import DataError
from actcc.estimators.estimator import Needs, Subject
from actcc.estimators.measured import MeasuredLoss, single_losses


class FidelityEstimator:
    """Loss of fidelity on calibration data."""

    name = "fidelity"
    needs: Needs = "calibration data"

    def losses(self, subject: Subject) -> Estimates:
        """See `Estimator`; in shares of fidelity."""
        loss = self.network_loss(subject)
        return single_losses(subject, loss, "Estimating accuracy", repairs=subject.repairs)

    def network_loss(self, subject: Subject) -> MeasuredLoss:
        """See `Estimator`.

        Raises:
            DataError: there is no calibration data.
        """
        if subject.calibration is None:
            raise DataError(
                "estimator 'fidelity' needs calibration data; give --calib, or choose an estimator "
                "that needs none, such as --estimator noise"
            )
        return output_loss(subject, subject.calibration.take(subject.estimate_samples))


def output_loss(subject: Subject, samples: SampleSet) -> MeasuredLoss:
    """The loss of fidelity of the outputs on samples of any kind."""
    reference = FidelityReference(reference_outputs(subject.graph, samples))
    names = tuple(tensor.name for tensor in subject.graph.outputs)
    return MeasuredLoss(names, samples, reference)
