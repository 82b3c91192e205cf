"""What a model holds comes back after loading and exporting."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import helper

from actcc.graph import Graph, content_hash
from actcc.graph.compare import compare


def parsed(text: str) -> onnx.ModelProto:
    model = onnx.parser.parse_model(text)
    onnx.checker.check_model(model)
    return model


def round_trip(model: onnx.ModelProto) -> onnx.ModelProto:
    result = Graph.load(model).to_proto()
    onnx.checker.check_model(result)
    return result


def nodes_of(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return list(model.graph.node)


BRANCHES = """
    <ir_version: 8, opset_import: ["" : 17]>
    branches (float[2] x, bool c) => (float[2] y) {
      a = Relu(x)
      y = If(c) <
        then_branch = then_graph () => (float[2] t) { t = Neg(a) },
        else_branch = else_graph () => (float[2] e) { e = Identity(x) }
      >
    }
"""


def test_an_untouched_model_keeps_nodes_inputs_outputs_and_header() -> None:
    model = parsed(
        """
        <ir_version: 9, opset_import: ["" : 19, "ai.onnx.ml" : 3], producer_name: "exporter",
         producer_version: "1.2", doc_string: "about the model", model_version: 7,
         metadata_props: ["licence": "MIT"]>
        net (float["N", 3] x) => (float["N", 3] y) <float[3] w = {1.0, 2.0, 3.0}>
        {
          [first] a = Mul(x, w)
          [second] y = Clip(a)
        }
        """
    )
    result = round_trip(model)
    assert nodes_of(result) == nodes_of(model)
    assert list(result.graph.input) == list(model.graph.input)
    assert list(result.graph.output) == list(model.graph.output)
    assert result.graph.name == "net"
    for field in ("ir_version", "producer_name", "producer_version", "doc_string", "model_version"):
        assert getattr(result, field) == getattr(model, field)
    assert list(result.metadata_props) == list(model.metadata_props)
    assert {(e.domain, e.version) for e in result.opset_import} == {("", 19), ("ai.onnx.ml", 3)}


def test_metadata_and_documentation_of_nodes_come_back() -> None:
    model = parsed(
        """
        <ir_version: 10, opset_import: ["" : 21]>
        net (float[1] x) => (float[1] y) { [only] y = Relu(x) }
        """
    )
    model.graph.node[0].doc_string = "layer4/act"
    model.graph.node[0].metadata_props.add(key="pkg.torch.onnx.name_scopes", value="['layer4']")
    assert nodes_of(round_trip(model)) == nodes_of(model)


def test_documentation_of_inputs_and_outputs_comes_back() -> None:
    model = parsed(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[1] x) => (float[1] y) { y = Relu(x) }
        """
    )
    model.graph.input[0].doc_string = "what goes in"
    model.graph.output[0].doc_string = "what comes out"
    result = round_trip(model)
    assert result.graph.input[0].doc_string == "what goes in"
    assert result.graph.output[0].doc_string == "what comes out"


def test_functions_come_back_and_are_called() -> None:
    model = parsed(
        """
        <ir_version: 8, opset_import: ["" : 17, "local" : 1]>
        net (float[2] x) => (float[2] y) { y = local.twice (x) }
        <opset_import: ["" : 17], domain: "local">
        twice (a) => (b) { b = Add(a, a) }
        """
    )
    result = round_trip(model)
    assert list(result.functions) == list(model.functions)
    assert compare(model, result, [{"x": np.array([1.0, -2.0], np.float32)}]).agrees(0)


def test_subgraphs_come_back_with_what_they_read_from_outside() -> None:
    model = parsed(BRANCHES)
    result = round_trip(model)
    before, after = (next(n for n in m.graph.node if n.op_type == "If") for m in (model, result))
    assert list(after.attribute) == list(before.attribute)
    for choice in (True, False):
        feeds = {"x": np.array([1.0, -2.0], np.float32), "c": np.array(choice)}
        assert compare(model, result, [feeds]).agrees(0)


