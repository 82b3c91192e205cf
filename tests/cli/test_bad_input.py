"""Bad input: one line on stderr, exit code 2, and nothing left behind."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

NETWORK = """
<ir_version: 8, opset_import: ["" : 17]>
network (float[batch, 3] x) => (float[batch, 3] y) {
  s = Sigmoid(x)
  y = Mul(x, s)
}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    onnx.save_model(onnx.parser.parse_model(NETWORK), tmp_path / "network.onnx")
    (tmp_path / "text.onnx").write_text("not a model")
    (tmp_path / "empty.onnx").write_bytes(b"")
    np.savez(tmp_path / "wrong.npz", x=np.zeros((8, 5), np.float32))
    np.savez(tmp_path / "right.npz", x=np.ones((8, 3), np.float32))
    (tmp_path / "metric.py").write_text("def one(outputs): return 1.0\n")
    (tmp_path / "bad.toml").write_text("name = 'bad'\n")
    return tmp_path


def actcc(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "actcc", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


SHAPE = ("--shape", "x=1x3")
CASES = {
    "missing model": (("absent.onnx",), "no such file"),
    "not ONNX": (("text.onnx",), "not an ONNX model"),
    "empty file": (("empty.onnx",), "not an ONNX model"),
    "unknown target": (("network.onnx", *SHAPE, "--target", "npu9"), "unknown target 'npu9'"),
    "missing profile": (("network.onnx", *SHAPE, "--target", "no.toml"), "no such target profile"),
    "profile without fields": (("network.onnx", *SHAPE, "--target", "bad.toml"), "bad.toml"),
    "symbolic shape": (("network.onnx",), "--shape x=1x3"),
    "shape of nothing": (("network.onnx", "--shape", "z=1x3"), "no input 'z'"),
    "shape that differs": (("network.onnx", "--shape", "x=1x4"), "not [1, 4]"),
    "shape without sense": (("network.onnx", "--shape", "x=big"), "cannot be understood"),
    "missing data": (("network.onnx", *SHAPE, "--calib", "absent"), "absent"),
    "data of another shape": (("network.onnx", *SHAPE, "--calib", "wrong.npz"), "wrong.npz"),
    "eval without calib": (("network.onnx", *SHAPE, "--eval", "right.npz"), "--calib"),
    "metric without data": (("network.onnx", *SHAPE, "--metric", "metric.py:one"), "metric"),
    "budget without unit": (("network.onnx", *SHAPE, "--max-drop", "1"), "write it as"),
    "objective without latency": (
        ("network.onnx", *SHAPE, "--objective", "accuracy"),
        "--max-latency",
    ),
    "unknown pass": (("network.onnx", *SHAPE, "--skip", "nothing"), "no pass is named 'nothing'"),
    "missing plug-in": (("network.onnx", *SHAPE, "--plugin", "no.py"), "no such plug-in"),
    "output in no folder": (("network.onnx", *SHAPE, "-o", "no/out.onnx"), "does not exist"),
    "output over input": (("network.onnx", *SHAPE, "-o", "network.onnx"), "is the input"),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_one_line_and_leaves_nothing(folder: Path, name: str) -> None:
    arguments, message = CASES[name]
    before = {path: path.read_bytes() for path in folder.iterdir()}
    done = actcc(folder, "optimize", *arguments)
    assert done.returncode == 2, done.stderr
    assert message in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert {path: path.read_bytes() for path in folder.iterdir()} == before


def test_an_unknown_option_is_refused_with_the_usage(folder: Path) -> None:
    done = actcc(folder, "optimize", "network.onnx", "--no-such-option")
    assert done.returncode == 2
    assert "No such option" in done.stderr
