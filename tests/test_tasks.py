"""Worker processes, and what is left of them."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import pytest

from actcc.tasks import process_pool


def _hold_a_folder(started: Path) -> None:
    with tempfile.TemporaryDirectory(prefix="held-") as folder:
        started.write_text(folder)
        time.sleep(60)


def test_temporary_files_of_workers_that_are_killed_are_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started, temporary = tmp_path / "started", tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    with pytest.raises(KeyboardInterrupt):
        _interrupt(started)
    assert Path(started.read_text()).parent.parent == temporary
    assert list(temporary.iterdir()) == []


def _interrupt(started: Path) -> None:
    with process_pool(1) as pool:
        pool.submit(_hold_a_folder, started)
        while not started.exists() or not started.read_text():
            time.sleep(0.01)
        raise KeyboardInterrupt
