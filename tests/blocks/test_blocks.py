"""Blocks are found by structure, whatever their activations are spelled like."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest
from block_networks import BLOCKS, inverted_residual, network
from networks import Builder

from actcc.blocks import find_blocks, find_chains, find_gates
from actcc.graph import Graph


@pytest.mark.parametrize(
    ("name", "kind", "shapes", "gate", "residual"),
    [
        ("inverted residual", "inverted residual", "1x1 8→32, dw 3x3 32, 1x1 32→8", False, True),
        ("gated", "inverted residual", "1x1 8→32, dw 3x3 32, 1x1 32→8", True, False),
        ("bottleneck", "bottleneck", "1x1 8→4, 3x3 4→4, 1x1 4→8", False, True),
        ("pair", "convolution pair", "3x3 3→8, 3x3 8→8", False, False),
        ("mlp", "MLP", "1x1 8→32, 1x1 32→8", False, False),
    ],
)
def test_a_block_is_named_by_its_layers(
    name: str, kind: str, shapes: str, gate: bool, residual: bool
) -> None:
    found = {block.shapes: block for block in find_blocks(network(BLOCKS[name]))}
    block = found[shapes]
    assert (block.kind, block.has_gate, block.has_residual) == (kind, gate, residual)


def test_products_are_those_of_the_layers() -> None:
    (block,) = (b for b in find_blocks(network(inverted_residual)) if b.has_residual)
    assert block.macs == 12 * 12 * (8 * 32 + 9 * 32 + 32 * 8)


def test_products_of_layers_without_a_size_are_not_known() -> None:
    model = network(inverted_residual).to_proto()
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "height"
    for output in model.graph.output:
        output.type.tensor_type.ClearField("shape")
    del model.graph.value_info[:]
    assert {block.macs for block in find_blocks(Graph.load(model))} == {None}


def test_a_chain_ends_where_a_tensor_is_read_twice_or_leaves() -> None:
    build = Builder()
    first = build.add("Relu", build.conv("images", 3, 8))
    second = build.add("Relu", build.conv(first, 8, 8))
    build.add("Add", build.conv(second, 8, 8), second, output="map")
    graph = Graph.load(build.model((1, 3, 8, 8), {"map": (1, 8, 8, 8)}))
    assert [len(chain) for chain in find_chains(graph)] == [2, 1]


def test_spelled_activations_are_part_of_a_chain() -> None:
    build = Builder()
    inner = build.silu(build.conv("images", 3, 8))
    build.conv(inner, 8, 8)
    build.nodes[-1].output[0] = "map"
    graph = Graph.load(build.model((1, 3, 8, 8), {"map": (1, 8, 8, 8)}))
    (chain,) = find_chains(graph)
    assert [link.activation and link.activation.name for link in chain] == ["Silu", None]


def test_a_matmul_has_its_bias_in_the_add_behind_it() -> None:
    graph = loaded(
        "mlp (float[1,4,8] x) => (float[1,4,8] y) "
        "{ m = MatMul(x, up) a = Add(bias, m) r = Relu(a) y = MatMul(r, down) }",
        up=np.ones((8, 16), np.float32),
        bias=np.ones(16, np.float32),
        down=np.ones((16, 8), np.float32),
    )
    (chain,) = find_chains(graph)
    assert [(link.gives, link.writes, link.own) for link in chain] == [("a", "r", 2), ("y", "y", 1)]
    (block,) = find_blocks(graph)
    assert (block.kind, block.shapes) == ("MLP", "full 8→16, full 16→8")


def test_quantize_pairs_are_passed_over() -> None:
    graph = loaded(
        "part (float[1,8,4,4] x) => (float[1,4,4,4] y) "
        "{ k = DequantizeLinear(w, s, n) l = DequantizeLinear(v, s, n) c = Conv(x, k) "
        "q = QuantizeLinear(c, s, n) d = DequantizeLinear(q, s, n) y = Conv(d, l) }",
        w=np.ones((16, 8, 1, 1), np.int8),
        v=np.ones((4, 16, 1, 1), np.int8),
        s=np.float32(0.1),
        n=np.int8(0),
    )
    (block,) = find_blocks(graph)
    assert (block.kind, block.shapes) == ("MLP", "1x1 8→16, 1x1 16→4")


def loaded(text: str, **initializers: Any) -> Graph:
    """A graph of ONNX text with initializers by name."""
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> {text}')
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(np.asarray(v), n) for n, v in initializers.items()
    )
    return Graph.load(model)


def gate_graph(mean: str, product: str) -> Graph:
    text = (
        "part (float[1,8,4,4] x) => (float[1,8,4,4] y) "
        f"{{ {mean} c = Conv(m, w) g = HardSigmoid(c) {product} }}"
    )
    return loaded(text, w=np.ones((8, 8, 1, 1), np.float32))


@pytest.mark.parametrize("product", ["y = Mul(x, g)", "y = Mul(g, x)"])
@pytest.mark.parametrize(
    "mean",
    ["m = GlobalAveragePool(x)", "m = ReduceMean <axes = [2, 3]> (x)"],
)
def test_a_squeeze_and_excitation_is_found(mean: str, product: str) -> None:
    (gate,) = find_gates(gate_graph(mean, product))
    assert (gate.reads, gate.writes, len(gate.nodes)) == ("x", "y", 4)


@pytest.mark.parametrize(
    ("mean", "product"),
    [
        ("a = Abs(x) m = GlobalAveragePool(a)", "y = Mul(x, g)"),  # the mean of something else
        ("m = ReduceMean <axes = [2], keepdims = 1> (x)", "y = Mul(x, g)"),  # along one axis
        ("m = GlobalAveragePool(x)", "h = Add(g, x) y = Mul(x, h)"),  # read elsewhere
    ],
)
def test_other_products_are_no_squeeze_and_excitation(mean: str, product: str) -> None:
    assert find_gates(gate_graph(mean, product)) == []
