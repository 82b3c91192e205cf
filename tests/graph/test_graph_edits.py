"""Edits: insert, replace, bypass, remove, operator sets."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from small_graphs import ONE, branching, chain, checked, operators

from actcc.errors import PassError
from actcc.graph import Graph, Interface, verify
from actcc.graph.compare import compare
from actcc.runtime import random_feeds, run, session
from actcc.site import Site


def test_an_inserted_node_has_a_new_output_that_can_be_read() -> None:
    graph = chain()
    doubled = graph.insert("Mul", ["a", np.float32(2)])
    graph.set_input(graph.node("mul"), 0, doubled)
    checked(graph, chain())
    assert operators(graph) == ["Relu", "Mul", "Mul", "Neg", "Abs"]
    result = run(session(graph), {"x": ONE})
    np.testing.assert_allclose(result["y"], [2, 4, 6, 8])


def test_an_inserted_node_of_another_domain_imports_it() -> None:
    graph = chain()
    swish = graph.insert("QuickGelu", ["a"], domain="com.microsoft", like="a", alpha=1.0)
    graph.set_input(graph.node("mul"), 0, swish)
    assert graph.opsets == {"": 17, "com.microsoft": 1}
    assert graph.shape(swish) == (4,)
    checked(graph, chain())


def test_a_new_node_never_takes_a_name_that_is_there() -> None:
    graph = Graph.load(Graph.load(chain().to_proto()).to_proto())
    first, second = (graph.insert("Neg", ["a"]) for _ in range(2))
    reloaded = Graph.load(graph.to_proto())
    third = reloaded.insert("Neg", ["a"])
    names = [first.name, second.name, third.name]
    names += [node.name for node in (*graph.nodes(), reloaded.producer(third)) if node is not None]
    assert len(set(names)) == len(names)


def test_nodes_made_inside_a_marking_say_who_made_them() -> None:
    graph = chain()
    with graph.marking("my-pass", "a", "LeakyRelu"):
        graph.replace(Site(["relu"], "x", "a"), op="LeakyRelu", inputs=["x"], alpha=0.1)
    node = next(n for n in graph.to_proto().graph.node if n.op_type == "LeakyRelu")
    assert {p.key: p.value for p in node.metadata_props} == {
        "actcc.pass": "my-pass",
        "actcc.site": "a",
        "actcc.candidate": "LeakyRelu",
    }
    again = Graph.load(graph.to_proto()).copy().to_proto()
    assert next(n for n in again.graph.node if n.op_type == "LeakyRelu") == node


def test_replacing_a_node_keeps_the_name_of_its_output() -> None:
    graph = chain()
    graph.replace(Site(["abs"], "c", "y"), op="Exp", inputs=["c"])
    checked(graph, chain())
    assert operators(graph) == ["Relu", "Mul", "Neg", "Exp"]


def test_replacing_several_nodes_takes_them_all() -> None:
    graph = chain()
    graph.replace(Site(["mul", "neg"], "a", "c"), op="Mul", inputs=["a", np.float32(-1)])
    checked(graph, chain())
    assert operators(graph) == ["Relu", "Mul", "Abs"]
    assert [t.name for t in graph.node("abs").inputs] == ["c"]


def test_replacing_refuses_to_take_a_tensor_that_is_read_elsewhere() -> None:
    graph = chain(**{"Abs(c)": "Add(c, b)"})
    with pytest.raises(PassError, match="'b' inside the site is used outside it"):
        graph.replace(Site(["mul", "neg"], "a", "c"), op="Neg", inputs=["a"])
    checked(graph, chain())


def test_replacing_refuses_to_take_an_output() -> None:
    graph = chain(**{"(float[4] y)": "(float[4] y, float[4] b)"})
    before = Interface.of(graph)
    with pytest.raises(PassError, match="'b' inside the site is used outside it"):
        graph.replace(Site(["mul", "neg"], "a", "c"), op="Neg", inputs=["a"])
    verify(graph, before, ["test"])


def test_replacing_refuses_to_take_a_tensor_that_a_subgraph_reads() -> None:
    graph = branching("a")
    with pytest.raises(PassError, match="'a' inside the site is used outside it"):
        graph.replace(Site(["relu", "copy"], "x", "b"), op="Relu", inputs=["x"])


def test_a_node_that_is_gone_is_said_to_be_gone() -> None:
    graph = chain()
    site = Site(["neg"], "b", "c")
    graph.replace(site, op="Exp", inputs=["b"])
    with pytest.raises(PassError, match="no node 'neg'; it may have been rewritten already"):
        graph.replace(site, op="Exp", inputs=["b"])


def test_bypassing_a_node_lets_its_readers_read_the_source() -> None:
    graph = chain()
    graph.bypass(Site(["mul"], "a", "b"), "a")
    checked(graph, chain())
    assert operators(graph) == ["Relu", "Neg", "Abs"]
    assert "w" not in {t.name for t in graph.to_proto().graph.initializer}


def test_bypassing_the_last_node_keeps_the_name_of_the_output() -> None:
    graph = chain()
    graph.bypass(Site(["abs"], "c", "y"), "c")
    checked(graph, chain())
    assert operators(graph) == ["Relu", "Mul", "Neg"]
    assert [t.name for t in graph.node("neg").outputs] == ["y"]


def test_bypassing_the_last_node_keeps_other_readers_of_the_source() -> None:
    graph = chain(**{"(float[4] y)": "(float[4] y, float[4] d)", "Abs(c)": "Abs(c) d = Exp(c)"})
    before = graph.copy()
    graph.bypass(Site(["abs"], "c", "y"), "c")
    checked(graph, before)
    assert [t.name for t in next(graph.nodes("Exp")).inputs] == ["y"]


def test_an_identity_stays_between_an_input_and_an_output() -> None:
    graph = chain()
    graph.bypass(Site(["relu", "mul", "neg", "abs"], "x", "y"), "x")
    checked(graph, chain())
    assert operators(graph) == ["Identity"]


def test_an_identity_stays_between_two_outputs() -> None:
    graph = chain(**{"(float[4] y)": "(float[4] y, float[4] c)"})
    before = graph.copy()
    graph.bypass(Site(["abs"], "c", "y"), "c")
    checked(graph, before)
    assert operators(graph) == ["Relu", "Mul", "Neg", "Identity"]


def test_a_tensor_that_a_subgraph_reads_keeps_its_name() -> None:
    before = branching("b")
    graph = before.copy()
    graph.bypass(Site(["copy"], "a", "b"), "a")
    checked(graph, before)
    assert operators(graph) == ["Relu", "If"]
    for choice in (True, False):
        feeds = {"x": np.array([-1, 2, -3, 4], np.float32), "c": np.array(choice)}
        assert compare(before, graph, [feeds]).agrees(0)


def test_an_identity_stays_before_a_subgraph_that_reads_what_an_input_gives() -> None:
    before = branching("a")
    graph = before.copy()
    graph.bypass(Site(["relu"], "x", "a"), "x")
    checked(graph, before)
    assert operators(graph) == ["Identity", "If"]


def test_redirected_nodes_read_the_new_tensor_at_every_place_and_others_the_old_one() -> None:
    graph = chain(**{"Neg(b)": "Add(b, b)", "Abs(c)": "Add(c, b)"})
    graph.redirect([graph.node("neg")], graph.tensor("b"), graph.tensor("a"))
    assert [t.name for t in graph.node("neg").inputs] == ["a", "a"]
    assert [t.name for t in graph.node("abs").inputs] == ["c", "b"]
    checked(graph, chain())


def test_an_input_can_be_appended() -> None:
    graph = Graph.load(
        onnx.parser.parse_model(
            """
            <ir_version: 8, opset_import: ["" : 17]>
            net (float[1,2] x) => (float[1,2] y) <float[2,2] w = {1.0, 0.0, 0.0, 1.0}>
            { [gemm] y = Gemm(x, w) }
            """
        )
    )
    graph.append_input(graph.node("gemm"), np.array([1, 2], np.float32))
    result = run(session(graph), {"x": np.zeros((1, 2), np.float32)})
    np.testing.assert_array_equal(result["y"], [[1, 2]])


def test_an_attribute_can_be_set() -> None:
    graph = Graph.load(
        onnx.parser.parse_model(
            """
            <ir_version: 8, opset_import: ["" : 17]>
            net (float[2] x) => (float[2] y) { [act] y = LeakyRelu<alpha=0.5>(x) }
            """
        )
    )
    graph.set_attribute(graph.node("act"), "alpha", 0.25)
    result = run(session(graph), {"x": np.full(2, -4, np.float32)})
    np.testing.assert_array_equal(result["y"], [-1, -1])


def test_pruning_takes_what_nothing_reads_and_nothing_else() -> None:
    graph = chain()
    graph.insert("Exp", [graph.insert("Neg", ["a"])])
    assert len(operators(graph)) == 6
    graph.prune()
    assert operators(graph) == ["Relu", "Mul", "Neg", "Abs"]


def test_equal_nodes_are_told_apart() -> None:
    graph = chain(
        **{"(float[4] y)": "(float[4] y, float[4] d)", "Abs(c)": "Abs(c) [twin] d = Abs(c)"}
    )
    before = graph.copy()
    graph.replace(Site(["twin"], "c", "d"), op="Exp", inputs=["c"])
    checked(graph, before)
    assert [t.name for t in graph.node("abs").outputs] == ["y"]


def test_weights_of_another_size_outdate_what_the_file_declares_behind_them() -> None:
    text = """
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[2,8] x) => (float[2,4] y)
        { a = Gemm(x, w)  b = Relu(a)  y = Gemm(b, v) }
    """
    model = onnx.parser.parse_model(text)
    weights = {"w": np.ones((8, 6), np.float32), "v": np.ones((6, 4), np.float32)}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(v, n) for n, v in weights.items())
    graph = Graph.load(onnx.shape_inference.infer_shapes(model))
    assert {info.name for info in graph.to_proto().graph.value_info} >= {"a", "b"}
    first, _, last = graph.nodes()
    graph.set_input(first, 1, weights["w"][:, :3])
    graph.set_input(last, 1, weights["v"][:3])
    assert graph.shape("b") == (2, 3)
    found = run(session(graph), {"x": np.ones((2, 8), np.float32)})["y"]
    assert found.tolist() == [[24.0] * 4] * 2


def test_types_follow_an_edit() -> None:
    graph = chain()
    assert graph.shape("c") == (4,)
    wide = graph.insert("Unsqueeze", ["a", np.array([0])])
    assert graph.shape(wide) == (1, 4)
    assert graph.dtype(wide) == np.float32
    feeds = random_feeds(graph, 0)
    assert feeds["x"].shape == (4,)


def test_a_newer_operator_set_keeps_metadata_and_the_interface() -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 11]> network (float[1, 4] x) => (float[1, 4] y) '
        "{ [first] a = Unsqueeze<axes = [0]>(x) y = Squeeze<axes = [0]>(a) }"
    )
    model.graph.node[0].metadata_props.add(key="source", value="exporter")
    model.graph.metadata_props.add(key="classes", value="cat, dog")
    model.graph.input[0].type.tensor_type.shape.dim[0].denotation = "BATCH"
    graph = Graph.load(model)
    graph.raise_opset(13)
    result = graph.to_proto()
    first = next(node for node in result.graph.node if node.name == "first")
    assert graph.opset == 13
    assert list(first.metadata_props) == list(model.graph.node[0].metadata_props)
    assert list(result.graph.metadata_props) == list(model.graph.metadata_props)
    assert list(result.graph.input) == list(model.graph.input)
    x = np.array([[-1, 0, 1, 2]], np.float32)
    assert run(session(graph), {"x": x})["y"].tolist() == x.tolist()


def test_a_newer_operator_set_is_refused_where_functions_would_be_lost() -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 11, "own" : 1]> '
        "network (float[4] x) => (float[4] y) { y = own.Twice(x) } "
        '<domain: "own", opset_import: ["" : 11]> Twice (a) => (b) { b = Add(a, a) }'
    )
    with pytest.raises(PassError, match="defines functions"):
        Graph.load(model).raise_opset(13)
