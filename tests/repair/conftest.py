"""Fixtures for repairs."""

import network_pairs
import numpy as np
import pytest


@pytest.fixture(autouse=True)
def _drawn_anew(monkeypatch):
    """Each test draws the same numbers, whichever run before it."""
    monkeypatch.setattr(network_pairs, "RANDOM", np.random.default_rng(0))
