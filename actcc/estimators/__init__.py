"""Estimators: what each candidate loses, before a rewritten network is measured."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from actcc.estimators.changes import ChangesEstimator
from actcc.estimators.estimator import Estimator, NetworkLoss, Subject
from actcc.estimators.fidelity import FidelityEstimator
from actcc.estimators.macs import MacsEstimator
from actcc.estimators.nn_mass import NnMassEstimator
from actcc.estimators.noise import NoiseEstimator
from actcc.estimators.nwot import NwotEstimator
from actcc.estimators.zen import ZenEstimator

ESTIMATORS: Mapping[str, Estimator] = MappingProxyType(
    {
        estimator.name: estimator
        for estimator in (
            FidelityEstimator(),
            NoiseEstimator(),
            NwotEstimator("nwot", "calibration data"),
            NwotEstimator("nwot-noise", "nothing"),
            ZenEstimator(),
            NnMassEstimator(),
            MacsEstimator(),
            ChangesEstimator(),
        )
    }
)
"""Those that need no measured plans, by name."""

LEARNED = "bayesian-ridge"
"""The one that is learned from measured plans; see `actcc.estimators.bayesian_ridge`."""

__all__ = ["ESTIMATORS", "LEARNED", "Estimator", "NetworkLoss", "Subject"]
