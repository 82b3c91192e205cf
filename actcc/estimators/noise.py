"""`noise`: how far the outputs move on noise at the inputs; needs no data.

The loss of fidelity of `actcc.accuracy.fidelity`, one site at a time, on random inputs instead of
calibration data. Floats are uniform over the range that the preprocessing gives, and standard
normal where no range is known; integers as in `actcc.runtime.random_feeds`.
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
    if subject.value_range is None:
        return feeds
    generator = np.random.default_rng(seed)
    low, high = subject.value_range
    return {
        name: generator.uniform(low, high, values.shape).astype(values.dtype)
        if values.dtype.kind == "f"
        else values
        for name, values in feeds.items()
    }
