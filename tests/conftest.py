"""Fixtures for all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared() -> Path:
    """The development folder with real models and labelled images."""
    named = os.environ.get("ACTCC_SHARED")
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / "shared"
    if not (folder / "models").is_dir():
        pytest.skip(f"needs real models: '{folder}' is absent; set ACTCC_SHARED to their folder")
    return folder
