"""No task starts after its deadline; what was not estimated by then is not offered."""

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from networks import images, residual_network

from actcc import evidence
from actcc.pipeline import optimize
from actcc.progress import PRICING
from actcc.repair import RepairMethod
from actcc.tasks import map_tasks


def pause(seconds: float) -> float:
    time.sleep(seconds)
    return seconds


def test_tasks_that_did_not_start_by_the_deadline_have_no_result() -> None:
    with ThreadPoolExecutor(1) as executor:
        started = time.monotonic()
        found = map_tasks(
            executor,
            pause,
            [0.05] * 40,
            lambda: None,
            concurrency=1,
            deadline=started + 0.2,
        )
    assert 1 <= len(found) < 40
    assert time.monotonic() - started < 1.9  # all of them take 2 s


def test_a_deadline_that_has_passed_starts_nothing() -> None:
    with ThreadPoolExecutor(1) as executor:
        assert map_tasks(executor, pause, [0.1], lambda: None, deadline=time.monotonic()) == []


@pytest.mark.usefixtures("simplify_here")
def test_candidates_without_an_estimate_name_the_time_limit(tmp_path: Path) -> None:
    onnx.save_model(residual_network(), tmp_path / "network.onnx")
    np.savez(tmp_path / "calib.npz", images=images(8))
    with ThreadPoolExecutor(1) as executor:
        result = optimize(
            tmp_path / "network.onnx",
            "npu1",
            calibration=tmp_path / "calib.npz",
            time_limit_s=1e-9,
            executor=executor,
        )
    reasons = [c.reason for s in result.plan.sites for c in s.candidates if not c.exact]
    assert any("the time limit came first; raise --time-limit" in reason for reason in reasons)


def test_prices_come_on_top_of_the_time_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pricing that takes far longer than the limit leaves as much time as it found."""
    price = evidence.price_sites

    def slow(*arguments: Any, **options: Any) -> Any:
        prices = price(*arguments, **options)
        timed = arguments[5]
        timed.seconds[PRICING] += 1000.0
        return prices

    monkeypatch.setattr(evidence, "price_sites", slow)
    np.savez(tmp_path / "calib.npz", images=images(8))
    with ThreadPoolExecutor(1) as executor:
        result = optimize(
            residual_network(),
            "npu1",
            calibration=tmp_path / "calib.npz",
            time_limit_s=1e-9,
            max_trials=1,
            executor=executor,
            repair=RepairMethod("none"),
        )
    reasons = [c.reason for s in result.plan.sites for c in s.candidates if not c.exact]
    assert not any("the time limit came first" in reason for reason in reasons)
