"""Nothing of a model's weights is in a kit, wherever they lie in the model."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from actcc.graph import Graph
from actcc.probe.kit import read_kit, unpack_kit, write_kit
from actcc.probe.probes import Probe, Probes

VALUES = np.random.default_rng(3).standard_normal(8).astype(np.float32)
BYTES = np.arange(1, 9, dtype=np.int8) * 7


def tensor(name: str, element: int, raw: bytes, *shape: int) -> TensorProto:
    return helper.make_tensor(name, element, shape, raw, raw=True)


def model_of(
    nodes: list[onnx.NodeProto],
    initializers: list[TensorProto],
    functions: list[onnx.FunctionProto] | None = None,
) -> onnx.ModelProto:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [8]) for name in "xy")
    graph = helper.make_graph(nodes, "g", [x], [y], initializers)
    opsets = [helper.make_opsetid("", 21), helper.make_opsetid("own", 1)]
    return helper.make_model(graph, opset_imports=opsets, ir_version=10, functions=functions or [])


def added(element: int, raw: bytes) -> onnx.ModelProto:
    """A tensor, as floating-point numbers, is added to the input."""
    cast = helper.make_node("Cast", ["w"], ["v"], to=TensorProto.FLOAT)
    add = helper.make_node("Add", ["x", "v"], ["y"])
    return model_of([cast, add], [tensor("w", element, raw, 8)])


def constant_node() -> onnx.ModelProto:
    value = tensor("", TensorProto.FLOAT, VALUES.tobytes(), 8)
    constant = helper.make_node("Constant", [], ["v"], value=value)
    return model_of([constant, helper.make_node("Add", ["x", "v"], ["y"])], [])


def quantized_bias() -> onnx.ModelProto:
    bias = tensor("b", TensorProto.INT32, VALUES.tobytes(), 8)
    scale = tensor("s", TensorProto.FLOAT, np.float32(0.1).tobytes())
    dequantize = helper.make_node("DequantizeLinear", ["b", "s"], ["v"])
    return model_of([dequantize, helper.make_node("Add", ["x", "v"], ["y"])], [bias, scale])


def subgraph() -> onnx.ModelProto:
    out = helper.make_tensor_value_info("o", TensorProto.FLOAT, [8])
    weights = tensor("w", TensorProto.FLOAT, VALUES.tobytes(), 8)
    add = helper.make_node("Add", ["x", "w"], ["o"])
    branch = helper.make_graph([add], "b", [], [out], [weights])
    other = helper.make_graph([helper.make_node("Neg", ["x"], ["o"])], "c", [], [out])
    chosen = helper.make_node("If", ["c"], ["y"], then_branch=branch, else_branch=other)
    return model_of([chosen], [tensor("c", TensorProto.BOOL, b"\1")])


def function() -> onnx.ModelProto:
    value = tensor("", TensorProto.FLOAT, VALUES.tobytes(), 8)
    constant = helper.make_node("Constant", [], ["v"], value=value)
    body = [constant, helper.make_node("Add", ["a", "v"], ["o"])]
    own = helper.make_function("own", "F", ["a"], ["o"], body, [helper.make_opsetid("", 21)])
    return model_of([helper.make_node("F", ["x"], ["y"], domain="own")], [], [own])


MODELS = {
    "small": added(TensorProto.FLOAT, VALUES.tobytes()),
    "bfloat16": added(TensorProto.BFLOAT16, VALUES.tobytes()[:16]),
    "int16": added(TensorProto.INT16, VALUES.tobytes()[:16]),
    "int8": added(TensorProto.INT8, BYTES.tobytes()),
    "int4": added(TensorProto.INT4, BYTES.tobytes()[:4]),
    "float8": added(TensorProto.FLOAT8E4M3FN, BYTES.tobytes()),
    "constant node": constant_node(),
    "quantized bias": quantized_bias(),
    "subgraph": subgraph(),
    "function": function(),
}


def probes_of(model: onnx.ModelProto) -> Probes:
    probe = Probe("hash", Graph.load(model), "group", "layer", "a graph", {})
    return Probes("model", (probe,), ())


@pytest.mark.parametrize("name", MODELS)
def test_no_bytes_of_the_weights_are_in_a_kit(name: str, tmp_path: Path) -> None:
    written = MODELS[name].SerializeToString()
    originals = (VALUES.tobytes(), VALUES.tobytes()[:16], BYTES.tobytes(), BYTES.tobytes()[:4])
    assert any(original in written for original in originals)
    assert write_kit(probes_of(MODELS[name]), tmp_path / "kit.zip") == ()
    with zipfile.ZipFile(tmp_path / "kit.zip") as archive:
        files = [archive.read(entry) for entry in archive.namelist()]
    assert not any(original in file for original in originals for file in files)
    assert read_kit(tmp_path / "kit.zip").graph("hash").outputs[0].name == "y"


@pytest.mark.parametrize("name", MODELS)
def test_a_graph_with_other_weights_runs(name: str, tmp_path: Path) -> None:
    unpack_kit(probes_of(MODELS[name]), tmp_path)
    (path,) = tmp_path.glob("probes/*.onnx")
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {"x": np.zeros(8, np.float32)})
    assert np.isfinite(found).all()
    assert not np.allclose(found, VALUES)


def test_shapes_and_single_numbers_stay(tmp_path: Path) -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]>'
        "g (float[1,4,8,8] x) => (float[2,2,8,8] y) <float third = {0.33333333}, "
        "int64[4] shape = {2, 2, 8, 8}> { z = Mul(x, third) y = Reshape(z, shape) }"
    )
    write_kit(probes_of(model), tmp_path / "kit.zip")
    (found,) = read_kit(tmp_path / "kit.zip").graphs.values()
    kept = {t.name: t for t in onnx.ModelProto.FromString(found).graph.initializer}
    assert onnx.numpy_helper.to_array(kept["shape"]).tolist() == [2, 2, 8, 8]
    assert float(onnx.numpy_helper.to_array(kept["third"])) == pytest.approx(1 / 3)


def test_a_graph_whose_weights_cannot_be_replaced_is_left_out_with_a_note(tmp_path: Path) -> None:
    offset = VALUES.tolist() * 4
    node = helper.make_node("Scaler", ["x"], ["y"], domain="ai.onnx.ml", offset=offset, scale=[1.0])
    model = model_of([node], [])
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 1))
    (note,) = write_kit(probes_of(model), tmp_path / "kit.zip")
    assert note.startswith("a graph: left out: the attribute 'offset' may be weights")
    assert not read_kit(tmp_path / "kit.zip").graphs
