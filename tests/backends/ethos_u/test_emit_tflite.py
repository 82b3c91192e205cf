"""`--emit-tflite`: the result in int8 beside the ONNX file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from networks import Builder

from actcc.cli import main
from actcc.graph import Graph


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A network in which there is nothing to choose, so that the run is short."""
    build = Builder()
    build.add("Relu", build.conv("images", 3, 8), output="y")
    path = tmp_path / "net.onnx"
    Graph.load(build.model((1, 3, 16, 16), {"y": (1, 8, 16, 16)})).save(path)
    samples = np.random.default_rng(0).standard_normal((8, 3, 16, 16)).astype(np.float32)
    np.savez(tmp_path / "samples.npz", images=samples)
    return path


def run(model: Path, *arguments: str) -> int:
    """The exit code of `actcc optimize`."""
    output = str(model.with_name("fast.onnx"))
    # The simplifier starts a process of its own, which takes seconds and finds nothing here.
    command = ["optimize", str(model), "-o", output, "--quiet", "--workers", "1"]
    try:
        main([*command, "--skip", "simplify", "--skip", "drop-activation", *arguments])
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def test_the_int8_file_runs_and_the_compiled_one_lies_beside_it(model: Path) -> None:
    pytest.importorskip("ethosu", reason="needs the extra 'ethos-u'")
    litert = pytest.importorskip("ai_edge_litert.interpreter", reason="needs the extra 'test'")
    samples = str(model.with_name("samples.npz"))
    options = ("--target", "ethos-u55-256", "--calib", samples, "--emit-tflite")
    assert run(model, *options, "--max-drop", "none", "--max-trials", "1") == 0
    interpreter = litert.Interpreter(model_path=str(model.with_name("fast.tflite")))
    interpreter.allocate_tensors()
    (images,) = interpreter.get_input_details()
    assert images["shape"].tolist() == [1, 16, 16, 3]
    compiled = model.with_name("fast_vela.tflite").read_bytes()
    assert b"ethos-u" in compiled


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        (("--target", "npu1"), "target 'npu1' has no use for TFLite files"),
        (("--target", "ethos-u55-256"), "give --calib"),
    ],
)
def test_it_is_refused_before_anything_is_written(
    model: Path, options: tuple[str, ...], reason: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if "ethos-u55-256" in options:
        pytest.importorskip("ethosu", reason="needs the extra 'ethos-u'")
    before = sorted(model.parent.iterdir())
    assert run(model, *options, "--emit-tflite") == 2
    assert reason in capsys.readouterr().err
    assert sorted(model.parent.iterdir()) == before


def test_what_int8_cannot_stand_for_is_said_before_the_search(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("ethosu", reason="needs the extra 'ethos-u'")
    build = Builder()
    build.add("Relu", build.conv(build.add("Log", "images"), 3, 8), output="y")
    path = tmp_path / "net.onnx"
    Graph.load(build.model((1, 3, 16, 16), {"y": (1, 8, 16, 16)})).save(path)
    samples = np.ones((4, 3, 16, 16), np.float32)
    samples[:, 0, 0, 0] = 0.0
    np.savez(tmp_path / "samples.npz", images=samples)
    options = ("--target", "ethos-u55-256", "--calib", str(tmp_path / "samples.npz"))
    assert run(path, *options, "--emit-tflite", "--max-drop", "none") == 2
    said = capsys.readouterr().err
    assert "takes the values -inf to 0 on sample" in said
    assert "samples.npz#" in said
    assert not path.with_name("fast.onnx").exists()


def test_what_overflows_inside_an_activation_is_of_no_account(run_int8) -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17]>
        g (float[1, 8, 4, 4] images) => (float[1, 8, 4, 4] y)
        <float one = {1.0}> {
            a = Neg (images)
            b = Exp (a)
            c = Add (b, one)
            y = Div (one, c)
        }"""
    )
    images = np.linspace(-100, 100, 128, dtype=np.float32).reshape(1, 8, 4, 4)
    found = run_int8(model, [{"images": images}])
    assert found.operators == {"LOGISTIC": 1}
    assert found.worst < 0.05
