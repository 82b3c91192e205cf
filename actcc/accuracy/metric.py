"""Metrics of the user's own: `--metric file.py:function`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, SupportsFloat, TypeAlias

from actcc.calibration import Sample
from actcc.calibration.user_code import load_function, one_line
from actcc.errors import ActccError, DataError
from actcc.graph import Array

MetricFunction: TypeAlias = Callable[[Sequence[Mapping[str, Array]], Sequence[Sample]], Any]


@dataclass(frozen=True)
class Metric:
    """A figure of merit; higher is better.

    Attributes:
        name: for reports.
        function: takes the outputs of all samples, by name, and the samples, both in the same
            order, and returns a finite number.
        specification: `file.py:function` where it was loaded from; other processes load it again.
    """

    name: str
    function: MetricFunction
    specification: str | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        if self.specification is not None:
            return load_metric, (self.specification,)
        return Metric, (self.name, self.function)

    def evaluate(self, outputs: Sequence[Mapping[str, Array]], samples: Sequence[Sample]) -> float:
        """The metric of a model's outputs.

        Raises:
            DataError: the function raises, or returns something else than a finite number.
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


def load_metric(specification: str) -> Metric:
    """The metric that `file.py:function` names; the function takes (outputs, samples).

    Raises:
        DataError: no such file or function, the file raises, or other parameters.
    """
    function = load_function(specification, "metric", ("outputs", "samples"))
    return Metric(specification.rpartition(":")[2], function, specification)
