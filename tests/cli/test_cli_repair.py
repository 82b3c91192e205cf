"""`actcc repair`, and the repair that `actcc optimize` makes: what is written, said and refused."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import onnx
import pytest
from networks import images, residual_network
from onnx import helper

from actcc.cli import main
from actcc.normalize import normalize


def with_relu(network: onnx.ModelProto) -> onnx.ModelProto:
    """A copy in which every Sigmoid, and so every SiLU, has become a ReLU."""
    twin = onnx.ModelProto()
    twin.CopyFrom(network)
    gates = {node.output[0] for node in twin.graph.node if node.op_type == "Sigmoid"}
    nodes = []
    for node in twin.graph.node:
        if node.op_type == "Mul" and node.input[1] in gates:
            node = helper.make_node("Relu", [node.input[0]], list(node.output), name=node.name)
        if node.op_type != "Sigmoid":
            nodes.append(node)
    del twin.graph.node[:]
    twin.graph.node.extend(nodes)
    return twin


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    network = residual_network()
    onnx.save_model(network, tmp_path / "network.onnx")
    onnx.save_model(with_relu(network), tmp_path / "relu.onnx")
    network.graph.output[0].name = network.graph.node[-2].output[0] = "other"
    onnx.save_model(network, tmp_path / "other.onnx")
    np.savez(tmp_path / "calib.npz", images=images(12))
    np.savez(tmp_path / "one.npz", images=images(1))
    monkeypatch.chdir(tmp_path)
    # The simplifier starts a process of its own, which takes seconds and finds nothing here.
    plain = partial(normalize, skip=("simplify",))
    monkeypatch.setattr("actcc.model_repair.normalize", plain)
    return tmp_path


PAIR = ("network.onnx", "relu.onnx")
OUT = ("-o", "out.onnx", "--workers", "1")
CALIB = ("--calib", "calib.npz")


def run(*arguments: str) -> int:
    """The exit code of the command line."""
    try:
        main(list(arguments))
    except SystemExit as ended:
        return int(ended.code or 0)
    return 0


def test_the_repaired_model_is_written_and_closer_and_always_the_same(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert run("repair", *PAIR, *CALIB, *OUT) == 0
    said = capsys.readouterr().out
    assert "wrote out.onnx" in said
    assert "fidelity on " in said
    model = onnx.load(folder / "out.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert [output.name for output in model.graph.output] == ["features", "map"]
    assert not any(node.op_type == "Sigmoid" for node in model.graph.node)

    assert run("repair", *PAIR, *CALIB, "-o", "again.onnx", "--workers", "2", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert found["after"] > found["before"]
    assert found["held_out_samples"] > 0
    assert found["metric"] == "fidelity"
    assert found["left_alone"] == {}
    assert {"node", "missed"} <= found["layers"][0].keys()
    assert len(found["layers"]) >= 8
    assert found["output"] == "again.onnx"
    after = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert after.pop("again.onnx") == after.pop("out.onnx")
    assert after == before


REFUSED = {
    "outputs that do not belong together": (
        ("network.onnx", "other.onnx", *CALIB, *OUT),
        "do not belong together",
    ),
    "data that is absent": ((*PAIR, "--calib", "absent.npz", *OUT), "absent.npz"),
    "data of one sample": ((*PAIR, "--calib", "one.npz", *OUT), "at least 2"),
    "the same model twice": (("network.onnx", "network.onnx", *CALIB, *OUT), "nothing to repair"),
    "no method": ((*PAIR, *CALIB, *OUT, "--repair", "none"), "nothing would be done"),
    "memory without a unit": ((*PAIR, *CALIB, *OUT, "--repair-memory", "12"), "--repair-memory"),
    "memory of nothing": ((*PAIR, *CALIB, *OUT, "--repair-memory", "1KiB"), "--repair-memory"),
    "output over the original": ((*PAIR, *CALIB, "-o", "network.onnx"), "is the input"),
    "output over the rewritten": ((*PAIR, *CALIB, "-o", "relu.onnx"), "is the input"),
    "output over the data": ((*PAIR, *CALIB, "-o", "calib.npz"), "is the input"),
    "output in no folder": ((*PAIR, *CALIB, "-o", "absent/out.onnx"), "does not exist"),
    "metric that needs labels": ((*PAIR, *CALIB, *OUT, "--metric", "top1"), "label"),
    "unknown metric": ((*PAIR, *CALIB, *OUT, "--metric", "magic"), "magic"),
    "no model": (("calib.npz", "relu.onnx", *CALIB, *OUT), "calib.npz"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_input_is_one_line_and_nothing_is_written(
    folder: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    arguments, expected = REFUSED[name]
    assert run("repair", *arguments, "-q") == 2
    said = capsys.readouterr()
    assert expected in said.err
    assert len(said.err.strip().splitlines()) == 1
    assert not said.out
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


@pytest.mark.parametrize(
    ("arguments", "option"), [(OUT, "--calib"), ((*CALIB, *OUT, "--repair", "magic"), "--repair")]
)
def test_wrong_usage_names_the_option(
    folder: Path,
    arguments: tuple[str, ...],
    option: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run("repair", *PAIR, *arguments) == 2
    assert option in capsys.readouterr().err.splitlines()[-1]
    assert not (folder / "out.onnx").exists()


def test_without_pytorch_distill_says_what_to_install(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert run("repair", *PAIR, *CALIB, *OUT, "--repair", "distill") == 2
    assert "pip install 'actcc[distill]'" in capsys.readouterr().err
    assert run("optimize", "network.onnx", *CALIB, *OUT, "--repair", "distill") == 2
    assert "pip install 'actcc[distill]'" in capsys.readouterr().err
    assert not (folder / "out.onnx").exists()


OPTIMIZE = (
    "optimize",
    "network.onnx",
    "-t",
    "npu1",
    *CALIB,
    *OUT,
    "--max-drop",
    "30%",
    "--skip",
    "simplify",
)


def test_a_plan_says_how_it_was_repaired_and_what_that_changed(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*OPTIMIZE, "--max-trials", "2", "--json", "-q") == 0
    trials = json.loads(capsys.readouterr().out)["trials"]
    plan = json.loads((folder / "out.onnx.plan.json").read_text())
    assert plan["settings"]["repair"] == "closed-form"
    assert plan["settings"]["repair_memory"] == str(2 << 30)
    assert len(json.loads(plan["settings"]["calibration_samples"])) >= 2
    repaired = [trial for trial in trials if trial["drop_before_repair"] is not None]
    assert repaired
    assert all(trial["drop"] < trial["drop_before_repair"] for trial in repaired)
    assert plan["accuracy"]["unrepaired"] < plan["accuracy"]["result"]


def test_without_a_repair_the_plan_says_so(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(*OPTIMIZE, "--max-trials", "1", "--json", "-q", "--repair", "none") == 0
    trials = json.loads(capsys.readouterr().out)["trials"]
    plan = json.loads((folder / "out.onnx.plan.json").read_text())
    assert plan["settings"]["repair"] == "none"
    # What passes observed is observed again when the plan is applied.
    assert json.loads(plan["settings"]["calibration_samples"])
    assert all(trial["drop_before_repair"] is None for trial in trials)
