"""Networks and the same with other activations, and how far apart they are."""

from __future__ import annotations

import numpy as np
import onnx
from networks import images
from onnx import numpy_helper

from actcc.graph import Graph
from actcc.runtime import run, session

RANDOM = np.random.default_rng(0)


def floats(*shape, scale=1.0, dtype=np.float32):
    return (scale * RANDOM.standard_normal(shape)).astype(dtype)


def weights(*shape):
    """Weights that keep the size of what they map."""
    fan_in = int(np.prod(shape[1:])) if len(shape) != 2 else shape[0]
    return floats(*shape, scale=1.4 / np.sqrt(fan_in))


def model(text, opset=17, ir=8, **initializers):
    """A model of ONNX text, with initializers by name."""
    parsed = onnx.parser.parse_model(f'<ir_version: {ir}, opset_import: ["" : {opset}]>\n{text}')
    parsed.graph.initializer.extend(
        numpy_helper.from_array(np.asarray(v), n) for n, v in initializers.items()
    )
    for index, node in enumerate(parsed.graph.node):
        node.name = node.name or f"{node.op_type}{index}"
    return parsed


def pair(text, old="Softplus", new="Relu", **initializers):
    """The graph of a text, and the same with another activation."""
    assert old in text
    networks = (model(t, **initializers) for t in (text, text.replace(old, new)))
    return tuple(Graph.load(network) for network in networks)


def outputs(graph, feeds):
    runner = session(graph)
    return [run(runner, sample) for sample in feeds]


def error(original, other, feeds):
    """Share of the outputs' energy, free of its mean, that another network misses."""
    missed = total = 0.0
    for theirs, ours in zip(outputs(original, feeds), outputs(other, feeds), strict=True):
        for name, values in theirs.items():
            missed += np.square(ours[name].astype(np.float64) - values).sum()
            total += np.square(values.astype(np.float64) - values.mean()).sum()
    return missed / total


def constants(graph):
    return {t.name: numpy_helper.to_array(t) for t in graph.to_proto().graph.initializer}


def weight(graph, node):
    """Values of a layer's weights."""
    return graph.constant(graph.node(node).inputs[1])


def serialized(graph):
    return graph.to_proto().SerializeToString(deterministic=True)


def with_activation(proto, op):
    """A copy of a network in which x · Sigmoid(x) is another operator."""
    twin = onnx.ModelProto()
    twin.CopyFrom(proto)
    kept, gates = [], {n.output[0]: n for n in twin.graph.node if n.op_type == "Sigmoid"}
    for node in twin.graph.node:
        if node.op_type == "Mul" and node.input[1] in gates:
            made = onnx.helper.make_node(op, [node.input[0]], [node.output[0]], name=node.name)
            kept.append(made)
        elif node.output[0] not in gates:
            kept.append(node)
    del twin.graph.node[:]
    twin.graph.node.extend(kept)
    return Graph.load(twin)


def image_feeds(count, seed=1):
    return [{"images": image[None]} for image in images(count, seed=seed)]


FITTED, HELD_OUT = image_feeds(32, seed=1), image_feeds(8, seed=2)


def feeds(shape, count=24, **more):
    return [{"x": floats(*shape), **{k: floats(*s) for k, s in more.items()}} for _ in range(count)]


CHAIN = """network (float[N, 6, H, W] x) => (float[N, 6, H2, W2] y) {
    p = Conv(x, w1, b1) a = Softplus(p) q = Conv(a, w2, b2) c = Softplus(q) y = Conv(c, w3, b3) }"""


def chain_weights():
    random = np.random.default_rng(5)
    given = {
        f"w{i}": (random.standard_normal((6, 6, 1, 1)) / 2).astype(np.float32) for i in (1, 2, 3)
    }
    return given | {f"b{i}": random.standard_normal(6).astype(np.float32) for i in (1, 2, 3)}


def chain_feeds(count=16, shape=(1, 6, 8, 8), seed=3):
    random = np.random.default_rng(seed)
    return [{"x": random.standard_normal(shape).astype(np.float32)} for _ in range(count)]


def chain():
    return pair(CHAIN, **chain_weights())