def test_a_weight_that_only_subgraphs_read_comes_back_where_it_was() -> None:
    model = parsed(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[2] x, bool c) => (float[2] y) <float[2] w = {1.0, 2.0}, float[2] v = {3.0, 4.0}>
        {
          y = If(c) <
            then_branch = then_graph () => (float[2] t) { t = Mul(x, w) },
            else_branch = else_graph () => (float[2] e) {
              e = If(c) <
                then_branch = t2 () => (float[2] u) { u = Mul(x, w) },
                else_branch = e2 () => (float[2] z) <float[2] own = {5.0, 6.0}>
                  { s = Mul(x, v)  z = Add(s, own) }
              >
            }
          >
        }
        """
    )
    graph = Graph.load(model)
    for result in (graph.to_proto(), graph.copy().to_proto(), round_trip(round_trip(model))):
        onnx.checker.check_model(result)
        assert sorted(t.name for t in result.graph.initializer) == ["v", "w"]
        for choice in (True, False):
            feeds = {"x": np.array([1.0, -2.0], np.float32), "c": np.array(choice)}
            assert compare(model, result, [feeds]).agrees(0)


def test_metadata_and_documentation_of_the_graph_come_back() -> None:
    model = parsed(BRANCHES)
    model.graph.doc_string = "what it does"
    model.graph.metadata_props.add(key="scope", value="root")
    result = round_trip(model)
    assert result.graph.doc_string == "what it does"
    assert list(result.graph.metadata_props) == list(model.graph.metadata_props)


def test_a_sequence_output_keeps_its_type() -> None:
    model = parsed(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[4] x) => (seq(float[N]) y) { y = SplitToSequence <axis = 0> (x) }
        """
    )
    result = round_trip(model)
    assert result.graph.output[0].type.HasField("sequence_type")
    assert compare(model, result, [{"x": np.arange(4, dtype=np.float32)}]).agrees(0)


def test_attributes_of_every_kind_come_back() -> None:
    node = helper.make_node(
        "Anything",
        ["x"],
        ["y"],
        name="custom",
        domain="my.domain",
        text="näh",
        texts=["a", "b"],
        number=3,
        numbers=[1, 2, 3],
        real=0.5,
        reals=[0.25, 0.75],
        tensor=helper.make_tensor("t", onnx.TensorProto.FLOAT, [2], [1.0, 2.0]),
    )
    node.attribute.append(
        helper.make_attribute(
            "sparse",
            helper.make_sparse_tensor(
                helper.make_tensor("v", onnx.TensorProto.FLOAT, [1], [3.0]),
                helper.make_tensor("i", onnx.TensorProto.INT64, [1], [1]),
                [4],
            ),
        )
    )
    node.attribute.append(
        helper.make_attribute("type", helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, [2]))
    )
    model = helper.make_model(
        helper.make_graph(
            [node],
            "net",
            [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [2])],
            [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [2])],
        ),
        opset_imports=[helper.make_opsetid("", 17), helper.make_opsetid("my.domain", 1)],
        ir_version=8,
    )
    before = {a.name: a for a in model.graph.node[0].attribute}
    after = {a.name: a for a in Graph.load(model).to_proto().graph.node[0].attribute}
    assert after.keys() == before.keys()
    for name in before.keys() - {"tensor"}:
        assert after[name] == before[name], name
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(after["tensor"].t), [1.0, 2.0])


