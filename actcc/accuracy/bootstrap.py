"""Confidence intervals by resampling the samples (Efron & Tibshirani 1993, chapters 13 and 14).

The drop between two models is resampled in pairs: both are scored on the same draw, so that what
makes a draw hard for both cancels (as in Koehn 2004 for translation).

Percentiles are corrected for bias (section 14.3, BC): a draw lacks a third of the images and with
them whole classes, so that draws of a mean average precision centre below the drop itself. Where no
draw lies on one side of the measured drop there is nothing to correct by, and percentiles are
reflected about it instead (basic interval, section 13.4).

Where no sample differs, draws know of no loss at all. For a share of samples the bound is then the
largest rate of losses that n samples miss with probability 1 − confidence,
1 − (1 − confidence)^(1/n) (Clopper & Pearson 1934, for no events).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from actcc.accuracy.metric import Scores
from actcc.errors import DataError
from actcc.graph import Array


@dataclass(frozen=True)
class Interval:
    """Where a figure lies with some confidence."""

    low: float
    high: float


def drop_interval(original: Scores, result: Scores, confidence: float, seed: int) -> Interval:
    """Where the drop from `original` to `result` lies over all such data.

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
    every = np.arange(count)
    measured = original.value(every) - result.value(every)
    low, high = _percentiles(np.array(defined), measured, confidence)
    if not any(defined):
        high = 1 - (1 - confidence) ** (1 / count)
    return Interval(min(low, measured), max(high, measured))


def _percentiles(drops: Array, measured: float, confidence: float) -> tuple[float, float]:
    """Bias-corrected percentiles: as far from the middle of the draws as the measured drop is."""
    normal = NormalDist()
    below = float(np.mean(drops < measured) + np.mean(drops == measured) / 2)
    if not 0 < below < 1:
        low, high = np.quantile(drops, [1 - confidence, confidence])
        return 2 * measured - float(high), 2 * measured - float(low)
    shift = 2 * normal.inv_cdf(below)
    reach = normal.inv_cdf(confidence)
    low, high = np.quantile(drops, [normal.cdf(shift - reach), normal.cdf(shift + reach)])
    return float(low), float(high)
