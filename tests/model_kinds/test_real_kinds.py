"""Real models of the kinds that break tools: control flow, NHWC, QDQ, half precision."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from every_rewrite import Immediately, every_rewrite_target

import actcc.targets
from actcc.budget import Budget
from actcc.calibration import load_samples
from actcc.graph import Graph
from actcc.graph.compare import compare
from actcc.normalize import normalize
from actcc.pipeline import optimize
from actcc.runtime import random_feeds, session

EXAMPLES = Path(__file__).parents[2] / "examples"
# Normalizing and estimating real networks takes ten seconds and more each.
pytestmark = pytest.mark.slow


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> actcc.targets.Target:
    """A target on which every rewrite pays."""
    monkeypatch.setattr(actcc.targets, "_BACKENDS", actcc.targets._BACKENDS)
    return every_rewrite_target()


SPEECH = {"input": (1, 512), "state": (2, 1, 128)}


@pytest.mark.shared
def test_control_flow_that_fails_on_random_values_waits_for_data(shared: Path) -> None:
    path = shared / "models" / "silero_vad.onnx"
    without = optimize(path, "cpu", input_shapes=SPEECH, executor=Immediately())
    assert without.status == "unchanged"
    assert "LSTM node" in without.reason
    assert without.reason.endswith("with --calib")
    random = np.random.default_rng(0)
    sound = [
        {
            "input": (0.1 * random.standard_normal((1, 512))).astype(np.float32),
            "state": np.zeros((2, 1, 128), np.float32),
            "sr": np.asarray(16000, np.int64),
        }
        for _ in range(4)
    ]
    samples = load_samples(sound, Graph.load(path, SPEECH))
    given = optimize(
        path, "cpu", input_shapes=SPEECH, calibration=samples, executor=Immediately(), max_trials=1
    )
    assert given.plan.latency is not None
    assert any("12 activations in its subgraphs" in r.reason for _, r in given.refusals)


@pytest.mark.shared
@pytest.mark.parametrize("name", ["mobilenet_v3_small", "ultraface_rfb_320"])
def test_all_exact_rewrites_of_a_real_network_keep_its_outputs(
    name: str, shared: Path, eager: actcc.targets.Target
) -> None:
    path = shared / "models" / f"{name}.onnx"
    result = optimize(path, eager, executor=Immediately(), max_trials=1)
    assert result.status == "optimized", result.reason
    assert compare(path, result.graph, [random_feeds(Graph.load(path), 1)]).agrees(1e-5)


@pytest.mark.shared
def test_a_quantized_network_is_left_with_the_reason(shared: Path) -> None:
    path = shared / "models" / "mobilenet_v2_qdq.onnx"
    result = optimize(path, "npu1", executor=Immediately())
    assert result.status == "unchanged"
    assert "no site with a candidate was found" in result.reason
    removed = "removed 35 Clip of values that QuantizeLinear cuts off"
    assert ("fold-clip-into-quantize", removed) in normalize(Graph.load(path)).notes


@pytest.mark.parametrize("keep_io_types", [False, True])
def test_a_half_precision_classifier_is_optimized_within_its_budget(
    keep_io_types: bool, tmp_path: Path
) -> None:
    float16 = pytest.importorskip("onnxruntime.transformers.float16")
    model = onnx.load(EXAMPLES / "fashion_mnist" / "fashion_mnist.onnx")
    half = float16.convert_float_to_float16(model, keep_io_types=keep_io_types)
    path = tmp_path / "half.onnx"
    onnx.save_model(half, path)
    (entry,) = Graph.load(path).inputs
    images = np.load(EXAMPLES / "fashion_mnist" / "calibration.npz")[entry.name][:16]
    samples = [{entry.name: image[None].astype(entry.dtype)} for image in images]
    result = optimize(
        path,
        "npu1",
        calibration=load_samples(samples, Graph.load(path)),
        budget=Budget.parse(max_drop="20%"),
        executor=Immediately(),
        max_trials=3,
    )
    assert result.status == "optimized", result.reason
    assert result.plan.latency is not None
    assert result.plan.latency.ratio < 0.95
    written = {value.name: value.type for value in session(path).get_outputs()}
    assert {value.name: value.type for value in session(result.graph).get_outputs()} == written
