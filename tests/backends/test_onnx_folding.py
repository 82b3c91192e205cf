"""Candidates that differ in what is computed at load alone have one price, without a doubt."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from actcc.backends.onnx_folding import structure_of_run
from actcc.backends.onnx_runtime import OnnxRuntimeBackend
from actcc.graph import Graph, structure_hash
from actcc.latency_models import Profile
from actcc.prices import Price, PriceQuery

TEXT = """
<ir_version: 8, opset_import: ["" : 17]>
network (float[1, 32, 8, 8] x) => (float[1, 32, 8, 8] y) { c = Conv(x, w) y = Relu(c) }
"""


def network() -> Graph:
    model = onnx.parser.parse_model(TEXT)
    weights = np.random.default_rng(0).standard_normal((32, 32, 1, 1)).astype(np.float32)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weights, "w"))
    return Graph.load(model)


def stored(kind: str) -> Graph:
    """The network with its weights behind nodes that read constants alone."""
    graph = network()
    conv = next(graph.nodes("Conv"))
    weights = graph.constant(conv.inputs[1])
    assert weights is not None
    scales = np.full((32, 1, 1, 1), 0.01, np.float32)
    int8 = np.round(weights / scales).clip(-127, 127).astype(np.int8)
    if kind == "float16":
        found = graph.insert("Cast", [weights.astype(np.float16)], to=TensorProto.FLOAT)
    elif kind == "int8":
        cast = graph.insert("Cast", [int8], to=TensorProto.FLOAT)
        found = graph.insert("Mul", [cast, scales])
    else:
        zeros = np.zeros(32, np.int8)
        found = graph.insert("DequantizeLinear", [int8, scales.reshape(-1), zeros], axis=0)
    graph.set_input(conv, 1, found)
    return graph


@pytest.mark.parametrize(("kind", "same"), [("float16", True), ("int8", True), ("DQ", False)])
def test_what_is_folded_at_load_leaves_the_structure_as_it_was(kind: str, same: bool) -> None:
    plain, other = (structure_hash(structure_of_run(g)) for g in (network(), stored(kind)))
    assert (plain == other) is same


def test_compressed_weights_cost_nothing_at_all() -> None:
    settings = {"neighbourhood_seconds": 0.05}
    backend = OnnxRuntimeBackend(
        Profile(name="mine", description="", backend="onnxruntime", settings=settings)
    )
    query = PriceQuery(network(), {"float16": stored("float16"), "int8": stored("int8")})
    for price in backend.price(query).values():
        assert isinstance(price, Price)
        assert (price.difference_ns, price.noise_ns) == (0.0, 0.0)


def test_what_reads_an_input_is_left() -> None:
    graph = network()
    assert [node.op for node in structure_of_run(graph).nodes()] == ["Conv", "Relu"]


def test_random_numbers_are_drawn_in_each_run() -> None:
    graph = network()
    conv = next(graph.nodes("Conv"))
    drawn = graph.insert("RandomNormalLike", [conv.inputs[1]], like=conv.inputs[1])
    graph.set_input(conv, 1, drawn)
    assert structure_hash(structure_of_run(graph)) != structure_hash(structure_of_run(network()))


@pytest.mark.parametrize(
    "body",
    [
        "s = Mul(factors, ones) y = Resize(x, , s)",
        "h = Mul(factors, ones) s = Mul(h, ones) y = Resize(x, , s)",
        "f = Mul(factors, sizes) s = Cast<to = 7>(f) y = Resize(x, , , s)",
    ],
)
def test_feature_maps_of_other_sizes_are_other_structures(body: str) -> None:
    found = set()
    for factor in (2.0, 2.5):
        model = onnx.parser.parse_model(
            '<ir_version: 8, opset_import: ["": 17]> network '
            f"(float[1, 32, 8, 8] x) => (float[1, 32, height, width] y) {{ {body} }}"
        )
        constants = {"factors": [1, 1, factor, factor], "ones": [1] * 4, "sizes": [1, 32, 8, 8]}
        for name, values in constants.items():
            if name in body:
                array = np.array(values, np.float32)
                model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
        found.add(structure_hash(structure_of_run(Graph.load(model))))
    assert len(found) == 2


def test_what_a_subgraph_reads_is_left() -> None:
    proto = stored("float16").to_proto()
    (cast,) = (node for node in proto.graph.node if node.op_type == "Cast")
    branch = onnx.helper.make_graph(
        [onnx.helper.make_node("Neg", [cast.output[0]], ["z1"])],
        "branch",
        [],
        [onnx.helper.make_tensor_value_info("z1", TensorProto.FLOAT, [32, 32, 1, 1])],
    )
    proto.graph.input.append(onnx.helper.make_tensor_value_info("chosen", TensorProto.BOOL, []))
    proto.graph.output.append(
        onnx.helper.make_tensor_value_info("z", TensorProto.FLOAT, [32, 32, 1, 1])
    )
    proto.graph.node.append(
        onnx.helper.make_node("If", ["chosen"], ["z"], then_branch=branch, else_branch=branch)
    )
    graph = structure_of_run(Graph.load(proto))
    assert "Cast" in [node.op for node in graph.nodes()]
