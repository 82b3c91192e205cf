"""Damaged model files: success with a valid model, or one line, exit code 2 and nothing left."""

import os
from pathlib import Path

import onnx
import pytest
from altered_models import altered_files
from damaged_files import damaged_files, run_command
from networks import residual_network
from run_fuzz import EXAMPLE, run_damaged

_REAL_MODELS = ("FastestDet", "mobilenet_v2_qdq", "ultraface_rfb_320")


def problems(model: Path, count: int, seed: int) -> list[str]:
    found = list(run_damaged(damaged_files(model.read_bytes(), count, seed), 2))
    assert len(found) == count
    assert {code for _, code, _ in found} >= {0, 2}  # both ways of ending well are met
    return [f"{name}: {problem}" for name, _, problem in found if problem]


def test_a_damaged_file_never_ends_in_a_traceback() -> None:
    assert problems(EXAMPLE, count=30, seed=1) == []


def test_numbers_and_names_without_sense_never_end_in_a_traceback() -> None:
    files = altered_files(residual_network(channels=4, size=8), count=20, seed=0)
    assert [problem for _, _, problem in run_damaged(files, 2) if problem] == []


@pytest.mark.slow  # five hundred runs: two minutes
def test_five_hundred_models_without_sense_never_end_in_a_traceback() -> None:
    files = altered_files(residual_network(channels=4, size=8), count=500, seed=1)
    assert [problem for _, _, problem in run_damaged(files, 2) if problem] == []


@pytest.mark.slow  # six hundred runs: three minutes
def test_six_hundred_damaged_files_never_end_in_a_traceback() -> None:
    assert problems(EXAMPLE, count=600, seed=0) == []


@pytest.mark.slow  # a hundred runs of a large model: a minute each
@pytest.mark.shared
@pytest.mark.parametrize("name", _REAL_MODELS)
def test_damaged_files_of_real_models_never_end_in_a_traceback(shared: Path, name: str) -> None:
    assert problems(shared / "models" / f"{name}.onnx", count=100, seed=0) == []


def test_a_chain_of_1500_nodes_meets_no_limit_of_recursion(tmp_path: Path) -> None:
    nodes = [onnx.helper.make_node("Relu", [f"t{i}"], [f"t{i + 1}"]) for i in range(1500)]
    value = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        nodes, "chain", [value("t0", 1, [1, 4])], [value("t1500", 1, [1, 4])]
    )
    model, output = tmp_path / "chain.onnx", tmp_path / "out.onnx"
    opsets = [onnx.helper.make_opsetid("", 17)]
    onnx.save_model(onnx.helper.make_model(graph, opset_imports=opsets, ir_version=8), model)
    code, _, said = run_command(
        ["optimize", str(model), "--target", "npu1", "-o", str(output), "--quiet"]
    )
    assert (code, said) == (0, "")


def test_a_weight_of_no_numbers_is_no_reason_to_fail(tmp_path: Path) -> None:
    network = residual_network()
    weight = network.graph.initializer[0]
    weight.raw_data = b"\xff" * len(weight.raw_data)  # NaN
    model, output = tmp_path / "nan.onnx", tmp_path / "out.onnx"
    onnx.save_model(network, model)
    code, _, said = run_command(
        ["optimize", str(model), "--target", "npu1", "-o", str(output), "--quiet"]
    )
    assert (code, said) == (0, "")
    onnx.checker.check_model(str(output))


# A window of 5 on a map of 2 leaves a negative size, and ONNX's inference of Slice aborts on it.
_WINDOW_TOO_LARGE = """
    <ir_version: 8, opset_import: ["" : 17]>
    network (float[1, 3, N, N] x) => (float y)
    <int64[1] s = {1}, int64[1] e = {7}, int64[1] a = {2}>
    {
        pooled = MaxPool <kernel_shape = [5, 5]> (x)
        cut = Slice (pooled, s, e, a)
        y = Relu (cut)
    }
"""


@pytest.mark.parametrize("command", ["optimize", "inspect"])
@pytest.mark.parametrize("declares", ["the size", "a symbol", "no shape at all"])
def test_a_model_on_which_shape_inference_aborts_is_refused(
    tmp_path: Path, command: str, declares: str
) -> None:
    model = onnx.parser.parse_model(_WINDOW_TOO_LARGE)
    result = model.graph.output[0].type.tensor_type
    if declares == "no shape at all":  # which the checker refuses
        result.ClearField("shape")
    else:
        for symbol in "abcd":
            result.shape.dim.add(dim_param=symbol)
    arguments = [command, str(tmp_path / "model.onnx"), "--target", "npu1"]
    if declares == "a symbol":  # the model itself is valid
        arguments += ["--shape", "x=1x3x2x2"]
    else:
        for dimension in model.graph.input[0].type.tensor_type.shape.dim[2:]:
            dimension.dim_value = 2
    if command == "optimize":
        arguments += ["--quiet", "-o", str(tmp_path / "out.onnx")]
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    code, printed, said = run_command(arguments)
    assert (code, printed, len(said.splitlines())) == (2, "", 1)
    assert "ONNX's shape inference crashes (SIGABRT)" in said
    assert [path.name for path in tmp_path.iterdir()] == ["model.onnx"]


@pytest.mark.parametrize("command", ["optimize", "inspect"])
def test_a_file_whose_name_is_no_utf8_is_refused_in_one_line(tmp_path: Path, command: str) -> None:
    model = tmp_path / os.fsdecode(b"na\xffme.onnx")
    model.write_bytes(residual_network(channels=4, size=8).SerializeToString())
    output = ["--quiet", "-o", str(tmp_path / "out.onnx")] if command == "optimize" else []
    code, _, said = run_command([command, str(model), "--target", "npu1", *output])
    assert (code, len(said.splitlines())) == (2, 1)
    assert "the name is not UTF-8" in said
    assert list(tmp_path.iterdir()) == [model]
