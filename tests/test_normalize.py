"""The normalizing stage as a whole."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import onnx
import pytest

from actcc.errors import ModelError, PassError
from actcc.graph import Array, Graph, content_hash
from actcc.graph.compare import compare
from actcc.normalize import Normalized, normalize
from actcc.pass_api import NormalizingPass
from actcc.passes import NORMALIZING
from actcc.runtime import random_feeds
from actcc.site import Site

pytestmark = pytest.mark.usefixtures("simplify_here")


MODELS = (
    "FastestDet",
    "mobilenet_v2",
    "mobilenet_v2_qdq",
    "mobilenet_v3_small",
    "silero_vad",
    "ultraface_rfb_320",
    "yolox_nano_416",
)
SILERO_SHAPES = {"input": (1, 512), "state": (2, 1, 128)}


def net(batch: str = "1") -> Graph:
    """Leftovers of an exporter: overridable weights, Identity, shapes, BatchNormalization."""
    return Graph.load(
        onnx.parser.parse_model(
            f"""
            <ir_version: 3, opset_import: ["" : 9]>
            net (float[{batch},1,4,4] x, float[1,1,1,1] w, float[1] one) => (float[{batch},n] y)
              <float[1,1,1,1] w = {{2.0}}, float[1] one = {{1.0}}, int64[1] rest = {{-1}}>
            {{
              a = Conv(x, w)
              b = Identity(a)
              c = BatchNormalization(b, one, one, one, one)
              d = Relu(c)
              zero = Constant<value = int64 {{0}}>()
              s = Shape(d)
              n = Gather(s, zero)
              m = Unsqueeze<axes=[0]>(n)
              t = Concat<axis=0>(m, rest)
              y = Reshape(d, t)
            }}
            """
        )
    )


class Recorded(NormalizingPass):
    """A pass that counts its runs."""

    name = "recorded"
    runs: ClassVar[list[str]] = []

    def run(self, graph: Graph) -> tuple[Graph, list[str]]:
        self.runs.append(graph.producer("y").op)
        return graph, ["was here"]


class Raises(NormalizingPass):
    """A pass with a bug."""

    name = "raises"

    def run(self, graph: Graph) -> tuple[Graph, list[str]]:
        raise KeyError("a bug")


class Dangles(NormalizingPass):
    """A pass that leaves the graph invalid."""

    name = "dangles"

    def run(self, graph: Graph) -> tuple[Graph, list[str]]:
        graph._surgeon.outputs[0].name = "another"
        return graph, ["renamed an output"]


class Refuses(NormalizingPass):
    """A pass that is told off by the graph."""

    name = "refuses"

    def run(self, graph: Graph) -> tuple[Graph, list[str]]:
        raise PassError("cannot be done here")


class Swaps(NormalizingPass):
    """Replaces one operator by another that takes one input."""

    def __init__(self, name: str, old: str, new: str) -> None:
        self.name, self._old, self._new = name, old, new  # type: ignore[misc]

    def run(self, graph: Graph) -> tuple[Graph, list[str]]:
        for node in graph.nodes(self._old):
            site = Site([node], node.inputs[0], node.outputs[0])
            graph.replace(site, op=self._new, inputs=[site.reads])
        return graph, ["swapped"]


def simple() -> Graph:
    return Graph.load(
        onnx.parser.parse_model(
            """
            <ir_version: 8, opset_import: ["" : 17]>
            net (float[64] x) => (float[64] y) { a = Relu(x)  b = Identity(a)  y = Exp(b) }
            """
        )
    )


def operators(result: Normalized) -> list[str]:
    return [node.op for node in result.graph.nodes()]


def test_what_exporters_leave_behind_is_gone_and_said() -> None:
    graph = net()
    result = normalize(graph)
    assert operators(result) in (["Conv", "Relu", "Reshape"], ["Conv", "Relu", "Flatten"])
    assert {name for name, _ in result.notes} >= {
        "freeze-initializers",
        "simplify",
        "fold-batch-norm",
    }
    assert compare(graph, result.graph, [random_feeds(graph, 1)]).agrees()


def test_the_given_graph_stays_as_it_is() -> None:
    graph = net()
    before = content_hash(graph)
    normalize(graph)
    assert content_hash(graph) == before


def test_the_same_graph_gives_the_same_result() -> None:
    first, second = normalize(net()), normalize(net())
    assert content_hash(first.graph) == content_hash(second.graph)
    assert first.notes == second.notes


def test_a_normalized_graph_has_nothing_left_to_normalize() -> None:
    once = normalize(net())
    twice = normalize(once.graph)
    assert content_hash(twice.graph) == content_hash(once.graph)
    assert twice.notes == ()


@pytest.mark.parametrize("name", [cls.name for cls in NORMALIZING])
def test_every_pass_can_be_left_out_by_name(name: str) -> None:
    result = normalize(net(), skip=[name])
    assert (name, "left out: skipped by name") in result.notes
    assert [note for note in result.notes if note[0] == name] == [
        (name, "left out: skipped by name")
    ]
    assert compare(net(), result.graph, [random_feeds(net(), 1)]).agrees()


def test_chosen_shapes_are_kept_but_not_baked_in() -> None:
    graph = net('"N"').with_input_shapes({"x": (2, 1, 4, 4)})
    result = normalize(graph).graph
    assert result.input_shapes == {"x": (2, 1, 4, 4)}
    assert result.shape("d") == (2, 1, 4, 4)
    assert result.without_input_shapes().shape("d") == ("N", 1, 4, 4)
    other = np.ones((3, 1, 4, 4), np.float32)
    assert compare(graph, result, [{"x": other}]).agrees()


def test_a_dynamic_model_without_chosen_shapes_is_normalized_but_not_compared() -> None:
    result = normalize(net('"N"'))
    assert "BatchNormalization" not in operators(result)
    reasons = [line for name, line in result.notes if name == "normalize"]
    assert len(reasons) == 1
    assert "not compared with the original: input 'x' has the shape" in reasons[0]


def test_a_dynamic_model_is_compared_on_the_samples_that_are_given() -> None:
    sample: dict[str, Array] = {"x": np.ones((2, 1, 4, 4), np.float32)}
    passes = [Swaps("wrong", "Relu", "Neg"), Swaps("right", "Identity", "Identity")]
    result = normalize(net('"N"'), passes=passes, feeds=[sample])
    assert [name for name, _ in result.notes] == ["wrong", "right"]
    assert "Relu" in operators(result)


# ------------------------------------------------------------------------------ bad passes


@pytest.mark.parametrize(
    ("broken", "reason"),
    [
        (Raises(), "it failed (KeyError: 'a bug')"),
        (Dangles(), "inputs or outputs changed"),
        (Refuses(), "cannot be done here"),
    ],
)
def test_a_broken_pass_is_left_out_and_the_others_run(broken: NormalizingPass, reason: str) -> None:
    Recorded.runs.clear()
    result = normalize(simple(), passes=[broken, Recorded()])
    assert Recorded.runs == ["Exp"]
    (name, line), after = result.notes
    assert name == broken.name
    assert line.startswith("left out: ")
    assert reason in line
    assert after == ("recorded", "was here")
    assert content_hash(result.graph) == content_hash(simple())


def test_a_pass_that_changes_the_numbers_is_found_and_left_out() -> None:
    passes = [
        Swaps("right", "Identity", "Identity"),
        Swaps("wrong", "Relu", "Abs"),
        Swaps("also right", "Identity", "Identity"),
        Swaps("also wrong", "Exp", "Softplus"),
    ]
    result = normalize(simple(), passes=passes)
    assert operators(result) == ["Relu", "Identity", "Exp"]
    wrong = "left out: with it the outputs differ from the original's"
    assert result.notes == (
        ("right", "swapped"),
        ("wrong", wrong),
        ("also right", "swapped"),
        ("also wrong", wrong),
    )


def test_a_pass_that_leaves_a_model_the_runtime_cannot_load_is_left_out() -> None:
    class Unknown(NormalizingPass):
        name = "unknown"

        def run(self, graph: Graph) -> tuple[Graph, list[str]]:
            graph.replace(
                Site([next(graph.nodes("Exp"))], "b", "y"), op="Mystery", inputs=["b"], domain="my"
            )
            return graph, []

    result = normalize(simple(), passes=[Unknown()])
    assert operators(result) == ["Relu", "Identity", "Exp"]
    assert result.notes[0][1].startswith("left out: with it the outputs differ")


def test_a_difference_within_the_models_own_rounding_is_accepted() -> None:
    model = onnx.parser.parse_model(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        net (float16[1,64] x) => (float16[1,8] y) { a = Identity(x)  y = MatMul(a, w) }
        """
    )
    weights = np.random.default_rng(0).standard_normal((64, 8)).astype(np.float16)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weights, "w"))
    assert operators(normalize(Graph.load(model))) == ["MatMul"]


