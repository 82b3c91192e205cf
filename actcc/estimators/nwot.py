"""`nwot`, `nwot-noise`: do activations tell samples apart (Mellor et al. 2021, section 3.2)?

The code of a sample is the sign of every pre-activation of the network. With N units and the
Hamming distance d between the codes of samples i and j

    K[i, j] = N − d(c_i, c_j)        score = log |det K|

K is summed over the activations, as in ActNAS (Sah et al. 2025), which chose activations by it, and
in the reference implementations. A swap changes the codes of the layers behind it only. The papers
score networks at their initialization; here the weights are the trained ones.

Of large activations an even share of the units is taken, and their kernel scaled up.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from actcc.accuracy.estimate import Estimates
from actcc.activations import find_activations
from actcc.calibration import SampleSet
from actcc.errors import DataError, ModelError
from actcc.estimators.estimator import Needs, Subject
from actcc.estimators.measured import MeasuredLoss
from actcc.estimators.network_score import score_losses, score_shift
from actcc.estimators.noise import noise_samples
from actcc.graph import Array, Graph

_BATCH = 8
_FEWEST_SAMPLES = 2
_MOST_UNITS = 4096


@dataclass(frozen=True)
class NwotEstimator:
    """log |det K| of the Hamming kernel of activation codes over a mini-batch.

    Attributes:
        needs: the batch is of calibration data, or, if nothing is needed, of noise.
    """

    name: str
    needs: Needs

    def losses(self, subject: Subject) -> Estimates:
        """See `Estimator`."""
        return score_losses(subject, self.network_loss(subject), f"Scores by {self.name}")

    def network_loss(self, subject: Subject) -> MeasuredLoss:
        """See `Estimator`.

        Raises:
            DataError: there are fewer than two calibration samples for the batch.
            ModelError: the network has no activation behind a layer.
        """
        observed = pre_activations(subject.graph)
        return score_shift(subject.graph, HammingScore(), observed, self._batch(subject))

    def _batch(self, subject: Subject) -> SampleSet:
        if self.needs == "nothing":
            return noise_samples(subject, _BATCH)
        if subject.calibration is None:
            raise DataError(
                f"estimator '{self.name}' needs calibration data; give --calib, or choose "
                "--estimator nwot-noise"
            )
        batch = subject.calibration.take(_BATCH)
        if len(batch) < _FEWEST_SAMPLES:
            raise DataError(
                f"estimator '{self.name}' tells samples apart, and {batch.source} has {len(batch)} "
                "to estimate with; give more --calib, or choose --estimator nwot-noise"
            )
        return batch


def pre_activations(graph: Graph) -> tuple[str, ...]:
    """The tensors that activations read, inputs of the network aside.

    Raises:
        ModelError: there is none.
    """
    read = dict.fromkeys(match.reads.name for match in find_activations(graph))
    found = tuple(name for name in read if graph.producer(name) is not None)
    if not found:
        raise ModelError("the network has no activation to score; choose --estimator fidelity")
    return found


@dataclass(frozen=True)
class HammingScore:
    """See `Score`."""

    most_units: int = _MOST_UNITS

    def tally(self) -> HammingTally:
        """A tally of nothing."""
        return HammingTally(self.most_units)


@dataclass
class HammingTally:
    """The codes of the samples seen, packed to bits, by tensor."""

    most_units: int
    codes: list[dict[str, Array]] = field(default_factory=list)
    sizes: dict[str, tuple[int, int]] = field(default_factory=dict)

    def add(self, index: int, tensors: Mapping[str, Array]) -> None:
        """Keep the code of one sample."""
        code = {}
        for name, values in tensors.items():
            if not values.size:
                continue
            step = -(-values.size // self.most_units)
            units = values.reshape(-1)[::step]
            self.sizes[name] = values.size, units.size
            code[name] = np.packbits(units > 0)
        self.codes.append(code)

    @property
    def kernel(self) -> Array:
        """K [samples, samples], float64."""
        count = len(self.codes)
        total: Array = np.zeros((count, count))
        for name, (size, kept) in self.sizes.items():
            bits = np.stack([np.unpackbits(code[name], count=kept) for code in self.codes])
            signs = 2.0 * bits - 1.0
            total += (size / kept) * 0.5 * (kept + signs @ signs.T)
        return total

    @property
    def score(self) -> float:
        """log |det K|; −∞ where two samples have one code."""
        return float(np.linalg.slogdet(self.kernel)[1])
