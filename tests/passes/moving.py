"""Networks around an activation that may move, and a check that moving it changes nothing."""

from __future__ import annotations

import numpy as np
import onnx

from actcc.graph import Graph
from actcc.pass_api import Survey, apply_candidates, find_sites
from actcc.passes.move_activation import MoveActivation
from actcc.runtime import random_feeds, run, session
from actcc.targets import load_target

MOVE = MoveActivation()
NPU1 = load_target("npu1")
# Bodies write `b` from `a`; the first group rounds nothing, so that moving it changes no bit.
SELECTING = ("b = Relu(a)", "b = Clip(a, low, high)", "b = LeakyRelu <alpha = 0.25> (a)")
INCREASING = (
    "b = Sigmoid(a)",
    "b = Tanh(a)",
    "b = Elu(a)",
    "b = HardSigmoid(a)",
    "b = Softplus(a)",
)
POOL = "y = MaxPool <kernel_shape = [2, 2], strides = [2, 2]> (b)"
OTHERS = ("g = Sigmoid(a) b = Mul(a, g)", "b = HardSwish(a)")
CONSTANTS = {
    "low": np.float32(-0.5),
    "high": np.float32(1.5),
    "c": np.float32(1),
    "scale": np.float32(0.1),
    "below": np.float32(-1),
    "point": np.uint8(100),
    "weights": np.random.default_rng(0).standard_normal((4, 4, 1, 1)).astype(np.float32),
    "slope": np.array([[[0.1]], [[0.2]], [[0.3]], [[0.4]]], np.float32),
}


def graph_of(
    body: str, x: str = "1, 4, 6, 6", outputs: str = "y", opset: int = 17, **constants: object
) -> Graph:
    declared = ", ".join(f"float[] {name}" for name in outputs.split())
    text = (
        f'<ir_version: 8, opset_import: ["" : {opset}]> '
        f"network (float[{x}] x) => ({declared}) {{ {body} }}"
    )
    model = onnx.parser.parse_model(text)
    for info in model.graph.output:
        info.type.tensor_type.ClearField("shape")
    used = {name for node in model.graph.node for name in node.input}
    for name, values in {**CONSTANTS, **constants}.items():
        if name in used:
            tensor = onnx.numpy_helper.from_array(np.asarray(values), name)
            model.graph.initializer.append(tensor)
    return Graph.load(model)


def survey(graph: Graph) -> Survey:
    return find_sites(graph, [MOVE], NPU1, exact_only=True)


def operators(graph: Graph) -> list[str]:
    return [node.op for node in graph.nodes()]


def assert_same(graph: Graph, *, bitwise: bool, seed: int = 0) -> list[Graph]:
    """Every candidate of every site alone, against the original; returns what came out."""
    feeds = random_feeds(graph, seed)
    before = run(session(graph, optimise=False), feeds)
    found = survey(graph)
    assert found.sites, found.refusals
    moved = []
    for site in found.sites:
        for candidate in site.candidates:
            rewritten = apply_candidates(graph, [MOVE], [(site, candidate.name)])
            after = run(session(rewritten, optimise=False), feeds)
            for name, expected in before.items():
                if bitwise and " as " not in candidate.name:
                    np.testing.assert_array_equal(after[name], expected, candidate.name)
                else:
                    np.testing.assert_allclose(after[name], expected, 1e-5, 1e-6, candidate.name)
            moved.append(rewritten)
    return moved
