"""Kendall's τ-b (Kendall 1945), and where it lies: percentile bootstrap over the plans."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from actcc.errors import ActccError
from actcc.graph import Array

_DRAWS = 400
CONFIDENCE = 0.9


@dataclass(frozen=True)
class Tau:
    """Agreement of two orders, −1 to 1, and where it lies with 90 % confidence."""

    value: float
    low: float
    high: float


def tau_of(losses: Sequence[float], metrics: Sequence[float], seed: int = 0) -> Tau | None:
    """τ-b between predicted losses, lower is better, and measured metrics, higher is better.

    None where it is undefined: all predictions, or all metrics, are equal.

    Raises:
        ActccError: scipy is not installed.
    """
    predicted, actual = -np.array(losses, float), np.array(metrics, float)
    value = kendall_tau(predicted, actual)
    if math.isnan(value):
        return None
    random = np.random.default_rng(seed)
    drawn = [random.integers(0, len(actual), len(actual)) for _ in range(_DRAWS)]
    resampled = [kendall_tau(predicted[indices], actual[indices]) for indices in drawn]
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.nanpercentile(resampled, [tail, 100 - tail])
    return Tau(value, float(low), float(high))


def kendall_tau(left: Array, right: Array) -> float:
    """scipy's τ-b; NaN where one side is constant or has fewer than two entries.

    Raises:
        ActccError: scipy is not installed.
    """
    try:
        from scipy.stats import kendalltau
    except ImportError as error:
        raise ActccError("ranking estimators needs scipy; pip install 'actcc[rank]'") from error
    if len(left) < 2:
        return math.nan
    # The p-value is not asked for; its exact form would take most of the time.
    return float(kendalltau(left, right, method="asymptotic").statistic)
