"""Weights in files beside a model: read and written wherever they are held, or refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from linear_models import WEIGHTS, linear_model, relocate, save_external, weights_of

from actcc.errors import ModelError
from actcc.graph import Graph
from actcc.graph.files import read_model, write_model
from actcc.runtime import run, session


def test_missing_external_data_is_named(tmp_path: Path) -> None:
    path = save_external(tmp_path)
    (tmp_path / "weights.bin").unlink()
    with pytest.raises(ModelError, match=r"'weights\.bin' of 'w' is missing"):
        Graph.load(path)


def test_truncated_external_data_is_refused(tmp_path: Path) -> None:
    path = save_external(tmp_path)
    (tmp_path / "weights.bin").write_bytes(b"\x00" * 100)
    with pytest.raises(ModelError, match=r"external data of 'w'.*copy the data file again"):
        Graph.load(path)


@pytest.mark.parametrize("location", ["../weights.bin", "/etc/hostname", "a/../../weights.bin"])
def test_external_data_outside_the_folder_is_refused(tmp_path: Path, location: str) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    path = save_external(folder)
    (tmp_path / "weights.bin").write_bytes((folder / "weights.bin").read_bytes())
    relocate(path, location)
    with pytest.raises(ModelError, match="outside the model's folder"):
        Graph.load(path)


def test_a_link_out_of_the_folder_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    path = save_external(folder)
    (folder / "weights.bin").rename(tmp_path / "weights.bin")
    (folder / "weights.bin").symlink_to(tmp_path / "weights.bin")
    with pytest.raises(ModelError, match="outside the model's folder"):
        Graph.load(path)


def test_external_data_is_loaded(tmp_path: Path) -> None:
    graph = Graph.load(save_external(tmp_path))
    np.testing.assert_array_equal(weights_of(graph), WEIGHTS)


def test_external_data_in_a_sub_folder_is_loaded(tmp_path: Path) -> None:
    path = save_external(tmp_path)
    (tmp_path / "data").mkdir()
    (tmp_path / "weights.bin").rename(tmp_path / "data" / "weights.bin")
    relocate(path, "data/weights.bin")
    np.testing.assert_array_equal(weights_of(Graph.load(path)), WEIGHTS)


def test_a_model_saved_with_external_data_is_the_same_model(tmp_path: Path) -> None:
    Graph.load(linear_model()).save(tmp_path / "out.onnx", external=True)
    assert (tmp_path / "out.onnx.data").stat().st_size >= WEIGHTS.nbytes
    assert (tmp_path / "out.onnx").stat().st_size < 1024
    np.testing.assert_array_equal(weights_of(Graph.load(tmp_path / "out.onnx")), WEIGHTS)
    feeds = {"x": np.ones((1, 4), np.float32)}
    result = run(session(tmp_path / "out.onnx"), feeds)
    np.testing.assert_allclose(result["y"], feeds["x"] @ WEIGHTS)


def test_weights_over_the_threshold_go_to_a_file_beside_the_model(tmp_path: Path) -> None:
    write_model(linear_model(), tmp_path / "out.onnx", threshold=WEIGHTS.nbytes - 1)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["out.onnx", "out.onnx.data"]
    np.testing.assert_array_equal(weights_of(Graph.load(tmp_path / "out.onnx")), WEIGHTS)


def test_weights_up_to_the_threshold_stay_in_the_model(tmp_path: Path) -> None:
    write_model(linear_model(), tmp_path / "out.onnx", threshold=WEIGHTS.nbytes)
    assert [p.name for p in tmp_path.iterdir()] == ["out.onnx"]


def test_a_model_can_be_saved_over_itself_with_its_external_data(tmp_path: Path) -> None:
    Graph.load(linear_model()).save(tmp_path / "model.onnx", external=True)
    graph = Graph.load(tmp_path / "model.onnx")
    graph.save(tmp_path / "model.onnx", external=True)
    np.testing.assert_array_equal(weights_of(Graph.load(tmp_path / "model.onnx")), WEIGHTS)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["model.onnx", "model.onnx.data"]


# ------------------------------------------------------------------------------ rare holders

OFFSETS = np.arange(4, dtype=np.float32)


def external(name: str = "w", location: str = "offsets.bin") -> onnx.TensorProto:
    tensor = onnx.TensorProto(name=name, data_type=onnx.TensorProto.FLOAT, dims=[4])
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return tensor


def sparse(values: onnx.TensorProto) -> onnx.SparseTensorProto:
    indices = onnx.helper.make_tensor("", onnx.TensorProto.INT64, [4], range(4))
    return onnx.helper.make_sparse_tensor(values, indices, [4])


def adding(constant: str, more: str = "") -> onnx.ModelProto:
    return onnx.parser.parse_model(
        f"""
        <ir_version: 8, opset_import: ["" : 17, "local" : 1]>
        network (float[4] x) => (float[4] y) {{ {constant} y = Add(x, w) }} {more}
        """
    )


def in_a_constant(tensor: onnx.TensorProto) -> onnx.ModelProto:
    model = adding("w = Constant<value = float[4] {0, 0, 0, 0}>()")
    model.graph.node[0].attribute[0].t.CopyFrom(tensor)
    return model


def in_a_sparse_constant(tensor: onnx.TensorProto) -> onnx.ModelProto:
    model = adding("w = Constant()")
    attribute = onnx.helper.make_attribute("sparse_value", sparse(tensor))
    model.graph.node[0].attribute.append(attribute)
    return model


def in_a_sparse_initializer(tensor: onnx.TensorProto) -> onnx.ModelProto:
    model = adding("")
    model.graph.sparse_initializer.append(sparse(tensor))
    return model


def in_a_function(tensor: onnx.TensorProto) -> onnx.ModelProto:
    model = adding(
        "w = local.Offsets()",
        '<domain: "local", opset_import: ["" : 17]> Offsets () => (w) { w = Constant() }',
    )
    model.functions[0].node[0].attribute.append(onnx.helper.make_attribute("value", tensor))
    return model


def in_a_subgraph(tensor: onnx.TensorProto) -> onnx.ModelProto:
    model = adding(
        """
        yes = Constant<value = bool {1}>()
        w = If (yes) <
            then_branch = g () => (float[4] a) { a = Identity(inner) },
            else_branch = h () => (float[4] b) { b = Constant<value = float[4] {9, 9, 9, 9}>() }
        >
        """
    )
    branches = {attribute.name: attribute.g for attribute in model.graph.node[1].attribute}
    tensor.name = "inner"
    branches["then_branch"].initializer.append(tensor)
    return model


HOLDERS = (
    in_a_constant,
    in_a_sparse_constant,
    in_a_sparse_initializer,
    in_a_function,
    in_a_subgraph,
)
Holder = Callable[[onnx.TensorProto], onnx.ModelProto]


@pytest.mark.parametrize("holder", HOLDERS)
def test_external_data_is_found_wherever_a_model_holds_tensors(
    tmp_path: Path, holder: Holder
) -> None:
    OFFSETS.tofile(tmp_path / "offsets.bin")
    path, copy = tmp_path / "model.onnx", tmp_path / "elsewhere" / "copy.onnx"
    path.write_bytes(holder(external()).SerializeToString())
    copy.parent.mkdir()
    graph = Graph.load(path)
    assert graph.external
    graph.save(copy, external=True)
    found = run(session(copy), {"x": np.ones(4, np.float32)})
    np.testing.assert_array_equal(found["y"], OFFSETS + 1)


@pytest.mark.parametrize("holder", HOLDERS)
def test_external_data_outside_the_folder_is_refused_wherever_it_is_held(
    tmp_path: Path, holder: Holder
) -> None:
    OFFSETS.tofile(tmp_path / "offsets.bin")
    path = tmp_path / "model" / "model.onnx"
    path.parent.mkdir()
    path.write_bytes(holder(external(location="../offsets.bin")).SerializeToString())
    with pytest.raises(ModelError, match="outside the model's folder"):
        Graph.load(path)


def test_external_data_of_lists_of_tensors_and_of_graphs_is_read(tmp_path: Path) -> None:
    OFFSETS.tofile(tmp_path / "offsets.bin")
    inner = onnx.GraphProto(name="inner", initializer=[external()])
    node = onnx.helper.make_node("Lists", ["x"], ["y"], domain="local")
    node.attribute.add(name="listed", type=onnx.AttributeProto.TENSORS).tensors.append(external())
    node.attribute.add(name="inside", type=onnx.AttributeProto.GRAPHS).graphs.append(inner)
    model = adding("w = Identity(x)")
    model.graph.node.append(node)
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    (tmp_path / "offsets.bin").rename(tmp_path / "gone.bin")
    with pytest.raises(ModelError, match=r"'offsets\.bin' of 'w' is missing"):
        read_model(path)
    (tmp_path / "gone.bin").rename(tmp_path / "offsets.bin")
    read, _ = read_model(path)
    listed, inside = read.graph.node[-1].attribute
    for tensor in (listed.tensors[0], inside.graphs[0].initializer[0]):
        np.testing.assert_array_equal(onnx.numpy_helper.to_array(tensor), OFFSETS)


def test_external_data_of_another_size_than_its_tensor_is_refused(tmp_path: Path) -> None:
    OFFSETS[:3].tofile(tmp_path / "offsets.bin")
    path = tmp_path / "model.onnx"
    path.write_bytes(in_a_sparse_constant(external()).SerializeToString())
    with pytest.raises(ModelError, match=r"weight 'w' of the shape \[4\] has 12 bytes"):
        Graph.load(path)
