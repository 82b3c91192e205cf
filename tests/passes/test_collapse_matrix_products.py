"""MLPs as one layer, and what the repair makes of them."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from normalizing import graph_of

from actcc.errors import PassError
from actcc.graph import Graph
from actcc.pass_api import OfferedSite, apply_candidates, find_sites
from actcc.passes.collapse_matrix_products import CollapseMatrixProducts
from actcc.repair import repair
from actcc.runtime import run, session
from actcc.targets import load_target

COLLAPSE = CollapseMatrixProducts()
INNER = 64
BODIES = {
    "MatMul": "m = MatMul(x, up) a = Add(m, bias) g = Elu(a) n = MatMul(g, down) y = Add(n, shift)",
    "Gemm": "a = Gemm(x, up, bias) g = Elu(a) y = Gemm(g, down, shift)",
    "transposed": (
        "a = Gemm <transB = 1> (x, turned, bias) g = Elu(a) y = Gemm <alpha = 0.5> (g, down, shift)"
    ),
}


def mlp(body: str, act: str = "Elu", above: float = 0.0) -> Graph:
    random = np.random.default_rng(0)
    up = (random.standard_normal((16, INNER)) / 4).astype(np.float32)
    down = (random.standard_normal((INNER, 8)) / 8).astype(np.float32)
    constants = {
        "up": up,
        "turned": np.ascontiguousarray(up.T),
        "bias": (above + 0.3 * random.standard_normal(INNER)).astype(np.float32),
        "down": down,
        "shift": (0.3 * random.standard_normal(8)).astype(np.float32),
    }
    text = f"mlp (float[5,16] x) => (float[5,8] y) {{ {body.replace('Elu', act)} }}"
    model = onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> {text}')
    used = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(
        onnx.numpy_helper.from_array(v, n) for n, v in constants.items() if n in used
    )
    return Graph.load(model)


def offered(graph: Graph) -> OfferedSite:
    (site,) = find_sites(graph, [COLLAPSE], load_target("npu1")).sites
    return site


def feeds(count: int, seed: int) -> list[dict[str, np.ndarray]]:
    random = np.random.default_rng(seed)
    return [{"x": random.standard_normal((5, 16)).astype(np.float32)} for _ in range(count)]


def outputs(graph: Graph, samples: list[dict[str, np.ndarray]]) -> np.ndarray:
    runner = session(graph)
    return np.stack([run(runner, sample)["y"] for sample in samples])


@pytest.mark.parametrize("body", sorted(BODIES))
def test_one_layer_is_the_mlp_where_the_activation_does_nothing(body: str) -> None:
    graph = mlp(BODIES[body], act="Relu", above=10.0)
    site = offered(graph)
    merged = apply_candidates(graph, [COLLAPSE], [(site, "one layer")])
    assert sum(node.op in ("Gemm", "MatMul") for node in merged.nodes()) == 1
    samples = feeds(3, 0)
    expected = outputs(graph, samples)
    assert np.abs(outputs(merged, samples) - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("body", sorted(BODIES))
def test_the_repair_brings_it_closer(body: str) -> None:
    graph = mlp(BODIES[body])
    other = apply_candidates(graph, [COLLAPSE], [(offered(graph), "one layer")])
    repaired = repair(graph, other, feeds(80, 0)).graph
    samples = feeds(40, 1)
    expected = outputs(graph, samples)
    before, after = (
        float(np.square(outputs(g, samples) - expected).mean() / expected.var())
        for g in (other, repaired)
    )
    assert after < 0.25
    assert after < 0.7 * before


def test_layers_without_an_activation_between_are_no_site() -> None:
    graph = mlp("a = Gemm(x, up, bias) y = Gemm(a, down, shift)")
    assert find_sites(graph, [COLLAPSE], load_target("npu1")).sites == ()


def between(body: str, **constants: np.ndarray) -> Graph:
    random = np.random.default_rng(0)
    constants |= {"up": random.standard_normal((16, INNER))}
    constants |= {"down": random.standard_normal((INNER, 8))}
    given = {name: values.astype(np.float32) for name, values in constants.items()}
    return graph_of(body, (2, 5, 16), given)


def test_a_sum_with_more_than_a_row_is_no_bias() -> None:
    body = "m = MatMul(x, up) a = Add(m, places) g = Elu(a) y = MatMul(g, down)"
    survey = find_sites(between(body, places=np.ones((5, INNER))), [COLLAPSE], load_target("npu1"))
    assert not survey.sites
    assert "no constant row" in survey.refusals[0][1].reason


def test_weights_that_overflow_are_said_to() -> None:
    constants = {
        "up": np.full((16, INNER), 300, np.float16),
        "down": np.full((INNER, 8), 300, np.float16),
    }
    body = "m = MatMul(x, up) g = Elu(m) y = MatMul(g, down)"
    graph = graph_of(body, (5, 16), constants, element="float16")
    with pytest.raises(PassError, match="overflow or lose digits in float16"):
        apply_candidates(graph, [COLLAPSE], [(offered(graph), "one layer")])
