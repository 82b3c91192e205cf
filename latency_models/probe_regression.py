"""Latencies of graphs that were not measured, from those that were, with their uncertainty.

A Gaussian process over the logarithms of latency and features (Rasmussen and Williams, Gaussian
Processes for Machine Learning, 2006, §2.2). It gives the covariance of its predictions, so that
the difference of two candidates is far more certain than either of them alone. How much each
feature counts comes from gradient boosting, whose importances serve as inverse length scales: to
optimise one for each feature is as accurate and takes a hundred times as long.

Needs scikit-learn (extra `predict`).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from actcc.errors import TargetError
from actcc.graph import Array
from actcc.latency_models.probe_table import CALL, MODEL, ProbeRow, ProbeTable

CONFIDENCE_99 = 2.5758
_LEAST_ROWS = 20
_MOST_ROWS = 1_500  # the cost grows with the third power
_TREES = 200
_LEAST_IMPORTANCE = 1e-3
_SEED = 0

Features = Mapping[str, float]


@dataclass(frozen=True)
class Prediction:
    """Latencies that belong together.

    Attributes:
        latency_ns: without that of the call, [n].
        covariance: of them, ns², [n, n].
    """

    latency_ns: Array
    covariance: Array


def training_rows(table: ProbeTable) -> list[ProbeRow]:
    """The rows that a regression learns from: all that were measured but the call and networks."""
    return [row for row in table.measured.values() if row.role not in (CALL, MODEL)]


class LatencyRegression:
    """Predicts the latency of a graph from its features.

    Args:
        features: of the graphs that were measured.
        latency_ns: of the same, without that of the call, [n].

    Raises:
        TargetError: scikit-learn is not installed, or there are fewer than 20 graphs.
    """

    def __init__(self, features: Sequence[Features], latency_ns: Array) -> None:
        if len(features) < _LEAST_ROWS:
            raise TargetError(
                f"{len(features)} measured graphs are too few to predict others from; measure "
                f"at least {_LEAST_ROWS}, or set predict = false"
            )
        chosen = np.random.default_rng(_SEED).permutation(len(features))[:_MOST_ROWS]
        self._names = sorted({name for entry in features for name in entry})
        rows = _logarithms([features[index] for index in chosen], self._names)
        targets = np.log(np.asarray(latency_ns, dtype=float)[chosen])
        self._mean, deviation = rows.mean(axis=0), rows.std(axis=0)
        self._scale = np.where(deviation > 0, deviation, 1.0)
        scaled = (rows - self._mean) / self._scale
        self._relevance = _relevance(scaled, targets)
        self._process = _fitted_process(scaled * self._relevance, targets)

    @classmethod
    def of(cls, table: ProbeTable) -> LatencyRegression:
        """Learnt from all rows of a table."""
        rows = training_rows(table)
        return cls([row.features for row in rows], np.array([table.work_ns(row) for row in rows]))

    def unknown(self, features: Features) -> str:
        """A feature that no measured graph has; empty if all are known."""
        return next((name for name in sorted(features) if name not in self._names), "")

    def predict(self, features: Sequence[Features]) -> Prediction:
        """Latencies of graphs with their covariance, to first order in the logarithms'."""
        rows = (_logarithms(features, self._names) - self._mean) / self._scale
        logarithms, covariance = self._process.predict(rows * self._relevance, return_cov=True)
        latency = np.exp(logarithms)
        return Prediction(latency, covariance * np.outer(latency, latency))


def _logarithms(features: Sequence[Features], names: Sequence[str]) -> Array:
    return np.array([[math.log1p(entry.get(name, 0.0)) for name in names] for entry in features])


def boosted_trees() -> Any:
    """scikit-learn's `GradientBoostingRegressor`.

    Raises:
        TargetError: it is not installed.
    """
    try:
        from sklearn.ensemble import GradientBoostingRegressor
    except ImportError as error:
        raise TargetError(
            "to predict latencies needs scikit-learn; pip install 'actcc[predict]', or set "
            "predict = false"
        ) from error
    return GradientBoostingRegressor


def _relevance(rows: Array, targets: Array) -> Array:
    trees: Any = boosted_trees()(
        n_estimators=_TREES, max_depth=4, learning_rate=0.1, subsample=0.7, random_state=_SEED
    )
    importances = trees.fit(rows, targets).feature_importances_
    return np.asarray(3.0 * np.sqrt(importances + _LEAST_IMPORTANCE))


def _fitted_process(rows: Array, targets: Array) -> Any:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel

    smooth = ConstantKernel(1.0, (1e-3, 1e4)) * Matern(1.0, (1e-1, 1e3), nu=1.5)
    process = GaussianProcessRegressor(smooth + WhiteKernel(1e-2, (1e-6, 1.0)), normalize_y=True)
    with warnings.catch_warnings():  # a parameter at its bound is a fit like any other
        warnings.simplefilter("ignore", ConvergenceWarning)
        return process.fit(rows, targets)
