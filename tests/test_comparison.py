"""`compare_models()`: outputs, latency, size and operators of two files."""

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from networks import images, residual_network

from actcc.comparison import compare_models
from actcc.errors import DataError, ModelError

TWICE = """
<ir_version: 8, opset_import: ["" : 17]>
network (float[1, 3] x) => (float[1, 3] y) { y = %s(x) }
"""


@pytest.fixture
def models(tmp_path: Path) -> tuple[Path, Path]:
    first, second = tmp_path / "silu.onnx", tmp_path / "relu.onnx"
    model = residual_network()
    onnx.save_model(model, first)
    gates = {node.output[0]: node for node in model.graph.node if node.op_type == "Sigmoid"}
    for node in model.graph.node:
        if node.op_type == "Mul" and node.input[1] in gates:
            node.op_type = "Relu"
            del node.input[1]
    for gate in gates.values():
        model.graph.node.remove(gate)
    onnx.save_model(model, second)
    return first, second


def test_a_model_equals_itself(models: tuple[Path, Path]) -> None:
    found = compare_models(models[0], models[0], "npu1")
    assert [output.name for output in found.outputs] == ["features", "map"]
    assert all(output.largest_difference == 0 for output in found.outputs)
    assert found.second.timing.ratio == 1
    assert found.first == found.second


def test_what_differs_is_counted_and_measured(models: tuple[Path, Path], tmp_path: Path) -> None:
    np.savez(tmp_path / "calib.npz", images=images(5))
    found = compare_models(*models, "npu1", calibration=tmp_path / "calib.npz", samples=3)
    assert found.samples == 3
    assert (found.first.operators["Sigmoid"], found.second.operators.get("Sigmoid")) == (6, None)
    assert found.second.operators["Relu"] == 6
    assert found.second.timing.ratio < 1
    assert max(output.relative for output in found.outputs) > 1e-3
    assert found.first.file_bytes == models[0].stat().st_size
    assert json.loads(json.dumps(found.to_json(), allow_nan=False))["format"] == 1


OTHERS = {
    "no input 'x', which .*first.onnx has": TWICE.replace("x", "z") % "Relu",
    "input 'x' of float \\[1, 4\\], which is float \\[1, 3\\] in .*first.onnx": TWICE.replace(
        "[1, 3]", "[1, 4]"
    )
    % "Relu",
    "no output 'y', which .*first.onnx has": TWICE.replace("y", "z") % "Relu",
}


@pytest.mark.parametrize("said", OTHERS)
def test_models_that_do_not_belong_together_are_refused(tmp_path: Path, said: str) -> None:
    first, second = tmp_path / "first.onnx", tmp_path / "second.onnx"
    onnx.save_model(onnx.parser.parse_model(TWICE % "Relu"), first)
    onnx.save_model(onnx.parser.parse_model(OTHERS[said]), second)
    with pytest.raises(ModelError, match=f"second.onnx: has {said}; the two do not belong"):
        compare_models(first, second, "npu1")


@pytest.mark.parametrize("option", ["samples", "preprocessing"])
def test_what_only_samples_have_is_refused_without_them(
    models: tuple[Path, Path], option: str
) -> None:
    with pytest.raises(DataError, match="without --calib"):
        compare_models(*models, "npu1", **{option: 3 if option == "samples" else "yolox"})


def test_an_infinite_difference_is_null_in_json(tmp_path: Path) -> None:
    for name, op in (("a", "Relu"), ("b", "Log")):
        onnx.save_model(onnx.parser.parse_model(TWICE % op), tmp_path / f"{name}.onnx")
    found = compare_models(tmp_path / "a.onnx", tmp_path / "b.onnx", "npu1")
    assert found.to_json()["outputs"][0]["relative"] is None