def test_a_model_with_random_outputs_is_not_compared() -> None:
    graph = Graph.load(
        onnx.parser.parse_model(
            """
            <ir_version: 8, opset_import: ["" : 17]>
            net (float[64] x) => (float[64] y)
            { a = Identity(x)  r = RandomNormalLike(a)  y = Add(a, r) }
            """
        )
    )
    result = normalize(graph)
    assert operators(result) == ["RandomNormalLike", "Add"]
    assert any("other outputs each time" in line for _, line in result.notes)


def test_a_model_that_the_runtime_cannot_run_is_normalized_but_not_compared() -> None:
    graph = Graph.load(
        onnx.parser.parse_model(
            """
            <ir_version: 8, opset_import: ["" : 17, "my" : 1]>
            net (float[64] x) => (float[64] y) { a = Identity(x)  y = my.Op(a) }
            """
        )
    )
    result = normalize(graph)
    assert operators(result) == ["Op"]
    assert any("ONNX Runtime cannot load the model" in line for _, line in result.notes)


def test_a_model_that_is_itself_broken_is_refused() -> None:
    graph = simple()
    graph.set_input(graph.producer("a"), 0, "y")
    with pytest.raises(ModelError, match="lies on a cycle"):
        normalize(graph)


# ------------------------------------------------------------------------------ real models


