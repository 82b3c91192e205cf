"""onnx-simplifier in a process of its own."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

import numpy as np
import onnx
import pytest

from actcc.activations import find_activations
from actcc.graph import Graph, Interface, verify
from actcc.graph.compare import compare
from actcc.passes.simplify import Simplify
from actcc.runtime import random_feeds

COPY = "import sys, onnx; model = onnx.load(sys.argv[1]); "
SAVE = "; onnx.save(model, sys.argv[2])"


def net(body: str = "s = Shape(x)  y = Reshape(x, s)", **changes: str) -> Graph:
    text = f"""
        <ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1, "local" : 1],
         producer_name: "exporter", metadata_props: ["licence": "MIT"]>
        net (float[2,3] x) => (float[2,3] y) {{ {body} }}
    """
    for old, new in changes.items():
        text = text.replace(old, new)
    return Graph.load(onnx.parser.parse_model(text))


def simplified(graph: Graph) -> tuple[Graph, list[str]]:
    result, notes = Simplify().run(graph.copy())
    verify(result, Interface.of(graph), ["simplify"])
    return result, notes


def went_on(graph: Graph, script: str, time_limit_s: float = 60) -> str:
    """The note that says why the model went on as it was."""
    result, notes = Simplify(time_limit_s, script).run(graph)
    assert result is graph
    assert len(notes) == 1
    assert notes[0].startswith("went on without onnx-simplifier: ")
    return notes[0]


def test_what_exporters_leave_behind_is_removed() -> None:
    graph = net("a = Relu(x)  s = Shape(a)  b = Reshape(a, s)  y = Neg(b)")
    result, notes = simplified(graph)
    assert [node.op for node in result.nodes()] == ["Relu", "Neg"]
    assert notes == ["removed 1 Reshape, 1 Shape"]
    assert compare(graph, result, [random_feeds(graph, 0)]).agrees(0)


def test_a_model_with_nothing_to_simplify_comes_back_as_it_is() -> None:
    graph = net("a = Relu(x)  y = Neg(a)")
    result, notes = Simplify().run(graph)
    assert result is graph
    assert notes == []


def test_names_metadata_and_documentation_survive() -> None:
    proto = net("[act] a = Relu(x)  s = Shape(a)  b = Reshape(a, s)  [last] y = Neg(b)").to_proto()
    proto.graph.node[0].doc_string = "the activation"
    proto.graph.node[0].metadata_props.add(key="scope", value="layer1")
    result, _ = simplified(Graph.load(proto))
    after = result.to_proto()
    assert [node.name for node in after.graph.node] == ["act", "last"]
    assert after.graph.node[0] == proto.graph.node[0]
    assert list(after.metadata_props) == list(proto.metadata_props)
    assert after.producer_name == "exporter"
    assert after.ir_version == 8
    assert list(after.graph.input) == list(proto.graph.input)
    assert list(after.graph.output) == list(proto.graph.output)


def test_symbolic_axes_stay_symbolic_even_where_a_shape_is_chosen() -> None:
    graph = net("a = Identity(x)  y = Neg(a)", **{"float[2,3]": 'float["N",3]'})
    result, _ = simplified(graph.with_input_shapes({"x": (4, 3)}))
    assert result.shape("y") == (4, 3)
    assert result.without_input_shapes().shape("y") == ("N", 3)
    assert [t.name for t in result.inputs] == ["x"]


def test_batch_normalization_is_left_to_the_pass_that_folds_it_in_double_precision() -> None:
    model = onnx.parser.parse_model(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[1,1,3,3] x) => (float[1,1,3,3] y)
          <float[1,1,1,1] w = {2.0}, float[1] one = {1.0}>
        {
          s = Shape(x)  a = Reshape(x, s)
          b = Conv(a, w)  y = BatchNormalization(b, one, one, one, one)
        }
        """
    )
    result, _ = simplified(Graph.load(model))
    assert [node.op for node in result.nodes()] == ["Conv", "BatchNormalization"]


def test_subgraphs_functions_and_contributed_operators_survive() -> None:
    model = onnx.parser.parse_model(
        """
        <ir_version: 8, opset_import: ["" : 17, "com.microsoft" : 1, "local" : 1]>
        net (float[2] x, bool c) => (float[2] y) {
          s = Shape(x)  r = Reshape(x, s)
          a = com.microsoft.QuickGelu<alpha=1.0>(r)
          b = local.twice(a)
          y = If(c) <then_branch = t () => (float[2] p) { p = Neg(b) },
                     else_branch = e () => (float[2] q) { q = Abs(b) }>
        }
        <opset_import: ["" : 17], domain: "local">
        twice (v) => (w) { w = Add(v, v) }
        """
    )
    graph = Graph.load(model)
    result, _ = simplified(graph)
    assert "Reshape" not in {node.op for node in result.nodes()}
    for seed in range(4):
        assert compare(graph, result, [random_feeds(graph, seed)]).agrees(0)


