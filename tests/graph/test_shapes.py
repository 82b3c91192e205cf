"""Types: inference, `--shape`, symbols."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from actcc.errors import ModelError
from actcc.graph import Graph, TensorType, static_types
from actcc.runtime import random_feeds, run, session

FLOAT = onnx.TensorProto.FLOAT


def dynamic() -> Graph:
    return Graph.load(
        onnx.parser.parse_model(
            """
            <ir_version: 8, opset_import: ["" : 17]>
            net (float["batch", 3, "height"] x) => (float["batch", "elements"] y)
            {
              a = Relu(x)
              y = Flatten(a)
            }
            """
        )
    )


def test_symbols_are_kept_where_nothing_is_chosen() -> None:
    graph = dynamic()
    assert graph.shape("a") == ("batch", 3, "height")
    assert not graph.types["a"].is_static


def test_a_chosen_shape_reaches_every_tensor() -> None:
    graph = dynamic().with_input_shapes({"x": (2, 3, 5)})
    assert graph.input_shapes == {"x": (2, 3, 5)}
    assert graph.shape("a") == (2, 3, 5)
    assert graph.shape("y") == (2, 15)
    assert random_feeds(graph, 0)["x"].shape == (2, 3, 5)


def test_a_chosen_shape_leaves_the_symbols_in_the_saved_model(tmp_path: Path) -> None:
    graph = dynamic().with_input_shapes({"x": (2, 3, 5)})
    assert graph.types["y"].is_static
    graph.save(tmp_path / "out.onnx")
    saved = Graph.load(tmp_path / "out.onnx")
    assert saved.shape("x") == ("batch", 3, "height")
    assert list(saved.to_proto().graph.output) == list(dynamic().to_proto().graph.output)
    other = np.ones((1, 3, 2), np.float32)
    assert run(session(tmp_path / "out.onnx"), {"x": other})["y"].shape == (1, 6)


def test_the_declared_shapes_can_be_had_back() -> None:
    bound = dynamic().with_input_shapes({"x": (2, 3, 5)})
    graph = bound.without_input_shapes()
    assert graph.input_shapes == {}
    assert graph.shape("a") == ("batch", 3, "height")
    assert bound.shape("a") == (2, 3, 5)


def test_an_edit_at_chosen_shapes_leaves_the_original_as_it_is() -> None:
    graph = dynamic()
    bound = graph.with_input_shapes({"x": (2, 3, 5)})
    bound.set_input(next(bound.nodes("Flatten")), 0, bound.insert("Neg", ["a"]))
    assert [node.op for node in graph.nodes()] == ["Relu", "Flatten"]
    assert [node.op for node in bound.nodes()] == ["Relu", "Neg", "Flatten"]


def test_a_copy_and_an_edit_keep_the_chosen_shapes() -> None:
    graph = dynamic().with_input_shapes({"x": (2, 3, 5)}).copy()
    made = graph.insert("Exp", ["a"])
    assert graph.shape(made) == (2, 3, 5)


@pytest.mark.parametrize(
    ("shapes", "message"),
    [
        ({"z": (1,)}, r"no input 'z'; it has: x"),
        ({"x": (2, 3)}, r"not \[2, 3\]; only symbolic dimensions"),
        ({"x": (2, 4, 5)}, r"not \[2, 4, 5\]; only symbolic dimensions"),
    ],
)
def test_a_shape_that_does_not_fit_is_refused(
    shapes: dict[str, tuple[int, ...]], message: str
) -> None:
    with pytest.raises(ModelError, match=message):
        dynamic().with_input_shapes(shapes)


def test_asking_for_static_types_says_which_shape_to_choose() -> None:
    with pytest.raises(ModelError, match=r"choose one with --shape x=1x3x1"):
        static_types(dynamic())
    assert static_types(dynamic().with_input_shapes({"x": (2, 3, 5)}))["y"].shape == (2, 15)


def test_the_type_of_an_unknown_operator_is_taken_from_the_model() -> None:
    text = """
        <ir_version: 8, opset_import: ["" : 17, "my" : 1]>
        net (float[2,3] x) => (float[2,3] y) <float[2,3] a> { a = my.Op(x)  y = Relu(a) }
    """
    graph = Graph.load(onnx.parser.parse_model(text))
    assert graph.types["a"] == TensorType(FLOAT, (2, 3))
    graph.insert("Neg", ["a"])
    assert graph.types["a"] == TensorType(FLOAT, (2, 3))
    assert graph.copy().types["a"] == TensorType(FLOAT, (2, 3))


def test_small_integer_constants_decide_shapes_and_large_weights_are_not_needed() -> None:
    model = onnx.parser.parse_model(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[4,1024] x) => (float[M,N] y) <int64[2] s = {-1, 16}>
        { a = MatMul(x, w)  y = Reshape(a, s) }
        """
    )
    weights = np.zeros((1024, 512), np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weights, "w"))
    graph = Graph.load(model)
    assert graph.shape("a") == (4, 512)
    assert graph.shape("y") == (128, 16)
    assert graph.types["w"] == TensorType(FLOAT, (1024, 512))


def test_a_node_that_does_not_fit_its_inputs_is_named_in_one_line() -> None:
    graph = Graph.load(
        onnx.parser.parse_model(
            """
            <ir_version: 8, opset_import: ["" : 17]>
            net (float[2,3] x, float[3,4] w) => (float[2,4] y) { [linear] y = MatMul(x, w) }
            """
        )
    )
    assert graph.contradiction == ""
    graph.set_input(graph.node("linear"), 1, np.zeros((5, 4), np.float32))
    assert "linear" in graph.contradiction
    assert "\n" not in graph.contradiction
    assert graph.copy().contradiction == graph.contradiction


def test_elements_and_bytes_of_a_type() -> None:
    assert TensorType(onnx.TensorProto.FLOAT16, (2, 3)).bytes == 12
    assert TensorType(FLOAT, ()).elements == 1
    for unknown in (("N", 3), None):
        with pytest.raises(ModelError, match=r"--shape"):
            _ = TensorType(FLOAT, unknown).elements
