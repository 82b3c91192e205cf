"""Real detectors and classifiers from end to end: what is promised holds for what is written."""

from dataclasses import dataclass
from pathlib import Path

import pytest

from actcc.graph import Graph
from actcc.graph.compare import compare, rounding_tolerance
from actcc.pipeline import optimize
from actcc.result import Result
from actcc.runtime import random_feeds, run, session

pytestmark = pytest.mark.shared


@dataclass(frozen=True)
class Network:
    """A model with its calibration images."""

    file: str
    images: str
    preprocessing: str


YOLOX = Network("yolox_nano_416.onnx", "coco/calibration", "yolox")
MOBILENET = Network("mobilenet_v3_small.onnx", "imagenet/calibration", "imagenet-raw")


def run_on(network: Network, target: str, shared: Path, output: Path, **named: object) -> Result:
    return optimize(
        shared / "models" / network.file,
        target,
        output=output,
        calibration=shared / "data" / network.images,
        preprocessing=network.preprocessing,
        **named,  # type: ignore[arg-type]
    )


def assert_kept(result: Result, output: Path) -> None:
    graph = Graph.load(output)
    assert len(run(session(output), random_feeds(graph, 0))) == len(graph.outputs)
    figures = result.plan.accuracy
    assert figures is not None
    assert figures.drop <= figures.allowed_drop
    assert result.plan.latency.ratio <= 1.0


# Two thirds of the candidates, which take as much of the time; they have networks of their own.
_MANY = ("narrow-blocks", "factorize-layers", "collapse-convolutions")


def test_mobilenet_keeps_its_budget_on_an_npu(shared: Path, tmp_path: Path) -> None:
    output = tmp_path / "fast.onnx"
    few = {"samples": 8, "preset": "quick", "skip": _MANY}
    assert_kept(run_on(MOBILENET, "npu1", shared, output, **few), output)


@pytest.mark.slow  # three minutes: prices are measured, and 110 sites estimated, twice
@pytest.mark.parametrize("network", [YOLOX, MOBILENET], ids=lambda network: network.file)
def test_each_target_gets_a_plan_of_its_own(network: Network, shared: Path, tmp_path: Path) -> None:
    plans = {}
    for target in ("cpu", "npu1", "npu2"):
        output = tmp_path / f"{target}.onnx"
        result = run_on(network, target, shared, output)
        assert_kept(result, output)
        plans[target] = result.plan.chosen
    assert plans["cpu"] != plans["npu1"]


@pytest.mark.parametrize(
    "file", ["yolox_nano_416.onnx", "mobilenet_v3_small.onnx", "mobilenet_v2_qdq.onnx"]
)
def test_without_data_outputs_agree(file: str, shared: Path) -> None:
    model = shared / "models" / file
    result = optimize(model, "npu1")
    original = Graph.load(model)
    for site in result.plan.sites:
        assert all(c.exact for c in site.candidates if c.name == site.chosen)
    feeds = [random_feeds(original, seed) for seed in range(2)]
    plain, fused = ([run(session(original, optimise=o), f) for f in feeds] for o in (False, True))
    tolerance = max(1e-5, rounding_tolerance(plain, fused))
    assert compare(original, result.graph, feeds).worst_relative <= tolerance