@pytest.mark.shared
@pytest.mark.parametrize("name", MODELS)
def test_real_models_compute_the_same_after_normalizing(shared: Path, name: str) -> None:
    shapes = SILERO_SHAPES if name == "silero_vad" else None
    graph = Graph.load(shared / "models" / f"{name}.onnx", shapes)
    feeds = [random_feeds(graph, seed) for seed in range(2)]
    if name == "silero_vad":
        feeds = [{**sample, "sr": np.array(16000)} for sample in feeds]
    result = normalize(graph, feeds=feeds)
    assert not [line for _, line in result.notes if "left out" in line or "went on" in line]
    assert not [line for _, line in result.notes if "not compared" in line]
    assert compare(graph, result.graph, feeds).agrees(1e-5)
    onnx.checker.check_model(result.graph.to_proto())
    assert result.graph.opsets == graph.opsets
    assert result.graph.ir_version == graph.ir_version


@pytest.mark.shared
def test_the_batch_normalizations_of_ultraface_are_gone(shared: Path) -> None:
    graph = Graph.load(shared / "models" / "ultraface_rfb_320.onnx")
    assert len(list(graph.nodes("BatchNormalization"))) == 35
    assert len(graph.overridable) == 244
    result = normalize(graph)
    assert not list(result.graph.nodes("BatchNormalization"))
    assert not list(result.graph.nodes("Shape"))
    assert ("fold-batch-norm", "folded 35 BatchNormalization into Conv") in result.notes
    assert not result.graph.overridable


@pytest.mark.shared
def test_the_subgraphs_and_dynamic_axes_of_silero_survive(shared: Path) -> None:
    graph = Graph.load(shared / "models" / "silero_vad.onnx", SILERO_SHAPES)
    result = normalize(graph).graph
    before, after = (g.without_input_shapes() for g in (graph, result))
    assert [t.name for t in after.inputs] == ["input", "state", "sr"]
    assert [after.shape(t) for t in after.inputs] == [before.shape(t) for t in before.inputs]
    assert len(list(after.nodes("If"))) == 1
    half = {
        "input": np.random.default_rng(0).standard_normal((2, 256)).astype(np.float32),
        "state": np.zeros((2, 2, 128), np.float32),
        "sr": np.array(8000),
    }
    assert compare(graph, result, [half]).agrees(1e-5)
