"""An activation goes only where that was asked for, and never inside quantize/dequantize pairs."""

import numpy as np
import onnx
import pytest

from actcc.graph import Graph
from actcc.pass_api import apply_candidates, find_sites, select_passes
from actcc.passes.drop_activation import DropActivation
from actcc.runtime import random_feeds, run, session
from actcc.targets import load_target

HEADER = '<ir_version: 8, opset_import: ["" : 17]>'


def load(body: str, outputs: str = "float[1, 8] y") -> Graph:
    text = f"{HEADER} network (float[1, 8] x) => ({outputs}) {{ {body} }}"
    return Graph.load(onnx.parser.parse_model(text))


def test_it_runs_only_when_asked_for() -> None:
    assert "drop-activation" not in [found.name for found in select_passes(None)]
    asked = select_passes(None, also=["drop-activation"])
    assert "drop-activation" in [found.name for found in asked]


@pytest.mark.parametrize("activation", ["Relu(k)", "Sigmoid(k)", "HardSwish(k)", "Mul(k, s)"])
def test_without_the_activation_its_input_comes_out(activation: str) -> None:
    body = f"k = Neg(x) s = Sigmoid(k) y = {activation}"
    graph = load(body)
    (site,) = [
        s
        for s in find_sites(graph, [DropActivation()], load_target("cpu")).sites
        if s.site.writes == "y"
    ]
    rewritten = apply_candidates(graph, [DropActivation()], [(site, "Identity")])
    feeds = random_feeds(graph, 0)
    np.testing.assert_array_equal(run(session(rewritten), feeds)["y"], -feeds["x"])


def test_inside_quantize_pairs_it_is_refused_with_a_reason() -> None:
    body = (
        "scale = Constant <value_float = 0.1> () "
        "zero = Constant <value = uint8 {100}> () "
        "q = QuantizeLinear(x, scale, zero) d = DequantizeLinear(q, scale, zero) a = Relu(d) "
        "p = QuantizeLinear(a, scale, zero) y = DequantizeLinear(p, scale, zero)"
    )
    survey = find_sites(load(body), [DropActivation()], load_target("cpu"))
    assert survey.sites == ()
    assert "inside QDQ" in survey.refusals[0][1].reason
