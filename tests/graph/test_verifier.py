"""The verifier catches every way in which a pass can break a graph."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
import onnx_graphsurgeon as gs
import pytest

from actcc.errors import PassError
from actcc.graph import Graph, Interface, verify


def net() -> Graph:
    return Graph.load(
        onnx.parser.parse_model(
            """
            <ir_version: 8, opset_import: ["" : 17]>
            net (float["N",4] x, bool c) => (float["N",4] y, float["N",4] z)
            {
              [relu] a = Relu(x)
              [neg] y = Neg(a)
              [if] z = If(c) <
                then_branch = then_graph () => (float["N",4] t) { t = Neg(a) },
                else_branch = else_graph () => (float["N",4] e) { e = Abs(a) }
              >
            }
            """
        )
    )


def node(graph: Graph, name: str) -> gs.Node:
    return next(n for n in graph._surgeon.nodes if n.name == name)


def rename_output(graph: Graph) -> None:
    graph._surgeon.outputs[0].name = "other"


def swap_outputs(graph: Graph) -> None:
    graph._surgeon.outputs.reverse()


def drop_output(graph: Graph) -> None:
    graph._surgeon.outputs.pop()


def drop_input(graph: Graph) -> None:
    graph._surgeon.inputs.pop()


def add_input(graph: Graph) -> None:
    graph._surgeon.inputs.append(gs.Variable("more", np.float32, [1]))


def share_a_node_name(graph: Graph) -> None:
    node(graph, "neg").name = "relu"


def write_twice(graph: Graph) -> None:
    node(graph, "relu").outputs[0].name = "y"


def read_what_nothing_writes(graph: Graph) -> None:
    graph.set_input(node(graph, "neg"), 0, gs.Variable("dangling"))


def take_what_a_subgraph_reads(graph: Graph) -> None:
    relu = node(graph, "relu")
    graph.set_input(node(graph, "neg"), 0, "x")
    graph._surgeon.nodes.remove(relu)


def leave_an_output_without_writer(graph: Graph) -> None:
    graph._surgeon.nodes.remove(node(graph, "neg"))


def change_the_shape(graph: Graph) -> None:
    graph.set_input(node(graph, "neg"), 0, graph.insert("Concat", ["a", "a"], axis=1))


def change_the_rank(graph: Graph) -> None:
    graph.set_input(node(graph, "neg"), 0, graph.insert("Unsqueeze", ["a", np.array([0])]))


def change_the_type(graph: Graph) -> None:
    half = onnx.TensorProto.FLOAT16
    graph.set_input(node(graph, "neg"), 0, graph.insert("Cast", ["a"], to=half))


def contradict_the_shapes(graph: Graph) -> None:
    weights = np.ones((3, 3), np.float32)
    graph.set_input(node(graph, "neg"), 0, graph.insert("MatMul", ["a", weights]))


def make_a_cycle(graph: Graph) -> None:
    graph.set_input(node(graph, "relu"), 0, "y")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (rename_output, "inputs or outputs changed"),
        (swap_outputs, "inputs or outputs changed"),
        (drop_output, "inputs or outputs changed"),
        (drop_input, "'if' reads 'c', which nothing before it writes"),
        (add_input, "inputs or outputs changed"),
        (share_a_node_name, "two nodes are named 'relu'"),
        (write_twice, "'y'"),
        (read_what_nothing_writes, "'neg' reads 'dangling', which nothing before it writes"),
        (take_what_a_subgraph_reads, "'if' reads 'a', which nothing before it writes"),
        (leave_an_output_without_writer, "'y'"),
        (change_the_shape, "output 'y' changed from"),
        (change_the_rank, "output 'y' changed from"),
        (change_the_type, "shape inference failed|output 'y' changed from"),
        (contradict_the_shapes, "shape inference failed"),
        (make_a_cycle, "lies on a cycle"),
    ],
)
def test_damage_is_caught_and_blamed(damage: Callable[[Graph], None], message: str) -> None:
    graph = net()
    interface = Interface.of(graph)
    damage(graph)
    graph._touch()
    with pytest.raises(PassError, match=message) as caught:
        verify(graph, interface, ["first", "second"])
    assert "pass 'second' (after: first)" in str(caught.value)
    assert "skip it by name" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_an_untouched_graph_passes() -> None:
    verify(net(), Interface.of(net()), [])


def test_a_symbolic_dimension_may_become_known_but_not_the_other_way() -> None:
    symbolic = net()
    bound = net().with_input_shapes({"x": (2, 4)})
    verify(bound, Interface.of(symbolic), ["first"])
    with pytest.raises(PassError, match="output 'y' changed"):
        verify(symbolic, Interface.of(bound), ["first"])
