"""Results to report on: plans written by hand for small networks, with every kind of choice."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import onnx
import pytest
from networks import residual_network

from actcc.activations import find_activations
from actcc.graph import Graph, content_hash
from actcc.plan import FORMAT, AccuracyFigures, CandidateFigures, LatencyFigures, Plan, SitePlan
from actcc.result import Result, TrialFigures
from actcc.site import Refusal


def plan_for(graph: Graph, choices: tuple[str, ...] = ("HardSwish", "keep", "Relu")) -> Plan:
    """A plan that takes the choices in turn, with a price and a loss for every candidate."""
    random = np.random.default_rng(0)
    sites = []
    for index, match in enumerate(find_activations(graph)):
        chosen = choices[index % len(choices)]
        candidates = tuple(
            CandidateFigures(
                name,
                name == "Silu as Swish",
                -1000.0 * float(random.integers(1, 90)),
                250.0,
                0.0 if name == "Silu as Swish" else float(random.uniform(0, 0.02)),
                ""
                if name == chosen
                else "saves 6.3 µs for 5.28 % of the fidelity: spent better elsewhere",
            )
            for name in ("Silu as Swish", "HardSwish", "HardSwish as Clip+Mul", "Gelu", "Relu")
        )
        identity = f"swap-activation:{match.writes.name}"
        sites.append(
            SitePlan(
                identity,
                "swap-activation",
                "Silu",
                "Sigmoid+Mul",
                tuple(node.name for node in match.nodes),
                chosen,
                candidates,
            )
        )
    return Plan(
        format=FORMAT,
        model_name="network.onnx",
        model_hash=content_hash(graph),
        model_parts={},
        result_hash=content_hash(graph),
        input_shapes={},
        skip=(),
        target="npu1",
        tool="actcc analytic npu1",
        seed=0,
        versions={"actcc": "0.1.0"},
        settings={"objective": "latency", "max_drop": "1 %"},
        normalized=(("fold-constants", "2 nodes"),),
        sites=tuple(sites),
        predicted_latency_ns=1_770_000.0,
        predicted_loss=0.012,
        latency=LatencyFigures(2_032_000.0, 1_770_000.0, 0.871, 0.004, "measured"),
        accuracy=AccuracyFigures("top1", 0.923, 0.917, 0.00923, 1000, 0.8, 0.002, 0.0091),
        peak_bytes=(150_000, 112_000),
        max_relative_difference=0.02,
    )


def result_for(model: onnx.ModelProto) -> Result:
    """An optimized result with a plan that holds, one that does not, and refusals."""
    graph = Graph.load(model)
    plan = plan_for(graph)
    changed = sum(site.chosen != "keep" for site in plan.sites)
    trials = (
        TrialFigures(changed, 1_770_000.0, 0.012, plan.latency, plan.accuracy, ()),
        TrialFigures(
            changed + 1,
            1_500_000.0,
            0.04,
            LatencyFigures(2_032_000.0, 1_490_000.0, 0.733, 0.004, "measured"),
            AccuracyFigures("top1", 0.923, 0.523, 0.00923, 1000, 0.8, 0.39, 0.41),
            ("top1 drops by 0.4, allowed 0.00923",),
        ),
    )
    refusals = tuple(
        ("swap-activation", Refusal(f"{site.id} → Swish", "needs opset 24, the model has 17"))
        for site in plan.sites
    )
    seconds = {"Normalizing": 0.2, "Solving and verifying": 4.0}
    return Result(
        "optimized", "best of 2 verified plans", plan, graph, None, trials, refusals, seconds, 0
    )


@pytest.fixture(scope="session")
def original() -> Graph:
    """A small network with two inverted residuals and a parallel branch."""
    return Graph.load(residual_network())


@pytest.fixture(scope="session")
def result() -> Result:
    """An optimized result of that network."""
    return result_for(residual_network())


@pytest.fixture(scope="session")
def unchanged(result: Result) -> Result:
    """The original kept, without data, plans or sites."""
    plan = replace(
        result.plan,
        sites=(),
        accuracy=None,
        latency=LatencyFigures(2e6, 2e6, 1.0, 0.0, "estimated"),
        predicted_latency_ns=2e6,
        max_relative_difference=0.0,
        peak_bytes=(None, None),
    )
    reason = "no site with a candidate was found"
    return replace(result, status="unchanged", reason=reason, plan=plan, trials=(), refusals=())
