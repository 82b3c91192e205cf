"""Questions: nodes by attribute, producers, consumers."""

from __future__ import annotations

import onnx
from small_graphs import branching, chain

from actcc.graph import Graph


def test_it_is_known_which_tensors_subgraphs_read() -> None:
    graph = branching("a")
    assert graph.is_read_in_subgraph("a")
    assert not graph.is_read_in_subgraph("x")
    assert len(graph.consumers("a")) == 3


def test_nodes_are_found_by_attribute_and_by_constant_input_alike() -> None:
    old = Graph.load(
        onnx.parser.parse_model(
            """
            <ir_version: 4, opset_import: ["" : 6]>
            net (float[4] x) => (float[4] y) { y = Clip<min=0.0, max=6.0>(x) }
            """
        )
    )
    new = Graph.load(
        onnx.parser.parse_model(
            """
            <ir_version: 8, opset_import: ["" : 17]>
            net (float[4] x) => (float[4] y) <float l = {0.0}>
            { h = Constant<value_float = 6.0>()  y = Clip(x, l, h) }
            """
        )
    )
    for graph in (old, new):
        assert len(list(graph.nodes("Clip", min=0, max=6))) == 1
        assert not list(graph.nodes("Clip", min=0, max=1))
        assert not list(graph.nodes("Clip", low=0))
        clip = next(graph.nodes("Clip"))
        assert graph.argument(clip, "max") == 6
        assert graph.argument(clip, "absent", "nothing") == "nothing"


def test_an_operator_of_another_domain_is_not_taken_for_onnx() -> None:
    graph = chain()
    graph.insert("Gelu", ["a"], domain="com.microsoft")
    assert not list(graph.nodes("Gelu"))


def test_producers_and_consumers_are_known() -> None:
    graph = chain(**{"Abs(c)": "Add(c, a)"})
    assert graph.producer("x") is None
    assert graph.producer("w") is None
    assert graph.producer("b").name == "mul"
    assert [node.name for node in graph.consumers("a")] == ["mul", "abs"]
    assert graph.consumers("y") == []


def test_a_node_that_reads_a_tensor_twice_is_one_consumer() -> None:
    graph = chain(**{"Abs(c)": "Mul(c, c)"})
    assert [node.name for node in graph.consumers("c")] == ["abs"]
