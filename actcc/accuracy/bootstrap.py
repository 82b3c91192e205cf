"""Confidence intervals by resampling the samples (Efron & Tibshirani 1993, chapter 13).

The drop between two models is resampled in pairs: both are scored on the same draw, so that what
makes a draw hard for both cancels (as in Koehn 2004 for translation).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from actcc.accuracy.metric import Scores
from actcc.errors import DataError


@dataclass(frozen=True)
class Interval:
    """Where a figure lies with some confidence."""

    low: float
    high: float


def drop_interval(original: Scores, result: Scores, confidence: float, seed: int) -> Interval:
    """Where the drop from `original` to `result` lies over all such data (percentile interval).

    Args:
        confidence: that the drop is at most `high`; one-sided, and so is `low`.

    Raises:
        DataError: fewer than two samples, which say nothing of their spread, or the two have been
            scored on different samples.
    """
    count = len(original)
    if count < 2 or len(result) != count:
        raise DataError(f"{count} and {len(result)} samples give no interval; give at least 2")
    generator = np.random.default_rng(seed)
    drops = []
    for _ in range(min(original.draws, result.draws)):
        drawn = generator.integers(0, count, count)
        drops.append(original.value(drawn) - result.value(drawn))
    defined = [drop for drop in drops if math.isfinite(drop)]
    if not defined:
        raise DataError("the metric is not defined on resampled data; give more samples")
    low, high = np.percentile(defined, [100 * (1 - confidence), 100 * confidence])
    return Interval(float(low), float(high))
