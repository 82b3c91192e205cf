"""Every layer gets a bias of its own, and no number changes."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from actcc.graph import Graph, Interface, verify
from actcc.repair.biases import with_own_biases
from actcc.repair.layers import find_layers
from actcc.runtime import run, session


def own_biases(text, **weights):
    """The graph before and after, for all its layers."""
    parsed = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]>\n{text}')
    parsed.graph.initializer.extend(numpy_helper.from_array(v, n) for n, v in weights.items())
    graph = Graph.load(parsed)
    before = graph.to_proto().SerializeToString()
    after = with_own_biases(graph, find_layers(graph)[0])
    assert graph.to_proto().SerializeToString() == before
    verify(after, Interface.of(graph), [])
    feeds = {"x": np.random.default_rng(0).standard_normal((2, 4, 4)).astype(np.float32)}
    expected = run(session(graph, optimise=False), feeds)
    found = run(session(after, optimise=False), feeds)
    for name, values in expected.items():
        np.testing.assert_array_equal(found[name], values)
    assert find_layers(after)[0].keys() == find_layers(graph)[0].keys()
    return graph, after


def weights(*shape):
    return np.random.default_rng(1).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("op", ["Conv", "ConvTranspose"])
@pytest.mark.parametrize("operands", ["x, w", "x, w, "])
def test_a_convolution_without_a_bias_gets_one_of_zero(op, operands):
    text = f"g (float[2,4,4] x) => (float[2,a,b] y) {{ y = {op}<group = 2>({operands}) }}"
    graph, after = own_biases(text, w=weights(4, 2, 3))
    layer = find_layers(after)[0]["y"]
    assert layer.bias is not None
    assert layer.biases.tolist() == [0, 0, 0, 0]
    assert layer.node == find_layers(graph)[0]["y"].node


def test_a_gemm_without_a_bias_gets_one_of_zero():
    text = """g (float[2,4,4] x) => (float[8,3] y) {
        r = Reshape(x, shape)
        y = Gemm<alpha = 2.0, beta = 3.0>(r, w)
    }"""
    _, after = own_biases(text, w=weights(4, 3), shape=np.array([8, 4]))
    assert find_layers(after)[0]["y"].biases.tolist() == [0, 0, 0]


def test_a_matmul_without_a_bias_gets_an_add_that_writes_what_it_wrote():
    text = """g (float[2,4,4] x) => (float[2,4,3] y, float[2,4,3] z) {
        y = MatMul(x, w)
        z = Relu(y)
    }"""
    _, after = own_biases(text, w=weights(4, 3))
    layer = find_layers(after)[0]["y"]
    assert [node.op for node in after.nodes()] == ["MatMul", "Add", "Relu"]
    assert layer.adds is not None
    assert layer.weight == "w"
    assert layer.biases.tolist() == [0, 0, 0]


def test_layers_that_share_a_bias_get_one_each_and_others_keep_theirs():
    text = """g (float[2,4,4] x) => (float[2,4,2] y) {
        a = Conv(x, u, b)
        c = Conv(a, v, b)
        m = MatMul(c, w)
        n = Add(b, m)
        p = MatMul(n, t)
        y = Add(p, own)
    }"""
    values = {"u": weights(4, 4, 1), "v": weights(4, 4, 1), "w": weights(4, 4), "t": weights(4, 2)}
    _, after = own_biases(text, **values, b=weights(4), own=weights(2))
    layers = find_layers(after)[0]
    names = [layer.bias for layer in layers.values()]
    assert len(set(names)) == 4
    assert names[3] == "own"
    for layer in list(layers.values())[:3]:
        np.testing.assert_array_equal(layer.biases, weights(4))
