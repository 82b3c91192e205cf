"""Parts of a graph, hashes and travel between processes."""

from __future__ import annotations

import pickle

import numpy as np
import onnx
import pytest

from actcc.errors import ModelError
from actcc.graph import Graph, extract, structure_hash
from actcc.runtime import run, session

NET = """
    <ir_version: 8, opset_import: ["" : 17]>
    net (float[1,4] x) => (float[1,4] y)
      <float[4,4] w = {1.0, 0.0, 0.0, 0.0, 0.0, 2.0, 0.0, 0.0,
                       0.0, 0.0, 3.0, 0.0, 0.0, 0.0, 0.0, 4.0},
       float low = {0.0}, float high = {6.0}>
    {
      [linear] a = MatMul(x, w)
      [act] b = Clip(a, low, high)
      [side] s = Neg(b)
      [out] y = Add(s, b)
    }
"""


def net(**changes: str) -> Graph:
    text = NET
    for old, new in changes.items():
        text = text.replace(old, new)
    return Graph.load(onnx.parser.parse_model(text))


def test_a_part_has_the_border_as_inputs_and_outputs() -> None:
    part = extract(net(), ["linear", "act"])
    assert [t.name for t in part.inputs] == ["x"]
    assert [t.name for t in part.outputs] == ["b"]
    assert [node.name for node in part.nodes()] == ["linear", "act"]
    onnx.checker.check_model(part.to_proto(), full_check=True)
    result = run(session(part), {"x": np.array([[-1, 1, 1, 2]], np.float32)})
    np.testing.assert_array_equal(result["b"], [[0, 2, 3, 6]])


def test_every_tensor_that_is_read_outside_leaves_the_part() -> None:
    assert [t.name for t in extract(net(), ["act", "side"]).outputs] == ["b", "s"]
    assert [t.name for t in extract(net(), ["act", "side"], ["s"]).outputs] == ["s"]


def test_the_original_is_not_touched_by_a_part() -> None:
    graph = net()
    before = graph.to_proto().SerializeToString(deterministic=True)
    part = extract(graph, ["act"])
    part.set_input(part.node("act"), 2, np.float32(1))
    assert graph.to_proto().SerializeToString(deterministic=True) == before


def test_a_part_of_a_dynamic_model_needs_a_shape() -> None:
    graph = net(**{"float[1,4] x": 'float["N",4] x', "float[1,4] y": 'float["N",4] y'})
    with pytest.raises(ModelError, match="give --shape"):
        extract(graph, ["act"])
    part = extract(graph.with_input_shapes({"x": (2, 4)}), ["act"])
    assert part.shape("b") == (2, 4)


def test_a_node_with_a_subgraph_is_extracted_with_what_the_subgraph_reads() -> None:
    graph = Graph.load(
        onnx.parser.parse_model(
            """
            <ir_version: 8, opset_import: ["" : 17]>
            net (float[2] x, bool c) => (float[2] y) {
              [if] y = If(c) <
                then_branch = then_graph () => (float[2] t) { t = Neg(x) },
                else_branch = else_graph () => (float[2] e) { e = Abs(x) }
              >
            }
            """
        )
    )
    part = extract(graph, ["if"])
    assert [t.name for t in part.inputs] == ["c", "x"]
    assert [t.name for t in part.outputs] == ["y"]
    values = np.asarray([-1.0, 2.0], np.float32)
    for condition, expected in ((True, [1.0, -2.0]), (False, [1.0, 2.0])):
        found = run(session(part), {"c": np.asarray(condition), "x": values})
        np.testing.assert_array_equal(found["y"], expected)


def test_an_overridable_initializer_is_an_input_of_the_part() -> None:
    graph = net(**{"(float[1,4] x)": "(float[1,4] x, float[4,4] w)"})
    assert [t.name for t in extract(graph, ["linear"]).inputs] == ["x", "w"]


# ------------------------------------------------------------------------------ structure


def part_hash(graph: Graph, *nodes: str) -> str:
    return structure_hash(extract(graph, nodes))


def test_equal_structure_has_an_equal_hash_whatever_names_and_weights() -> None:
    named = net(**{"[act] b": "[clip] b", "linear": "dense", "a = MatMul": "h = MatMul"})
    renamed = net(**{"[act] b = Clip(a": "[clip] b = Clip(h", "a = MatMul": "h = MatMul"})
    assert named is not renamed
    other = net(**{"{1.0, 0.0, 0.0": "{9.0, 8.0, 7.0"})
    assert part_hash(net(), "linear", "act") == part_hash(renamed, "linear", "clip")
    assert part_hash(net(), "linear", "act") == part_hash(other, "linear", "act")


@pytest.mark.parametrize(
    "changes",
    [
        {"high = {6.0}": "high = {1.0}"},
        {"Clip(a, low, high)": "Clip(a, low)"},
        {"Clip(a, low, high)": "Clip(a, high, low)"},
        {"Clip(a, low, high)": "Relu(a)"},
        {"float[1,4] x": "float[2,4] x", "float[1,4] y": "float[2,4] y"},
        {'"" : 17': '"" : 16'},
    ],
    ids=["bound", "fewer inputs", "wiring", "operator", "shape", "opset"],
)
def test_different_structure_has_a_different_hash(changes: dict[str, str]) -> None:
    assert part_hash(net(), "linear", "act") != part_hash(net(**changes), "linear", "act")


def test_attributes_decide_the_hash() -> None:
    hashes = set()
    for alpha in ("0.1", "0.2"):
        graph = net(**{"Clip(a, low, high)": f"LeakyRelu<alpha={alpha}>(a)"})
        hashes.add(part_hash(graph, "act"))
    assert len(hashes) == 2


def test_whether_an_inner_tensor_leaves_decides_the_hash() -> None:
    graph = net()
    one, both = (extract(graph, ["act", "side"], outputs) for outputs in (["s"], ["b", "s"]))
    assert structure_hash(one) != structure_hash(both)


# ------------------------------------------------------------------------------ travel


def test_a_graph_can_be_pickled_with_shapes_types_and_marks() -> None:
    graph = net(**{"float[1,4] x": 'float["N",4] x', "float[1,4] y": 'float["N",4] y'})
    graph = graph.with_input_shapes({"x": (2, 4)})
    with graph.marking("test", "b", "QuickGelu"):
        made = graph.insert("QuickGelu", ["b"], domain="com.microsoft", like="b")
    graph.set_input(graph.node("side"), 0, made)
    twin = pickle.loads(pickle.dumps(graph))
    assert twin.input_shapes == {"x": (2, 4)}
    assert twin.shape(made.name) == (2, 4)
    assert twin.to_proto().SerializeToString(deterministic=True) == (
        graph.to_proto().SerializeToString(deterministic=True)
    )
    assert twin.without_input_shapes().shape("x") == ("N", 4)
