"""Fixtures for models of many kinds."""

from __future__ import annotations

import pytest
from every_rewrite import simplify_in_this_process

from actcc.passes import simplify


@pytest.fixture(autouse=True)
def _simplify_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """Starting a process for onnx-simplifier takes longer than all the rest of a small run."""
    monkeypatch.setattr(simplify, "subprocess", simplify.subprocess)
    simplify_in_this_process()
