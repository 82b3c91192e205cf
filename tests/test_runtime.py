"""ONNX Runtime sessions."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest

from actcc.errors import ModelError, TargetError
from actcc.graph import Graph
from actcc.runtime import one_line, random_feeds, run, session

NET = """
    <ir_version: 8, opset_import: ["" : 17]>
    net (float[2] x) => (float[2] y, float[2] a) { a = Neg(x)  y = Relu(a) }
"""
ONE = {"x": np.array([1, -1], np.float32)}


def test_a_model_runs_from_a_graph_a_proto_and_a_file(tmp_path: Path) -> None:
    proto = onnx.parser.parse_model(NET)
    Graph.load(proto).save(tmp_path / "net.onnx")
    for model in (proto, Graph.load(proto), tmp_path / "net.onnx"):
        result = run(session(model), ONE)
        assert list(result) == ["y", "a"]
        np.testing.assert_array_equal(result["y"], [0, 1])


def test_weights_over_the_threshold_are_handed_over_as_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = onnx.parser.parse_model(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[1,512] x) => (float[1,2] y) { y = MatMul(x, w) }
        """
    )
    weights = np.ones((512, 2), np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weights, "w"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    feeds = {"x": np.ones((1, 512), np.float32)}
    for source in (model, Graph.load(model)):
        result = run(session(source, external_threshold=1024), feeds)
        np.testing.assert_array_equal(result["y"], [[512, 512]])
    assert list(tmp_path.iterdir()) == []


def test_without_optimisation_the_runtime_leaves_the_graph_as_it_is(tmp_path: Path) -> None:
    proto = onnx.parser.parse_model(NET)
    for optimise in (True, False):
        assert run(session(proto, optimise=optimise), ONE)["y"].tolist() == [0, 1]


def test_a_model_that_cannot_be_loaded_is_refused_in_one_line() -> None:
    model = onnx.parser.parse_model(NET.replace("Neg", "my.Unknown").replace("17]", '17, "my": 1]'))
    with pytest.raises(ModelError, match="ONNX Runtime cannot load the model") as caught:
        session(model)
    assert "\n" not in str(caught.value)


def test_feeds_that_do_not_fit_are_refused_in_one_line() -> None:
    with pytest.raises(ModelError, match="cannot run the model") as caught:
        run(session(onnx.parser.parse_model(NET)), {"x": np.ones(3, np.float32)})
    assert "\n" not in str(caught.value)


def test_nothing_is_written_to_the_terminal_when_a_run_fails(
    capfd: pytest.CaptureFixture[str],
) -> None:
    model = onnx.parser.parse_model(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[N] x, int64[1] s) => (float[M] y) { y = Reshape(x, s) }
        """
    )
    with pytest.raises(ModelError):
        run(session(model), {"x": np.ones(3, np.float32), "s": np.array([2])})
    assert capfd.readouterr() == ("", "")


def test_a_provider_that_is_not_installed_is_refused() -> None:
    with pytest.raises(TargetError, match=r"no execution provider 'Absent'; it has: .*CPU"):
        session(onnx.parser.parse_model(NET), providers=("Absent", "CPUExecutionProvider"))


def test_random_feeds_fit_the_inputs_and_depend_on_the_seed_alone() -> None:
    graph = Graph.load(
        onnx.parser.parse_model(
            """
            <ir_version: 8, opset_import: ["" : 17]>
            net (float[2,"N"] f, float16[3] h, int64[2] i, uint8[64] u, int8[64] s, bool[9] b,
                 double d) => (float[2,"N"] y) { y = Relu(f) }
            """
        ),
        {"f": (2, 5)},
    )
    feeds = random_feeds(graph, 7)
    assert {name: (v.shape, v.dtype.name) for name, v in feeds.items()} == {
        "f": ((2, 5), "float32"),
        "h": ((3,), "float16"),
        "i": ((2,), "int64"),
        "u": ((64,), "uint8"),
        "s": ((64,), "int8"),
        "b": ((9,), "bool"),
        "d": ((), "float64"),
    }
    assert set(feeds["i"].tolist()) <= {0, 1}
    assert feeds["s"].min() < 0 < feeds["s"].max()
    again, other = random_feeds(graph, 7), random_feeds(graph, 8)
    assert all(np.array_equal(feeds[name], again[name]) for name in feeds)
    assert not np.array_equal(feeds["f"], other["f"])


@pytest.mark.parametrize(
    ("declared", "message"),
    [('float["N"] x', "--shape x=1"), ("string[2] x", "feed it"), ("seq(float[2]) x", "feed it")],
)
def test_inputs_that_cannot_be_made_up_are_named(declared: str, message: str) -> None:
    graph = Graph.load(
        onnx.parser.parse_model(
            f"""
            <ir_version: 8, opset_import: ["" : 17]>
            net ({declared}) => ({declared.replace(" x", " y")}) {{ y = Identity(x) }}
            """
        )
    )
    with pytest.raises(ModelError, match=message):
        random_feeds(graph, 0)


def test_an_error_inside_subgraphs_names_the_innermost_node() -> None:
    around = "Non-zero status code returned while running If node. Name:'outer' Status Message: "
    inner = "Non-zero status code returned while running LSTM node. Name:'rnn' Status Message: rank"
    assert one_line(RuntimeError(around + inner)) == "in LSTM node. Name:'rnn' Status Message: rank"
    assert one_line(RuntimeError("two\nlines")) == "two lines"


def test_the_runtime_leaves_nothing_in_the_temporary_folder(tmp_path: Path) -> None:
    code = "from actcc.runtime import onnx_runtime; onnx_runtime().get_available_providers()"
    kept = {k: v for k, v in os.environ.items() if not k.startswith("ORT_")}
    environment = {**kept, "TMPDIR": str(tmp_path)}
    subprocess.run([sys.executable, "-c", code], env=environment, check=True)
    assert not list(tmp_path.iterdir())