def test_string_tensors_come_back() -> None:
    model = parsed(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        net (string[2] x) => (string[4] y) <string[2] w = {"a", "b"}> { y = Concat <axis=0> (x, w) }
        """
    )
    graph = Graph.load(model)
    np.testing.assert_array_equal(graph.constant("w"), np.array(["a", "b"], object))
    result = graph.to_proto()
    feeds = {"x": np.array(["c", "d"], object)}
    assert compare(model, result, [feeds]).agrees(0)


@pytest.mark.parametrize(
    "element", [onnx.TensorProto.BFLOAT16, onnx.TensorProto.FLOAT8E4M3FN, onnx.TensorProto.INT4]
)
def test_weights_of_small_types_come_back_bit_by_bit(element: int) -> None:
    weights = helper.make_tensor("w", element, [4], [1, 2, 3, 4])
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node("Cast", ["w"], ["y"], to=onnx.TensorProto.FLOAT)],
            "net",
            [],
            [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [4])],
            [weights],
        ),
        opset_imports=[helper.make_opsetid("", 21)],
        ir_version=10,
    )
    graph = Graph.load(model)
    assert graph.constant("w") is not None
    result = graph.to_proto().graph.initializer[0]
    assert result.data_type == element
    np.testing.assert_array_equal(
        onnx.numpy_helper.to_array(result).astype(np.float32),
        onnx.numpy_helper.to_array(weights).astype(np.float32),
    )


def test_sparse_weights_come_back_and_are_no_constant_for_a_pass() -> None:
    sparse = helper.make_sparse_tensor(
        helper.make_tensor("w", onnx.TensorProto.FLOAT, [1], [3.0]),
        helper.make_tensor("indices", onnx.TensorProto.INT64, [1], [1]),
        [4],
    )
    model = parsed(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[4] x) => (float[4] y) <float[4] w = {0.0, 0.0, 0.0, 0.0}> { y = Mul(x, w) }
        """
    )
    del model.graph.initializer[:]
    model.graph.sparse_initializer.append(sparse)
    graph = Graph.load(model)
    assert graph.constant("w") is None
    assert list(graph.to_proto().graph.sparse_initializer) == [sparse]
    assert compare(model, graph, [{"x": np.ones(4, np.float32)}]).agrees(0)


def test_optional_inputs_and_outputs_that_are_left_out_stay_left_out() -> None:
    model = parsed(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[4] x) => (float[4] y) <float h = {6.0}> { y = Clip(x, , h) }
        """
    )
    assert list(round_trip(model).graph.node[0].input) == ["x", "", "h"]


def test_an_output_that_is_an_input_comes_back() -> None:
    model = parsed(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[4] x) => (float[4] x, float[4] y) { y = Relu(x) }
        """
    )
    assert [o.name for o in round_trip(model).graph.output] == ["x", "y"]


def test_an_output_that_is_an_initializer_comes_back() -> None:
    model = parsed(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[2] x) => (float[2] y, float[2] w) <float[2] w = {1.0, 2.0}> { y = Relu(x) }
        """
    )
    result = round_trip(model)
    assert [o.name for o in result.graph.output] == ["y", "w"]
    assert compare(model, result, [{"x": np.ones(2, np.float32)}]).agrees(0)


def test_initializers_listed_as_inputs_stay_overridable() -> None:
    model = parsed(
        """
        <ir_version: 7, opset_import: ["" : 9]>
        net (float[2] x, float[2] w) => (float[2] y) <float[2] w = {1.0, 2.0}> { y = Mul(x, w) }
        """
    )
    graph = Graph.load(model)
    assert [t.name for t in graph.inputs] == ["x"]
    assert graph.overridable == {"w"}
    assert graph.constant("w") is None
    result = graph.to_proto()
    assert [i.name for i in result.graph.input] == ["x", "w"]
    assert result.ir_version == 7
    feeds = {"x": np.ones(2, np.float32), "w": np.array([5.0, 7.0], np.float32)}
    assert compare(model, result, [feeds]).agrees(0)


def test_a_copy_is_independent_of_its_original() -> None:
    graph = Graph.load(parsed(BRANCHES))
    before = content_hash(graph)
    twin = graph.copy()
    relu = next(twin.nodes("Relu"))
    twin.set_input(relu, 0, np.ones(2, np.float32))
    assert content_hash(graph) == before
    assert content_hash(twin) != before


def test_the_content_hash_sees_weights_and_structure_but_not_the_file() -> None:
    text = """
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[2] x) => (float[2] y) <float[2] w = {1.0, %s}> { y = %s(x, w) }
    """
    hashes = [
        content_hash(Graph.load(parsed(text % filled)))
        for filled in (("2.0", "Mul"), ("2.5", "Mul"), ("2.0", "Add"), ("2.0", "Mul"))
    ]
    assert hashes[0] == hashes[3]
    assert len(set(hashes)) == 3
