"""A plan is JSON that reads back equal, and anything else is refused."""

import pytest

from actcc.errors import PlanError
from actcc.plan import (
    FORMAT,
    AccuracyFigures,
    CandidateFigures,
    LatencyFigures,
    Plan,
    SitePlan,
)

PLAN = Plan(
    format=FORMAT,
    model_name="network.onnx",
    model_hash="0" * 64,
    model_parts={"node conv": "Conv 12ab"},
    result_hash="1" * 64,
    input_shapes={"x": (1, 3)},
    skip=("simplify",),
    target="npu1",
    tool="actcc analytic",
    seed=0,
    versions={"onnx": "1.23"},
    settings={"objective": "latency"},
    normalized=(("simplify", "12 nodes fewer"),),
    sites=(
        SitePlan(
            "swap-activation:y",
            "swap-activation",
            "Silu",
            "Sigmoid+Mul",
            ("sigmoid", "mul"),
            "Relu",
            (
                CandidateFigures("Relu", False, -1200.0, 0.0, 0.002),
                CandidateFigures("Swish", True, None, None, 0.0, "needs opset 24"),
            ),
        ),
    ),
    predicted_latency_ns=9e6,
    predicted_loss=0.002,
    latency=LatencyFigures(1e7, 9e6, 0.9, 0.0, "estimated"),
    accuracy=AccuracyFigures("fidelity", 1.0, 0.995, 0.01, 16, 0.8, 0.004, 0.006),
    peak_bytes=(1000, 900),
    max_relative_difference=0.01,
    dram_bytes=(5000, 4000),
)


def test_a_plan_reads_back_equal() -> None:
    assert Plan.from_json(PLAN.to_json()) == PLAN


def test_a_plan_tells_what_was_chosen() -> None:
    assert PLAN.chosen == {"swap-activation:y": "Relu"}
    assert PLAN.accuracy is not None
    assert PLAN.accuracy.drop == pytest.approx(0.005)


@pytest.mark.parametrize("text", ["", "{}", "[]", "not json", '{"format": "x"}'])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(PlanError, match="not a plan"):
        Plan.from_json(text)


def test_another_format_is_refused() -> None:
    text = PLAN.to_json().replace(f'"format": {FORMAT}', '"format": 99', 1)
    with pytest.raises(PlanError, match="plan format 99"):
        Plan.from_json(text)
