"""Fidelity: how far a rewritten model's outputs agree with the original's, without labels.

fidelity = 1 − loss; 1 means identical. The loss is the mean over outputs, and over samples s, of

    float outputs:      L_s = 1/F · Σ_f  N_{s,f} / max(E_f, floor)
        N_{s,f} = Σ_{p∈f} (ŷ_s[p] − y_s[p])²                      noise of feature f
        E_f     = 1/S · Σ_s Σ_{p∈f} (y_s[p] − m[p])²              signal of feature f
    integers, Booleans, strings:   L_s = share of elements that differ

y is the original's output, ŷ the rewritten model's, and m[p] the mean of y[p] over the samples, so
that constants such as a detector's grid are no signal. Below four samples, or where shapes differ
between samples, m is one mean over all elements.

Features: outputs of rank 3 and more are taken apart along their smallest non-batch axis above 1
(85 in [1,3549,85], 84 in [1,84,8400]); sizes that occur twice, as a square map's height and width
do, are left aside where another is there. Other outputs are one feature. floor = max(median of E,
10⁻⁶ · mean of E), so that features that hardly ever speak, rare classes, do not decide alone.

Defined edges: elements that are NaN or infinite in the original do not count. One that is in the
rewritten output alone, and any loss of a sample beyond it, counts as `LARGEST_LOSS`. An output of
another shape than the original's has lost everything: 1. A sequence is compared as one tensor, its
parts in a row. An output that is constant over the samples (E below 10⁻¹² of its energy about 0) is
measured against its energy about 0, and at least against 10⁻⁶ an element.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from actcc.accuracy.metric import Judge, MeanScores
from actcc.calibration import Sample, SampleSet
from actcc.errors import DataError
from actcc.graph import Array

LARGEST_LOSS = 1e6
_FEWEST_FOR_POSITIONS = 4
_SMALLEST_SHARE_OF_MEAN = 1e-6
_ROUNDING = 1e-12
_SMALLEST_ENERGY = 1e-6


class FidelityReference:
    """The original's outputs, and the scale that each feature's noise is measured against.

    Picklable; losses of single samples can be computed anywhere and in any order.
    """

    def __init__(self, originals: Sequence[Mapping[str, Array]]) -> None:
        """Measure the original's signal.

        Args:
            originals: outputs of all samples by name, in order.

        Raises:
            DataError: no samples, no outputs, or an output that is no tensor.
        """
        if not originals or not originals[0]:
            raise DataError("fidelity needs the outputs of at least one sample; give more data")
        names = tuple(originals[0])
        self._originals = tuple(
            {name: _as_tensor(name, outputs.get(name)) for name in names} for outputs in originals
        )
        self._scales = {
            name: _scale([outputs[name] for outputs in self._originals])
            for name in names
            if self._originals[0][name].dtype.kind == "f"
        }

    def __len__(self) -> int:
        return len(self._originals)

    def sample_loss(self, index: int, outputs: Mapping[str, Array]) -> float:
        """What sample `index` adds to the loss; the mean over all samples is the loss.

        Args:
            outputs: of the rewritten model, by name; more than the original's are ignored.

        Raises:
            DataError: an output is missing.
        """
        losses = []
        for name, original in self._originals[index].items():
            found = outputs.get(name)
            if found is None:
                raise DataError(f"the rewritten model has no output '{name}'; keep all outputs")
            losses.append(_output_loss(original, _as_tensor(name, found), self._scales.get(name)))
        return float(np.mean(losses))

    def sample_losses(self, outputs: Sequence[Mapping[str, Array]]) -> list[float]:
        """The loss of each sample, in order.

        Raises:
            DataError: not as many samples as the original was run on.
        """
        if len(outputs) != len(self):
            raise DataError(f"outputs of {len(outputs)} samples, the original has {len(self)}")
        return [self.sample_loss(index, found) for index, found in enumerate(outputs)]

    def loss(self, outputs: Sequence[Mapping[str, Array]]) -> float:
        """1 − fidelity, in [0, LARGEST_LOSS], for the rewritten model's outputs of all samples."""
        return float(np.mean(self.sample_losses(outputs)))

    def tally(self) -> FidelityTally:
        """A tally of nothing; see `actcc.accuracy.estimate.Yardstick`."""
        return FidelityTally(self)


@dataclass
class FidelityTally:
    """The mean loss of the samples that were counted."""

    reference: FidelityReference
    total: float = 0.0
    count: int = 0

    def add(self, index: int, outputs: Mapping[str, Array]) -> None:
        """Count sample `index`."""
        self.total += self.reference.sample_loss(index, outputs)
        self.count += 1

    @property
    def loss(self) -> float:
        """Of at least one sample."""
        return max(self.total / self.count, 0.0)


