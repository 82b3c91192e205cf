"""Models that are rare, and what stands in their way: each came out of the suite or the fuzz."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from every_rewrite import Immediately, every_rewrite_target
from onnx import TensorProto, helper

import actcc.targets
from actcc.budget import Budget
from actcc.errors import ModelError, PricingError
from actcc.graph import Graph
from actcc.memory import peak_memory
from actcc.pipeline import optimize
from actcc.runtime import random_feeds, run, session
from actcc.validity import require_valid

pytestmark = pytest.mark.usefixtures("simplify_here")


HEADER = '<ir_version: 8, opset_import: ["" : 17]>'


def parsed(text: str) -> onnx.ModelProto:
    return onnx.parser.parse_model(HEADER + text)


def saved(model: onnx.ModelProto, folder: Path) -> Path:
    path = folder / "model.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def test_a_model_of_other_domains_alone_needs_no_onnx_opset(tmp_path: Path) -> None:
    node = helper.make_node("Binarizer", ["x"], ["y"], domain="ai.onnx.ml", threshold=0.5)
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [node], "ml", [value("x", TensorProto.FLOAT, [4])], [value("y", TensorProto.FLOAT, [4])]
    )
    opsets = [helper.make_opsetid("ai.onnx.ml", 3)]
    path = saved(helper.make_model(graph, opset_imports=opsets, ir_version=8), tmp_path)
    output = tmp_path / "out.onnx"
    result = optimize(path, "npu1", output=output, executor=Immediately())
    assert result.status == "unchanged"
    assert "Binarizer" in result.reason
    assert output.read_bytes() == path.read_bytes()


def test_an_optional_input_keeps_its_type() -> None:
    element = helper.make_tensor_type_proto(TensorProto.FLOAT, [4])
    optional = helper.make_optional_type_proto(element)
    graph = helper.make_graph(
        [helper.make_node("OptionalHasElement", ["x"], ["y"])],
        "optional",
        [helper.make_value_info("x", optional)],
        [helper.make_tensor_value_info("y", TensorProto.BOOL, [])],
    )
    opsets = [helper.make_opsetid("", 18)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    exported = Graph.load(model).to_proto()
    assert exported.graph.input[0].type == model.graph.input[0].type
    onnx.checker.check_model(exported, full_check=True)


def test_outputs_that_are_left_out_take_no_memory() -> None:
    model = parsed("network (float[1, 4] x) => (float[1, 4] y) { y = Dropout(x) }")
    alone = peak_memory(Graph.load(model)).peak_bytes
    model.graph.node[0].output.append("")
    assert peak_memory(Graph.load(model)).peak_bytes == alone


def test_a_network_without_elements_cannot_be_priced(tmp_path: Path) -> None:
    path = saved(parsed("network (float[1, 0] x) => (float[1, 0] y) { y = Relu(x) }"), tmp_path)
    result = optimize(path, "npu1", executor=Immediately())
    assert result.status == "unchanged"
    assert "nothing is left to run" in result.reason


def test_a_negative_size_is_an_unknown_one() -> None:
    model = parsed("network (float[1, 4] x) => (float[1, 4] y) { y = Relu(x) }")
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = -1
    graph = Graph.load(model)
    assert graph.types["x"].shape == (None, 4)
    bound = graph.with_input_shapes({"x": (3, 4)})
    assert bound.types["y"].shape == (3, 4)
    outputs = run(session(model), random_feeds(bound, 0))
    assert outputs["y"].shape == (3, 4)


def test_an_input_that_no_machine_can_hold_is_said_to_be_too_large() -> None:
    model = parsed("network (float[1, 4] x) => (float[1, 4] y) { y = Relu(x) }")
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[1].dim_value = 2**50
    with pytest.raises(PricingError, match="too large"):
        random_feeds(Graph.load(model), 0)


def test_a_convolution_of_no_groups_is_left_as_it_is(tmp_path: Path) -> None:
    model = parsed(
        "network (float[1, 4, 8, 8] x) => (float[1, 4, 8, 8] y) "
        "<float[4, 4, 1, 1] w> { y = Conv<group = 0>(x, w) }"
    )
    weight = onnx.numpy_helper.from_array(np.zeros((4, 4, 1, 1), np.float32), "w")
    del model.graph.initializer[:]
    model.graph.initializer.append(weight)
    result = optimize(saved(model, tmp_path), "npu1", executor=Immediately())
    assert result.status == "unchanged"
    assert "0 groups" in result.reason


def test_a_weight_whose_bytes_do_not_fit_its_shape_is_refused(tmp_path: Path) -> None:
    model = parsed("network (float[1, 4] x) => (float[1, 4] y) { y = Relu(x) }")
    model.graph.initializer.add(name="w", data_type=1, dims=[4], raw_data=b"123")
    with pytest.raises(ModelError, match=r"'w'.*3 bytes"):
        Graph.load(saved(model, tmp_path))


@pytest.mark.parametrize("element", [TensorProto.INT4, TensorProto.FLOAT8E5M2, TensorProto.BOOL])
def test_weights_of_narrow_types_have_the_size_that_they_are_stored_in(
    tmp_path: Path, element: int
) -> None:
    model = parsed("network (float[1, 4] x) => (float[1, 4] y) { y = Relu(x) }")
    model.graph.initializer.append(helper.make_tensor("w", element, [3], [0, 1, 0]))
    (weight,) = model.graph.initializer
    array = onnx.numpy_helper.to_array(weight)
    weight.CopyFrom(onnx.numpy_helper.from_array(array, "w"))
    assert weight.HasField("raw_data")
    assert Graph.load(saved(model, tmp_path)).to_proto().opset_import == model.opset_import


def test_what_the_checker_forbids_and_the_runtime_runs_comes_back_as_it_is(tmp_path: Path) -> None:
    model = parsed("network (float[1, 4] x) => (float[1, 4] y) { a = Relu(x) y = Sigmoid(a) }")
    nodes = list(model.graph.node)[::-1]  # the runtime sorts them
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    path = saved(model, tmp_path)
    with pytest.raises(onnx.checker.ValidationError):
        onnx.checker.check_model(str(path))
    require_valid(path, Graph.load(path))
    assert optimize(path, "npu1", executor=Immediately()).status == "unchanged"


def test_where_even_the_normalized_network_is_refused_the_reason_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(actcc.targets, "_BACKENDS", actcc.targets._BACKENDS)  # put back at the end
    model = parsed("network (string[4] x) => (string[4] y) { i = Identity(x) y = Identity(i) }")
    result = optimize(saved(model, tmp_path), every_rewrite_target(), executor=Immediately())
    assert result.status == "unchanged"
    assert "the normalized network was refused: input 'x' is no tensor of numbers" in result.reason


@pytest.mark.parametrize("held", ["in a function", "as sparse values"])
def test_external_data_of_rare_tensors_goes_along_to_another_folder(
    tmp_path: Path, held: str
) -> None:
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[4])
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key="location", value="w.bin")
    indices = helper.make_tensor("", TensorProto.INT64, [4], range(4))
    values = np.arange(4, dtype=np.float32)
    values.tofile(tmp_path / "w.bin")
    if held == "in a function":
        constant, body = helper.make_attribute("value", weight), "y = local.Shift(x)"
    else:
        sparse = helper.make_sparse_tensor(weight, indices, [4])
        constant, body = (
            helper.make_attribute("sparse_value", sparse),
            "w = Constant() y = Add(x, w)",
        )
    model = onnx.parser.parse_model(
        f"""
        <ir_version: 8, opset_import: ["" : 17, "local" : 1]>
        network (float[4] x) => (float[4] z) {{ {body} z = Relu(y) }}
        <domain: "local", opset_import: ["" : 17]>
        Shift (x) => (y) {{ w = Constant() y = Add(x, w) }}
        """
    )
    if held != "in a function":
        del model.functions[:]
    (model.functions[0] if model.functions else model.graph).node[0].attribute.append(constant)
    (tmp_path / "elsewhere").mkdir()
    output = tmp_path / "elsewhere" / "out.onnx"
    optimize(saved(model, tmp_path), "npu1", output=output, executor=Immediately())
    found = run(session(output), {"x": np.ones(4, np.float32)})
    np.testing.assert_array_equal(found["z"], values + 1)


def test_a_tensor_without_elements_is_no_reason_for_an_estimator_to_fail(tmp_path: Path) -> None:
    model = parsed(
        """
        network (float[1, 4, 8, 8] x) => (float[1, 4, 8, 8] y)
        <int64[1] begin = {0}, int64[1] end = {0}, int64[1] axis = {1}>
        {
            c = Conv <pads = [1, 1, 1, 1]> (x, w)
            s = Sigmoid(c)
            a = Mul(c, s)
            nothing = Slice(c, begin, end, axis)
            n = Relu(nothing)
            joined = Concat <axis = 1> (a, n)
            y = Conv <pads = [1, 1, 1, 1]> (joined, w)
        }
        """
    )
    generator = np.random.default_rng(0)
    weight = (generator.standard_normal((4, 4, 3, 3)) / 4).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "w"))
    samples = tmp_path / "samples.npz"
    np.savez(samples, x=generator.standard_normal((16, 4, 8, 8)).astype(np.float32))
    result = optimize(
        saved(model, tmp_path),
        "npu1",
        calibration=samples,
        budget=Budget.parse(max_drop="2%"),
        estimator="nwot",
        executor=Immediately(),
        cache=False,
    )
    assert result.status in ("optimized", "unchanged")
