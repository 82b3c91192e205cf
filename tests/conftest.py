"""Fixtures for all tests, and how many processes run them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from networks import residual_network, saved_with_images

# Each process has a core to itself; libraries read these when they are loaded.
if "PYTEST_XDIST_WORKER" in os.environ:
    for library in ("OMP", "OPENBLAS", "MKL"):
        os.environ.setdefault(f"{library}_NUM_THREADS", "1")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers(config: pytest.Config) -> int | None:
    """No process but this one where files or names are picked; None leaves it to pytest-xdist."""
    if os.environ.get("PYTEST_XDIST_AUTO_NUM_WORKERS"):
        return None
    files = [".py" in argument for argument in config.args]
    return 0 if config.option.keyword or (files and all(files)) else None


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Prices and journals of a process's own: others may run the same model at the same time."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ACTCC_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture
def simplify_here(monkeypatch: pytest.MonkeyPatch) -> None:
    """onnx-simplifier in this process: to start its own takes longer than the rest of a small run.

    `tests/passes/test_simplify.py` and `tests/test_end_to_end.py` start it as users do.
    """
    from every_rewrite import simplify_in_this_process

    from actcc.passes import simplify

    monkeypatch.setattr(simplify, "subprocess", simplify.subprocess)
    simplify_in_this_process()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The development folder with real models and labelled images."""
    named = os.environ.get("ACTCC_SHARED")
    folder = Path(named) if named else Path(__file__).resolve().parents[2] / "shared"
    if not (folder / "models").is_dir():
        pytest.skip(f"needs real models: '{folder}' is absent; set ACTCC_SHARED to their folder")
    return folder


@pytest.fixture
def unrepaired(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs in this process do not repair unless told to: it is most of a run of a small network."""
    from actcc.repair import RepairMethod

    monkeypatch.setattr("actcc.job.RepairMethod", lambda: RepairMethod("none"))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A small residual network, with images for it in `calib.npz` beside it."""
    return saved_with_images(residual_network(), tmp_path)