@dataclass(frozen=True)
class Fidelity:
    """Agreement with the original's outputs as a metric: 1 − loss, without labels."""

    name: str = "fidelity"

    def observe(self, outputs: Mapping[str, Array], sample: Sample) -> Mapping[str, Array]:
        """All outputs count."""
        return outputs

    def judge(self, reference: Sequence[Mapping[str, Array]], samples: SampleSet) -> Judge:
        """See `actcc.accuracy.metric.Metric`."""
        known = FidelityReference(reference)
        return lambda observations: MeanScores(1.0 - np.array(known.sample_losses(observations)))


def _as_tensor(name: str, value: object) -> Array:
    """An output as one tensor: the parts of a sequence, or the values of a map, in a row."""
    if isinstance(value, np.ndarray | np.number):
        return np.asarray(value)
    if isinstance(value, Mapping):
        return np.asarray(list(value.values()))
    if isinstance(value, list):
        parts = [_as_tensor(name, part).ravel() for part in value]
        return np.concatenate(parts) if parts else np.zeros(0, np.float32)
    raise DataError(
        f"output '{name}' is a {type(value).__name__} and no tensor, which fidelity cannot "
        "compare; leave it out of the model"
    )


def feature_axis(shape: tuple[int, ...]) -> int | None:
    """The axis along which an output is taken apart; None where it is one feature."""
    if len(shape) < 3:
        return None
    inner = shape[1:]
    large = [size for size in inner if size > 1]
    single = [size for size in large if large.count(size) == 1]
    if not large:
        return None
    return 1 + inner.index(min(single or large))


def _scale(originals: Sequence[Array]) -> Array:
    """Energy that the noise of each feature is divided by, [F] or [1]."""
    ragged = len({original.shape for original in originals}) > 1
    by_position = not ragged and len(originals) >= _FEWEST_FOR_POSITIONS
    axis = None if ragged else feature_axis(originals[0].shape)
    mean = _mean(originals, by_position)
    signal: Array = np.zeros(1)
    about_zero = 0.0
    for original in originals:  # one at a time: outputs can be large and there are many
        counted, values = _finite(original)
        signal = signal + _energy(np.where(counted, values - mean, 0.0), axis)
        about_zero += float(_energy(values, None)[0])
    features = len(signal)
    signal = signal / len(originals)
    average = float(np.mean(signal))
    about_zero /= len(originals) * features
    if average <= _ROUNDING * about_zero:
        elements = np.mean([original.size for original in originals]) / features
        return np.full(features, max(about_zero, _SMALLEST_ENERGY * max(float(elements), 1.0)))
    floor = max(float(np.median(signal)), _SMALLEST_SHARE_OF_MEAN * average)
    floored: Array = np.maximum(signal, floor)
    return floored


def _mean(originals: Sequence[Array], by_position: bool) -> Array:
    """Mean over the samples at each position, or one over all elements; NaN left out."""
    total: Array = np.zeros(())
    seen: Array = np.zeros((), np.int64)
    for original in originals:
        counted, values = _finite(original)
        total = total + (values if by_position else values.sum())
        seen = seen + (counted if by_position else counted.sum())
    mean: Array = total / np.maximum(seen, 1)
    return mean


def _finite(original: Array) -> tuple[Array, Array]:
    """Which elements count, and the values in float64 with 0 for those that do not."""
    counted = np.isfinite(original)
    return counted, np.where(counted, original, 0.0).astype(np.float64)


def _energy(values: Array, axis: int | None) -> Array:
    """Sum of squares for each index along `axis`, or of all: [F] or [1], in float64."""
    if axis is None:
        flat = values.reshape(1, -1)
    else:
        flat = np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)
    energies: Array = np.einsum("fp,fp->f", flat, flat, dtype=np.float64)
    return energies


def _output_loss(original: Array, found: Array, scale: Array | None) -> float:
    if original.shape != found.shape:
        return 1.0
    if scale is None:
        return float(np.mean(original != found)) if original.size else 0.0
    counted = np.isfinite(original)
    if not np.isfinite(found[counted]).all():
        return LARGEST_LOSS
    difference = np.zeros(original.shape)
    np.subtract(found, original, out=difference, where=counted, dtype=np.float64)
    axis = feature_axis(original.shape) if len(scale) > 1 else None
    return min(float(np.mean(_energy(difference, axis) / scale)), LARGEST_LOSS)