def test_a_large_table_is_not_expanded() -> None:
    graph = net(
        "t = ConstantOfShape<value = float[1] {1.5}>(s)  y = Add(x, t)",
        **{"float[2,3]": "float[512,512]", "{ t =": "{ s = Constant<value_ints=[512,512]>()  t ="},
    )
    result, _ = simplified(graph)
    assert result.to_proto().ByteSize() < 100_000


def test_a_crash_is_survived_and_named() -> None:
    script = f"import os; os.kill(os.getpid(), {int(signal.SIGSEGV)})"
    assert "it crashed (SIGSEGV)" in went_on(net(), script)


def test_a_failure_is_survived_and_its_reason_told() -> None:
    note = went_on(net(), "raise ValueError('cannot do this')")
    assert "it failed (ValueError: cannot do this)" in note
    assert "it failed (no message)" in went_on(net(), "raise SystemExit(3)")
    assert "it failed (no message)" in went_on(net(), "pass")


def test_a_hang_ends_with_the_time_limit_and_leaves_no_process(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    script = f"import os, time; open({str(pid)!r}, 'w').write(str(os.getpid())); time.sleep(600)"
    started = time.monotonic()
    assert "it took longer than 2 s" in went_on(net(), script, time_limit_s=2)
    assert time.monotonic() - started < 30
    with pytest.raises(ProcessLookupError):
        os.kill(int(pid.read_text()), 0)


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        ("model.opset_import[0].version = 19", "it changed the opset"),
        ("model.graph.node[0].op_type = 'Nonsense'", "its result is not valid"),
        ("model.doc_string = 'x' * 200_000", "the model grew by"),
    ],
)
def test_a_result_that_is_not_sound_is_not_taken(damage: str, reason: str) -> None:
    assert reason in went_on(net(), COPY + damage + SAVE)


def test_a_result_that_is_no_model_is_not_taken() -> None:
    note = went_on(net(), "import sys; open(sys.argv[2], 'wb').write(b'\\xff\\xff\\xff')")
    assert "its result cannot be read" in note


def test_overridable_initializers_are_not_baked_in() -> None:
    text = """
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[2] x, float[2] w) => (float[2] y) <float[2] w = {1.0, 2.0}>
        { a = Neg(w)  y = Mul(x, a) }
    """
    graph = Graph.load(onnx.parser.parse_model(text))
    result, notes = Simplify().run(graph)
    assert result is graph
    assert "listed as inputs" in notes[0]


def test_a_model_too_large_for_one_message_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("actcc.passes.simplify.EXTERNAL_DATA_THRESHOLD", 10)
    graph = net()
    result, notes = Simplify().run(graph)
    assert result is graph
    assert "too large" in notes[0]


def test_weights_are_handed_over_and_come_back() -> None:
    weights = np.random.default_rng(0).standard_normal((3, 3)).astype(np.float32)
    model = onnx.parser.parse_model(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[2,3] x) => (float[2,3] y) { a = Identity(x)  y = MatMul(a, w) }
        """
    )
    model.graph.initializer.append(onnx.numpy_helper.from_array(weights, "w"))
    result, _ = simplified(Graph.load(model))
    np.testing.assert_array_equal(result.constant("w"), weights)


def test_the_half_of_gelu_does_not_go_into_the_weights_behind_it() -> None:
    graph = net(
        "e = Div(x, root)  f = Erf(e)  g = Add(f, one)  h = Mul(x, g)  a = Mul(h, half)"
        "  i = Identity(a)  b = Unsqueeze(i, ends)  c = Conv(b, w)  y = Squeeze(c, ends)",
    )
    model = graph.to_proto()
    constants = {
        "root": np.float32(np.sqrt(2)),
        "one": np.float32(1),
        "half": np.float32(0.5),
        "ends": np.asarray([0], np.int64),
        "w": np.ones((2, 2, 1), np.float32),
    }
    for name, value in constants.items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(value), name))
    found, notes = simplified(Graph.load(model))
    assert notes == ["removed 1 Identity"]
    (match,) = find_activations(found)
    assert match.activation.name == "Gelu"
