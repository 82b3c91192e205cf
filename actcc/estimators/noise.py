"""`noise`: how far the outputs move on noise at the inputs; needs no data.

The loss of fidelity of `actcc.accuracy.fidelity`, one site at a time, on random inputs instead of
calibration data. Floats are uniform over the range of the input, and standard normal where it is
not known; integers as in `actcc.runtime.random_feeds`.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from actcc.accuracy.estimate import Estimates
from actcc.calibration import SampleSet, load_samples
from actcc.estimators.estimator import Needs, Subject, as_losses
from actcc.estimators.fidelity import output_loss
from actcc.estimators.measured import MeasuredLoss, single_losses
from actcc.graph import Array
from actcc.runtime import random_feeds

NOISE_SAMPLES = 8
_RANGE_SAMPLES = 4


class NoiseEstimator:
    """Output sensitivity on noise."""

    name = "noise"
    needs: Needs = "nothing"

    def losses(self, subject: Subject) -> Estimates:
        """See `Estimator`."""
        precise = replace(subject, enough_loss=float("inf"))
        found = single_losses(precise, self.network_loss(subject), "Sensitivity on noise")
        return Estimates(as_losses(found.losses), found.failed)

    def network_loss(self, subject: Subject) -> MeasuredLoss:
        """See `Estimator`."""
        return output_loss(subject, noise_samples(subject, NOISE_SAMPLES))


def noise_samples(subject: Subject, count: int) -> SampleSet:
    """Random inputs, the same for the same seed.

    Raises:
        ModelError: an input has no static shape, or is no tensor of numbers.
    """
    feeds = [noise_feeds(subject, subject.seed + step) for step in range(count)]
    return load_samples(feeds, subject.graph)


def noise_feeds(subject: Subject, seed: int) -> dict[str, Array]:
    """Random values for every input.

    Raises:
        ModelError: an input has no static shape, or is no tensor of numbers.
    """
    feeds = random_feeds(subject.graph, seed)
    generator = np.random.default_rng(seed)
    for name, (low, high) in subject.value_ranges.items():
        if feeds[name].dtype.kind == "f":
            values: Array = np.asarray(generator.uniform(low, high, feeds[name].shape))
            feeds[name] = values.astype(feeds[name].dtype)
    return feeds


def value_ranges(samples: SampleSet) -> dict[str, tuple[float, float]]:
    """Smallest and largest value of each input in a few samples: the range, and nothing else."""
    few = list(samples.take(_RANGE_SAMPLES))
    return {
        name: (
            min(float(sample.inputs[name].min()) for sample in few),
            max(float(sample.inputs[name].max()) for sample in few),
        )
        for name, values in few[0].inputs.items()
        if values.dtype.kind == "f" and values.size
    }
