"""`--objective size` and `--max-size`: the written file is small, and neither slow nor wrong."""

from __future__ import annotations

from pathlib import Path

import pytest
from every_rewrite import Immediately

from actcc.apply import apply_plan
from actcc.budget import Budget, parse_drop
from actcc.errors import InfeasibleError
from actcc.graph.size import file_bytes
from actcc.pareto import pareto_front
from actcc.pipeline import optimize as run_pipeline
from actcc.plan import Plan
from actcc.repair import RepairMethod
from actcc.result import Result

pytestmark = pytest.mark.usefixtures("simplify_here")


def optimize(model: Path, budget: Budget, **named: object) -> Result:
    """In this process and without a repair, on a target that measures nothing."""
    plain = {
        "executor": Immediately(),
        "repair": RepairMethod("none"),
        "calibration": model.parent / "calib.npz",
        "output": model.parent / "small.onnx",
        "budget": budget,
        "max_trials": 1,
    }
    return run_pipeline(model, "npu1", **{**plain, **named})  # type: ignore[arg-type]


def test_a_size_budget_is_kept_by_the_written_file(model: Path) -> None:
    result = optimize(model, Budget.parse(max_drop="10%", max_size="70%"))
    before, after = result.plan.size_bytes
    assert result.status == "optimized"
    assert before == model.stat().st_size
    assert after == file_bytes(model.parent / "small.onnx") <= 0.7 * before
    assert result.plan.latency.ratio <= 1.0
    assert Plan.load(model.parent / "small.onnx.plan.json") == result.plan


def test_the_smallest_file_is_small_and_never_slower(model: Path) -> None:
    """On a target where compressed weights cost nothing, and others are not worth it."""
    result = optimize(model, Budget.parse(max_drop="5%", objective="size"))
    before, after = result.plan.size_bytes
    assert after < 0.6 * before
    assert result.plan.latency.ratio <= 1.0
    assert result.plan.accuracy.bound <= 0.05 + 1e-9
    assert {"int8", "float16"} & set(result.plan.chosen.values())


def test_a_plan_for_size_is_applied_again_bit_for_bit(model: Path) -> None:
    optimize(model, Budget.parse(max_drop="5%", objective="size"), skip=["narrow-blocks"])
    again = model.parent / "again.onnx"
    small = model.parent / "small.onnx"
    apply_plan(model, f"{small}.plan.json", again, calibration=model.parent / "calib.npz")
    assert again.read_bytes() == small.read_bytes()


def test_a_size_out_of_reach_names_the_nearest(model: Path) -> None:
    with pytest.raises(InfeasibleError, match="size") as caught:
        optimize(model, Budget.parse(max_drop="10%", max_size="2%"))
    assert 0 < caught.value.nearest["max_size_bytes"] < model.stat().st_size


def test_without_a_size_budget_weights_stay_as_they_are(model: Path) -> None:
    result = optimize(model, Budget.parse(max_drop="10%"))
    assert not {"int8", "float16"} & set(result.plan.chosen.values())
    assert all(c.size_bytes is None for site in result.plan.sites for c in site.candidates)


def test_every_point_of_a_front_keeps_the_size(model: Path) -> None:
    front = pareto_front(
        model,
        "npu1",
        drops=[parse_drop("10%")],
        budget=Budget.parse(max_size="60%"),
        calibration=model.parent / "calib.npz",
        max_trials=1,
        executor=Immediately(),
    )
    original, *points = front.rows
    assert original.size_bytes == model.stat().st_size
    assert points
    assert all(point.size_bytes <= 0.6 * original.size_bytes for point in points)
