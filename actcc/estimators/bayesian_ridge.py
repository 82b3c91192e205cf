"""`bayesian-ridge`: learns from measured plans what a change costs (MacKay 1992; Tipping 2001).

    rank of a plan's metric  ≈  w₀ − Σ over its changes  (v + w[kind, function, depth]) · √loss

A change is described by the kind of its site, the function that takes its place, and the third of
the network's depth in which it lies; `loss` is what a cheaper estimator says of it alone, at most
1. The weights say by how much that is wrong for changes of one description. The sum makes the model
additive, so that it gives the solver a loss for each change. The metric is replaced by its rank
among the measured plans, 0 to 1: a wrecked network is the last, not infinitely far away. The
regression is scikit-learn's `BayesianRidge` (extra `rank`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from actcc.accuracy.estimate import Key, LossTable
from actcc.errors import ActccError
from actcc.estimators.estimator import as_losses
from actcc.graph import Array
from actcc.site import OfferedSite

_DEPTHS = 3
_FOLDS = 5
# A site that loses more than everything alone says no more than one that loses everything.
_LARGEST_SINGLE_LOSS = 1.0


@dataclass(frozen=True)
class Features:
    """Describes changes by numbers that add up over a plan.

    Attributes:
        single: losses of the changes alone, by a cheaper estimator; unknown ones count as 1.
        places: kind and third of the depth, by site id.
        columns: index of each (kind, function, third) that was met; 0 is for all of them.
    """

    single: Mapping[Key, float]
    places: Mapping[str, tuple[str, int]]
    columns: Mapping[tuple[str, str, int], int]

    @classmethod
    def of(cls, sites: Sequence[OfferedSite], single: Mapping[Key, float]) -> Features:
        """Features for all approximate candidates of the sites, which are in topological order."""
        places = {
            site.id: (site.site.kind, _DEPTHS * index // len(sites))
            for index, site in enumerate(sites)
        }
        columns: dict[tuple[str, str, int], int] = {}
        for site in sites:
            kind, depth = places[site.id]
            for candidate in site.candidates:
                if not candidate.exact:
                    columns.setdefault((kind, candidate.computes, depth), 1 + len(columns))
        return cls(single, places, columns)

    def of_changes(self, changes: Sequence[Key]) -> Array:
        """[1 + columns]: the sum over the changes."""
        row = np.zeros(1 + len(self.columns))
        for site, function in changes:
            kind, depth = self.places[site]
            loss = min(self.single.get((site, function), 1.0), _LARGEST_SINGLE_LOSS)
            row[[0, self.columns[kind, function, depth]]] += math.sqrt(loss)
        return row


@dataclass(frozen=True)
class PlanRegression:
    """What measured plans say about changes.

    Attributes:
        plans: the changes of each measured plan.
        metrics: higher is better, in the order of the plans.
    """

    features: Features
    plans: Sequence[Sequence[Key]]
    metrics: Sequence[float]

    def table(self) -> LossTable:
        """A loss for every change that has features, from all measured plans.

        Raises:
            ActccError: scikit-learn is not installed.
        """
        model = self._fitted(np.arange(len(self.plans)))
        drops = {
            (site, function): -float(model.coef_ @ self.features.of_changes([(site, function)]))
            for site, (kind, depth) in self.features.places.items()
            for known_kind, function, known_depth in self.features.columns
            if (known_kind, known_depth) == (kind, depth)
        }
        return as_losses(drops)

    def held_out_losses(self) -> list[float]:
        """Predicted loss of each plan, by a model that has not seen it (five folds)."""
        count = len(self.plans)
        predicted: Array = np.zeros(count)
        for fold in range(min(_FOLDS, count)):
            held = np.arange(count) % _FOLDS == fold
            model = self._fitted(np.flatnonzero(~held))
            predicted[held] = -model.predict(self._rows(np.flatnonzero(held)))
        return [float(value) for value in predicted]

    def _fitted(self, indices: Array) -> Any:
        ridge = _bayesian_ridge()
        metrics = np.array(self.metrics)
        order = np.searchsorted(np.sort(metrics), metrics) / max(len(metrics) - 1, 1)
        ridge.fit(self._rows(indices), order[indices])
        return ridge

    def _rows(self, indices: Array) -> Array:
        return np.array([self.features.of_changes(self.plans[index]) for index in indices])


def _bayesian_ridge() -> Any:
    """scikit-learn's regression.

    Raises:
        ActccError: it is not installed.
    """
    try:
        from sklearn.linear_model import BayesianRidge
    except ImportError as error:
        raise ActccError(
            "estimator 'bayesian-ridge' needs scikit-learn; pip install 'actcc[rank]'"
        ) from error
    return BayesianRidge()
