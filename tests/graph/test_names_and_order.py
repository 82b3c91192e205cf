"""Nodes in any order and with any names, or none: what a loaded graph makes of them."""

from __future__ import annotations

import onnx
import pytest
from onnx import helper

from actcc.errors import ModelError
from actcc.graph import Graph


def parsed(text: str) -> onnx.ModelProto:
    model = onnx.parser.parse_model(text)
    onnx.checker.check_model(model)
    return model


def nodes_of(model: onnx.ModelProto) -> list[onnx.NodeProto]:
    return list(model.graph.node)


def test_nodes_without_names_get_unique_ones_and_named_ones_keep_theirs() -> None:
    model = parsed(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[2] x) => (float[2] y) {
          a = Relu(x)
          b = Neg(a)
          [Neg_1] c = Abs(b)
          y = Exp(c)
        }
        """
    )
    names = [node.name for node in Graph.load(model).nodes()]
    assert len(set(names)) == 4
    assert names[2] == "Neg_1"
    assert all(names)


def test_nodes_that_share_a_name_are_told_apart() -> None:
    model = parsed(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[2] x) => (float[2] y) { [n] a = Relu(x)  [n] b = Neg(a)  [n_1] y = Abs(b) }
        """
    )
    model.graph.node[1].doc_string = "the second"
    graph = Graph.load(model)
    assert [(n.op, n.name) for n in graph.nodes()] == [
        ("Relu", "n"),
        ("Neg", "n_2"),
        ("Abs", "n_1"),
    ]
    assert [n.doc_string for n in graph.to_proto().graph.node] == ["", "the second", ""]


def test_nodes_out_of_order_are_sorted() -> None:
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node("Neg", ["a"], ["y"]), helper.make_node("Relu", ["x"], ["a"])],
            "net",
            [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [2])],
            [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [2])],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    assert [node.op for node in Graph.load(model).nodes()] == ["Relu", "Neg"]


def test_a_cycle_is_refused() -> None:
    model = helper.make_model(
        helper.make_graph(
            [helper.make_node("Add", ["x", "b"], ["a"]), helper.make_node("Neg", ["a"], ["b"])],
            "net",
            [helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [2])],
            [helper.make_tensor_value_info("b", onnx.TensorProto.FLOAT, [2])],
        ),
        opset_imports=[helper.make_opsetid("", 17)],
        ir_version=8,
    )
    with pytest.raises(ModelError, match="lies on a cycle"):
        list(Graph.load(model).nodes())
