"""Weights that are large beside the structure, and models beyond one protobuf message."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from actcc.graph import Graph, Interface, verify
from actcc.graph.files import EXTERNAL_DATA_THRESHOLD
from actcc.normalize import normalize
from actcc.runtime import run, session

TWO_GIB = 2**31


def layers(count: int, width: int) -> onnx.ModelProto:
    """`count` square MatMuls; layer i multiplies by i + 1."""
    nodes = [
        onnx.helper.make_node("MatMul", [f"h{i}", f"w{i}"], [f"h{i + 1}"]) for i in range(count)
    ]
    shape = [1, width]
    element = onnx.TensorProto.FLOAT
    model = onnx.helper.make_model(
        onnx.helper.make_graph(
            nodes,
            "net",
            [onnx.helper.make_tensor_value_info("h0", element, shape)],
            [onnx.helper.make_tensor_value_info(f"h{count}", element, shape)],
        ),
        opset_imports=[onnx.helper.make_opsetid("", 17)],
        ir_version=8,
    )
    for index in range(count):
        weights = np.zeros((width, width), np.float32)
        np.fill_diagonal(weights, index + 1)
        tensor = model.graph.initializer.add(name=f"w{index}", data_type=element)
        tensor.dims.extend(weights.shape)
        tensor.raw_data = weights.tobytes()
    return model


def test_the_frame_of_a_model_is_the_model_without_the_data_of_its_weights() -> None:
    graph = Graph.load(layers(3, 64))
    whole, frame = graph.to_proto(), graph.frame()
    assert frame.ByteSize() < 1024 < whole.ByteSize()
    for tensor in frame.graph.initializer:
        assert not tensor.raw_data
        assert list(tensor.dims) == [64, 64]
    assert list(frame.graph.node) == list(whole.graph.node)
    assert list(frame.graph.input) == list(whole.graph.input)
    assert graph.to_proto().SerializeToString() == whole.SerializeToString()
    assert graph.weight_bytes == 3 * 64 * 64 * 4


def test_the_frame_knows_weights_that_a_pass_has_made() -> None:
    graph = Graph.load(layers(1, 64))
    graph.set_input(next(graph.nodes()), 1, np.ones((64, 64), np.float32))
    assert not graph.frame().graph.initializer[0].raw_data
    assert graph.shape("h1") == (1, 64)
    result = run(session(graph), {"h0": np.ones((1, 64), np.float32)})
    np.testing.assert_array_equal(result["h1"], np.full((1, 64), 64))


def test_small_constants_keep_their_data_in_the_frame() -> None:
    model = onnx.parser.parse_model(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[4] x) => (float[2,2] y) <int64[2] s = {2, 2}> { y = Reshape(x, s) }
        """
    )
    graph = Graph.load(model)
    assert list(graph.frame().graph.initializer) == list(graph.to_proto().graph.initializer)


@pytest.mark.slow  # a minute, 8 GB of memory and 2.4 GB of disk
def test_a_model_beyond_one_message_is_saved_loaded_edited_and_run(tmp_path: Path) -> None:
    count, width = 9, 8192
    model = layers(count, width)
    graph = Graph.load(model)
    assert graph.weight_bytes > TWO_GIB > EXTERNAL_DATA_THRESHOLD
    graph.save(tmp_path / "large.onnx")
    assert (tmp_path / "large.onnx").stat().st_size < 10_000
    assert (tmp_path / "large.onnx.data").stat().st_size > TWO_GIB
    assert len(model.graph.initializer[0].raw_data) == width * width * 4
    del graph, model

    loaded = Graph.load(tmp_path / "large.onnx")
    assert loaded.external
    assert loaded.shape(f"h{count}") == (1, width)
    last = loaded.producer(f"h{count}")
    loaded.set_input(last, 0, loaded.insert("Relu", [last.inputs[0]]))
    verify(loaded, Interface.of(loaded), ["test"])
    result = normalize(loaded)
    assert ("simplify", "left out: the model is too large for one protobuf message") in result.notes
    feeds = {"h0": np.full((1, width), -1, np.float32)}
    np.testing.assert_array_equal(run(session(result.graph), feeds)[f"h{count}"], 0)
    feeds = {"h0": np.ones((1, width), np.float32)}
    expected = float(np.prod(np.arange(1, count + 1)))
    np.testing.assert_array_equal(run(session(result.graph), feeds)[f"h{count}"], expected)
