"""Bad input: one line on stderr, exit code 2, and nothing left behind."""

import errno
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from actcc.cli import main

NETWORK = """
<ir_version: 8, opset_import: ["" : 17]>
network (float[batch, 3] x) => (float[batch, 3] y) {
  s = Sigmoid(x)
  y = Mul(x, s)
}
"""


WITH_WEIGHT = """
<ir_version: 8, opset_import: ["" : 17]>
network (float[1, 4] x) => (float[1, 4] y) <float[4] w = {1, 2, 3, 4}> { y = Add(x, w) }
"""
SHAPELESS = """
<ir_version: 8, opset_import: ["" : 17]>
network (float[] x) => (float[] y) { y = Relu(x) }
"""
DANGLING = """
<ir_version: 8, opset_import: ["" : 17]>
network (float[1, 4] x) => (float[1, 4] y) { y = Add(x, nowhere) }
"""


def with_weight_at(location: str, length: int = 16) -> onnx.ModelProto:
    """A model whose weight is said to lie in another file."""
    model = onnx.parser.parse_model(WITH_WEIGHT)
    (weight,) = model.graph.initializer
    weight.ClearField("float_data")
    weight.data_location = onnx.TensorProto.EXTERNAL
    for key, value in (("location", location), ("offset", "0"), ("length", str(length))):
        weight.external_data.add(key=key, value=value)
    return model


