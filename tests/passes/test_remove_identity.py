"""Nodes that pass their input through."""

from __future__ import annotations

import onnx
import pytest

from actcc.graph import Graph, Interface, verify
from actcc.graph.compare import compare
from actcc.passes.remove_identity import RemoveIdentity
from actcc.runtime import random_feeds


def net(
    body: str,
    outputs: str = "float[2,3] y",
    constants: str = "",
    opset: int = 17,
    inputs: str = "float[2,3] x",
) -> Graph:
    model = onnx.parser.parse_model(
        f"""
        <ir_version: 8, opset_import: ["" : {opset}]>
        net ({inputs}) => ({outputs}) {f"<{constants}>" if constants else ""} {{ {body} }}
        """
    )
    onnx.checker.check_model(model)
    return Graph.load(model)


def operators_after(graph: Graph) -> list[str]:
    result, notes = RemoveIdentity().run(graph.copy())
    verify(result, Interface.of(graph), ["remove-identity"])
    assert compare(graph, result, [random_feeds(graph, 0)]).agrees(0)
    before, after = ([node.op for node in g.nodes()] for g in (graph, result))
    assert bool(notes) == (before != after)
    return after


@pytest.mark.parametrize(
    ("node", "constants"),
    [
        ("Identity(a)", ""),
        ("Dropout(a)", ""),
        ("Dropout(a, half)", "float half = {0.5}"),
        ("Dropout(a, half, no)", "float half = {0.5}, bool no = {0}"),
        ("Cast<to=1>(a)", ""),
        ("Transpose<perm=[0,1]>(a)", ""),
        ("Reshape(a, s)", "int64[2] s = {2, 3}"),
        ("Reshape(a, s)", "int64[2] s = {0, -1}"),
        ("Flatten(a)", ""),
        ("Expand(a, s)", "int64[2] s = {2, 3}"),
        ("Tile(a, s)", "int64[2] s = {1, 1}"),
        ("Concat<axis=0>(a)", ""),
        ("Sum(a)", ""),
        ("Max(a)", ""),
        ("Min(a)", ""),
        ("Mean(a)", ""),
    ],
)
def test_a_node_that_changes_nothing_is_removed(node: str, constants: str) -> None:
    assert operators_after(net(f"a = Relu(x)  b = {node}  y = Neg(b)", constants=constants)) == [
        "Relu",
        "Neg",
    ]
    assert operators_after(net(f"a = Relu(x)  y = {node}", constants=constants)) == ["Relu"]


@pytest.mark.parametrize(
    ("node", "constants"),
    [
        ("Cast<to=11>(a)", ""),
        ("Transpose<perm=[1,0]>(a)", ""),
        ("Transpose(a)", ""),
        ("Reshape(a, s)", "int64[2] s = {3, 2}"),
        ("Reshape(a, s)", "int64[3] s = {1, 2, 3}"),
        ("Expand(a, s)", "int64[3] s = {4, 2, 3}"),
        ("Tile(a, s)", "int64[2] s = {1, 2}"),
        ("Sum(a, a)", ""),
        ("Concat<axis=0>(a, a)", ""),
        (
            "Slice(a, start, end, axis, step)",
            "int64[1] start = {-1}, int64[1] end = {-9},int64[1] axis = {0}, int64[1] step = {-1}",
        ),
        ("Pad(a, pads)", "int64[4] pads = {1, 0, -1, 0}"),
    ],
)
def test_a_node_that_changes_something_stays(node: str, constants: str) -> None:
    graph = net(f"a = Relu(x)  b = {node}  y = Abs(b)", "double y", constants)
    graph = net(f"a = Relu(x)  b = {node}  y = Shape(b)", "int64[r] y", constants)
    assert len(operators_after(graph)) == 3


def test_a_chain_of_them_goes_at_once() -> None:
    body = "a = Identity(x)  b = Identity(a)  c = Dropout(b)  d = Relu(c)  y = Identity(d)"
    assert operators_after(net(body)) == ["Relu"]


