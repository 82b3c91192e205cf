"""One front of a small network, shared by the tests that only look at it."""

from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import pytest
from networks import images, residual_network

from actcc.budget import Amount
from actcc.front import Front
from actcc.pareto import pareto_front

# The simplifier starts a process of its own, which takes seconds and finds nothing here.
SKIPPED = ("simplify",)
DROPS = tuple(Amount(share, True) for share in (0.3, 0.02, 0.1))


@pytest.fixture(scope="session")
def in_process() -> Iterator[Executor]:
    """One thread of this process, which is there at once."""
    with ThreadPoolExecutor(1) as executor:
        yield executor


@pytest.fixture(scope="session")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network's file with `calib.npz` beside it."""
    folder = tmp_path_factory.mktemp("network")
    onnx.save_model(residual_network(), folder / "network.onnx")
    np.savez(folder / "calib.npz", images=images(20))
    return folder / "network.onnx"


@pytest.fixture(scope="session")
def written(network: Path) -> Path:
    """The folder that the front is written to."""
    return network.parent / "front"


@pytest.fixture(scope="session")
def front(network: Path, written: Path, in_process: Executor) -> Front:
    """The front of the network on npu1."""
    return pareto_front(
        network,
        "npu1",
        drops=DROPS,
        calibration=network.parent / "calib.npz",
        output=written,
        skip=SKIPPED,
        max_trials=6,
        executor=in_process,
    )
