"""What a metric is: it observes one sample at a time and scores any selection of them.

    outputs ──observe──> observation ──judge──> scores ──value(indices)──> figure

`observe` runs in the worker processes and keeps of a sample only what counts: a class, a few boxes.
`judge` is given the original's observations once. `Scores.value` must be cheap, since the
confidence interval asks for it hundreds of times.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, SupportsFloat, TypeAlias

import numpy as np

from actcc.calibration import Sample, SampleSet
from actcc.calibration.user_code import load_function, one_line
from actcc.errors import ActccError, DataError
from actcc.graph import Array

MetricFunction: TypeAlias = Callable[[Sequence[Mapping[str, Array]], Sequence[Sample]], Any]
# A user's function may take long, and is called once for each draw of the bootstrap.
_DRAWS_OF_A_FUNCTION = 100
_DRAWS_OF_A_MEAN = 2000


class Scores(Protocol):
    """One model's figures on all samples.

    Attributes:
        draws: number of bootstrap draws that are affordable.
    """

    @property
    def draws(self) -> int: ...

    def __len__(self) -> int:
        """Number of samples."""

    def value(self, indices: Array) -> float:
        """The metric over the samples `indices` [n], which may repeat."""


Judge: TypeAlias = Callable[[Sequence[Any]], Scores]


class Metric(Protocol):
    """A figure of merit; higher is better. Picklable: workers observe."""

    @property
    def name(self) -> str:
        """For reports."""

    def observe(self, outputs: Mapping[str, Array], sample: Sample) -> Any:
        """What counts of one sample; small and picklable.

        Raises:
            DataError: the outputs or annotations are not what the metric needs.
        """

    def judge(self, reference: Sequence[Any], samples: SampleSet) -> Judge:
        """From observations of all samples, in order, to their scores.

        Args:
            reference: the original's observations.
        """


@dataclass(frozen=True, eq=False)
class MeanScores:
    """Scores of metrics that are a mean over samples.

    Attributes:
        of_samples: [S], the metric of each sample alone.
    """

    of_samples: Array
    draws: int = _DRAWS_OF_A_MEAN

    def __len__(self) -> int:
        return len(self.of_samples)

    def value(self, indices: Array) -> float:
        """See `Scores`."""
        return float(np.mean(self.of_samples[indices]))


@dataclass(frozen=True)
class FunctionMetric:
    """A metric of the user's own: `--metric file.py:function`.

    Attributes:
        name: for reports.
        function: takes the outputs of samples, by name, and the samples, both in the same order,
            and returns a finite number, or an array [S] with one for each sample, whose mean is
            the metric.
        specification: `file.py:function` where it was loaded from; other processes load it again.
    """

    name: str
    function: MetricFunction
    specification: str | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        if self.specification is not None:
            return load_function_metric, (self.specification,)
        return FunctionMetric, (self.name, self.function)

    def observe(self, outputs: Mapping[str, Array], sample: Sample) -> Mapping[str, Array]:
        """All outputs: what the function looks at is its own affair."""
        return outputs

    def judge(self, reference: Sequence[Any], samples: SampleSet) -> Judge:
        """See `Metric`; the reference is not looked at."""
        return lambda observations: self._scores(observations, samples)

    def _scores(self, outputs: Sequence[Mapping[str, Array]], samples: SampleSet) -> Scores:
        known = list(samples)  # draws repeat them
        whole = self.call(outputs, known)
        if isinstance(whole, float):
            return _FunctionScores(self, outputs, known)
        return MeanScores(whole)

    def call(
        self, outputs: Sequence[Mapping[str, Array]], samples: Sequence[Sample]
    ) -> float | Array:
        """The metric, or the metric of each sample [S].

        Raises:
            DataError: the function raises, or returns something else than finite numbers.
        """
        subject = f"metric {self.specification or self.name}"
        try:
            value = self.function(outputs, samples)
        except ActccError:
            raise
        except Exception as error:  # whatever the user's function raises
            raise DataError(
                f"{subject} raised {one_line(error)}; it is given outputs and samples"
            ) from error
        return _checked(subject, value, len(samples))


@dataclass(frozen=True, eq=False)
class _FunctionScores:
    """A function that must be called again for every selection."""

    metric: FunctionMetric
    outputs: Sequence[Mapping[str, Array]]
    samples: Sequence[Sample]
    draws: int = _DRAWS_OF_A_FUNCTION

    def __len__(self) -> int:
        return len(self.outputs)

    def value(self, indices: Array) -> float:
        outputs = [self.outputs[index] for index in indices]
        return float(self.metric.call(outputs, [self.samples[index] for index in indices]))


def _checked(subject: str, value: object, count: int) -> float | Array:
    values: Array = np.asarray(value) if isinstance(value, np.ndarray) else np.zeros(())
    if values.ndim:
        if values.shape != (count,) or values.dtype.kind not in "biuf":
            raise DataError(
                f"{subject} returned an array {values.dtype} {list(values.shape)}; it must return "
                f"one number, or [{count}], one for each sample"
            )
        if not np.isfinite(values).all():
            raise DataError(f"{subject} returned NaN or infinity; all must be finite")
        return values.astype(np.float64)
    try:
        if not isinstance(value, SupportsFloat) or isinstance(value, str):
            raise TypeError
        number = float(value)
    except (TypeError, ValueError) as error:
        raise DataError(
            f"{subject} returned a {type(value).__name__}; it must return one number"
        ) from error
    if not math.isfinite(number):
        raise DataError(
            f"{subject} returned {number}; it must return a finite number, higher is better"
        )
    return number


def load_function_metric(specification: str) -> FunctionMetric:
    """The metric that `file.py:function` names; the function takes (outputs, samples).

    Raises:
        DataError: no such file or function, the file raises, or other parameters.
    """
    function = load_function(specification, "metric", ("outputs", "samples"))
    return FunctionMetric(specification.rpartition(":")[2], function, specification)