def test_an_identity_from_input_to_output_stays_untouched() -> None:
    graph = net("[same] y = Identity(x)")
    result, notes = RemoveIdentity().run(graph.copy())
    assert notes == []
    assert [node.name for node in result.nodes()] == ["same"]


def test_another_node_from_input_to_output_becomes_an_identity() -> None:
    result, _ = RemoveIdentity().run(net("y = Dropout(x)"))
    nodes = list(result.to_proto().graph.node)
    assert [node.op_type for node in nodes] == ["Identity"]
    assert {p.key: p.value for p in nodes[0].metadata_props}["actcc.pass"] == "remove-identity"


def test_an_identity_between_two_outputs_stays() -> None:
    graph = net("a = Relu(x)  y = Identity(a)", "float[2,3] y, float[2,3] a")
    assert operators_after(graph) == ["Relu", "Identity"]


def test_an_identity_from_a_constant_to_an_output_stays() -> None:
    graph = net("z = Identity(w)  y = Relu(x)", "float[2,3] y, float[1] z", "float[1] w = {3.0}")
    assert sorted(operators_after(graph)) == ["Identity", "Relu"]


def test_an_identity_behind_another_output_is_removed_for_its_readers() -> None:
    graph = net("a = Relu(x)  b = Identity(a)  y = Neg(b)", "float[2,3] y, float[2,3] a")
    assert operators_after(graph) == ["Relu", "Neg"]


def test_a_dropout_in_training_mode_stays() -> None:
    graph = net(
        "a = Relu(x)  b = Dropout(a, half, yes)  y = Shape(b)",
        "int64[2] y",
        "float half = {0.5}, bool yes = {1}",
    )
    assert operators_after(graph) == ["Relu", "Dropout", "Shape"]


def test_a_dropout_whose_mode_a_caller_chooses_stays() -> None:
    graph = net(
        "a = Relu(x)  b = Dropout(a, half, training)  y = Shape(b)",
        "int64[2] y",
        "float half = {0.5}",
        inputs="float[2,3] x, bool training",
    )
    assert operators_after(graph) == ["Relu", "Dropout", "Shape"]


def test_a_dropout_whose_mask_is_read_stays() -> None:
    graph = net("a = Relu(x)  y, m = Dropout(a)", "float[2,3] y, bool[2,3] m")
    assert operators_after(graph) == ["Relu", "Dropout"]


def test_a_dropout_whose_mask_is_not_read_is_removed() -> None:
    assert operators_after(net("a = Relu(x)  b, m = Dropout(a)  y = Neg(b)")) == ["Relu", "Neg"]


def test_an_old_dropout_is_removed_where_it_is_said_to_be_at_rest() -> None:
    for attributes, expected in (("<is_test=1>", 2), ("<is_test=0>", 3), ("", 3)):
        graph = net(f"a = Relu(x)  b = Dropout{attributes}(a)  y = Neg(b)", opset=6)
        result, _ = RemoveIdentity().run(graph)
        assert len(list(result.nodes())) == expected


def test_a_reshape_of_a_dynamic_shape_stays() -> None:
    graph = net(
        "a = Relu(x)  b = Reshape(a, s)  y = Neg(b)",
        'float["M",3] y',
        "int64[2] s = {-1, 3}",
        inputs='float["N",3] x',
    )
    result, _ = RemoveIdentity().run(graph)
    assert len(list(result.nodes())) == 3


def test_an_identity_that_a_subgraph_reads_leaves_it_its_name() -> None:
    graph = net(
        """
        a = Relu(x)  b = Identity(a)
        y = If(c) <then_branch = t () => (float[2,3] p) { p = Neg(b) },
                   else_branch = e () => (float[2,3] q) { q = Identity(b) }>
        """,
        inputs="float[2,3] x, bool c",
    )
    assert operators_after(graph) == ["Relu", "If"]


def test_an_identity_of_a_sequence_is_removed() -> None:
    graph = net(
        "s = SplitToSequence<axis=0>(x)  t = Identity(s)  y = ConcatFromSequence<axis=0>(t)"
    )
    assert operators_after(graph) == ["SplitToSequence", "ConcatFromSequence"]