def damaged_networks(folder: Path) -> dict[str, onnx.ModelProto]:
    """Models by file name; what they need lies in or beside `folder`."""
    (folder.parent / "outside.data").write_bytes(bytes(16))
    (folder / "short.data").write_bytes(bytes(6))
    os.symlink(folder.parent / "outside.data", folder / "link.data")
    new, none, cyclic, vast = (onnx.parser.parse_model(WITH_WEIGHT) for _ in range(4))
    new.opset_import[0].version = 99
    del none.opset_import[:]
    cyclic.graph.node[0].input[0] = "y"
    vast.graph.initializer[0].dims[:] = [2**40]
    shapeless = onnx.parser.parse_model(SHAPELESS)
    shapeless.graph.input[0].type.tensor_type.ClearField("shape")
    return {
        "absent_data.onnx": with_weight_at("absent.data"),
        "short_data.onnx": with_weight_at("short.data"),
        "parent_data.onnx": with_weight_at("../outside.data"),
        "absolute_data.onnx": with_weight_at(str(folder.parent / "outside.data")),
        "linked_data.onnx": with_weight_at("link.data"),
        "future.onnx": new,
        "no_opset.onnx": none,
        "cycle.onnx": cyclic,
        "vast.onnx": vast,
        "dangling.onnx": onnx.parser.parse_model(DANGLING),
        "shapeless.onnx": shapeless,
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    tmp_path = tmp_path / "folder"
    tmp_path.mkdir()
    network = onnx.parser.parse_model(NETWORK)
    onnx.save_model(network, tmp_path / "network.onnx")
    whole = network.SerializeToString()
    (tmp_path / "truncated.onnx").write_bytes(whole[: len(whole) * 2 // 3])
    (tmp_path / "no_text.onnx").write_bytes(whole.replace(b"Sigmoid", b"Sigm\xf2id"))
    for name, model in damaged_networks(tmp_path).items():
        (tmp_path / name).write_bytes(model.SerializeToString())
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
    "truncated": (("truncated.onnx",), "not an ONNX model"),
    "text that is none": (("no_text.onnx",), "NodeProto.op_type is no text"),
    "external data missing": (("absent_data.onnx",), "'absent.data' of 'w' is missing"),
    "external data too short": (("short_data.onnx",), "cannot be read"),
    "external data in the parent": (("parent_data.onnx",), "outside the model's folder"),
    "external data at a path": (("absolute_data.onnx",), "outside the model's folder"),
    "external data behind a link": (("linked_data.onnx",), "outside the model's folder"),
    "opset of the future": (("future.onnx",), "(opset 99; the installed onnx"),
    "no opset": (("no_opset.onnx",), "names no ONNX opset"),
    "cycle": (("cycle.onnx",), "cycle"),
    "input from nowhere": (("dangling.onnx",), "not a valid ONNX model"),
    "weight without data": (("vast.onnx",), "not a valid ONNX model"),
    "no shapes": (("shapeless.onnx",), "--shape x="),
    "infeasible latency": (
        ("network.onnx", *SHAPE, "--target", "npu1", "--max-latency", "1%", "--quiet"),
        "latency",
    ),
    "infeasible memory": (
        ("network.onnx", *SHAPE, "--target", "npu1", "--max-memory", "1%", "--quiet"),
        "memory",
    ),
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
    "output over the data": (
        ("network.onnx", *SHAPE, "--calib", "right.npz", "-o", "right.npz"),
        "is the input",
    ),
    "output over the metric": (
        ("network.onnx", *SHAPE, "--metric", "metric.py:one", "-o", "metric.py"),
        "is the input",
    ),
    "empty model": (("",), "MODEL' is empty"),
    "empty output": (("network.onnx", *SHAPE, "-o", ""), "is empty"),
    "output with a long name": (("network.onnx", *SHAPE, "-o", "n" * 300), "cannot be written"),
    "output whose plan has a long name": (
        ("network.onnx", *SHAPE, "-o", "n" * 250),
        "cannot be written",
    ),
    "model with a long name": (("n" * 300, "-o", "out.onnx"), "no such file"),
    "data with a long name": (("network.onnx", *SHAPE, "--calib", "n" * 300), "n" * 300),
}


@pytest.mark.parametrize("name", CASES)
def test_bad_input_is_one_line_and_leaves_nothing(
    folder: Path,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    arguments, message = CASES[name]
    before = files_in(folder)
    monkeypatch.chdir(folder)
    with pytest.raises(SystemExit) as ended:
        main(["optimize", *arguments])
    printed, said = capfd.readouterr()
    assert ended.value.code == 2, said
    assert message in said
    assert len(said.strip().splitlines()) == 1
    assert printed == ""
    assert files_in(folder) == before


def test_the_process_ends_with_code_2_and_one_line(folder: Path) -> None:
    before = files_in(folder)
    done = actcc(folder, "optimize", "truncated.onnx")
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert "Traceback" not in done.stderr
    assert done.stdout == ""
    assert files_in(folder) == before


def files_in(folder: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_an_unknown_option_is_refused_with_the_usage(folder: Path) -> None:
    done = actcc(folder, "optimize", "network.onnx", "--no-such-option")
    assert done.returncode == 2
    assert "No such option" in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="/proc is a folder that takes no files")
@pytest.mark.parametrize("command", ["optimize", "apply"])
def test_a_folder_that_takes_no_files_is_named(
    folder: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = ("text.onnx",) if command == "apply" else ()
    with pytest.raises(SystemExit) as ended:
        main([command, str(folder / "network.onnx"), *plan, "-o", "/proc/out.onnx"])
    assert ended.value.code == 2
    assert "'/proc' cannot be written" in capsys.readouterr().err


USAGE = {
    "negative seed": ("optimize", "network.onnx", "--seed", "-1"),
    "seed beyond the solver": ("rank", "network.onnx", "--seed", str(2**31)),
    "seed of the front": ("pareto", "network.onnx", "--calib", "right.npz", "--seed", "-1"),
    "seed of random values": ("compare", "network.onnx", "network.onnx", "--seed", "-1"),
    "no time": ("optimize", "network.onnx", "--time-limit", "nan"),
    "endless time": ("optimize", "network.onnx", "--time-limit", "inf"),
    "front without time": ("pareto", "network.onnx", "--calib", "c", "--time-limit", "nan"),
    "negative rows": ("inspect", "network.onnx", "--top", "-1"),
}


@pytest.mark.parametrize("name", USAGE)
def test_a_value_out_of_range_is_refused_with_the_usage(
    folder: Path,
    name: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(folder)
    with pytest.raises(SystemExit) as ended:
        main(list(USAGE[name]))
    assert ended.value.code == 2
    assert USAGE[name][-2] in capsys.readouterr().err


def test_a_full_disk_is_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*arguments: object, **options: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("tempfile.mkdtemp", full)
    with pytest.raises(SystemExit) as ended:
        main(["optimize", str(folder / "network.onnx"), *SHAPE, "-o", str(folder / "out.onnx")])
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert "No space left on device" in said
    assert said.count("\n") == 1
