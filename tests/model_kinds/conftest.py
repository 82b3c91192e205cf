"""Fixtures for models of many kinds."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def _simplify_here(simplify_here: None) -> None:
    """For every model of this folder."""
