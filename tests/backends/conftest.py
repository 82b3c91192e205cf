"""What the tests of measured backends share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from actcc.backends.measure import Measurement
from actcc.backends.measured import MeasuredBackend


@pytest.fixture
def recorded_measurements(
    monkeypatch: pytest.MonkeyPatch,
) -> Callable[[MeasuredBackend], list[Measurement]]:
    """A list that is filled with whatever the backend measures from now on."""

    def record(backend: MeasuredBackend) -> list[Measurement]:
        measured: list[Measurement] = []
        measure = backend.measure

        def recording(*arguments: Any) -> list[Measurement]:
            found = measure(*arguments)
            measured.extend(found)
            return found

        monkeypatch.setattr(backend, "measure", recording)
        return measured

    return record
