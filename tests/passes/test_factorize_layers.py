"""Layers as two of low rank, pairs of them through fewer channels, and what repair makes of it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from normalizing import graph_of

from actcc.graph import Array, Graph
from actcc.pass_api import OfferedSite, apply_candidates, find_sites
from actcc.passes.factorize_layers import FactorizeLayers
from actcc.repair import repair
from actcc.repair.refits import plan_refits
from actcc.runtime import run, session
from actcc.targets import load_target

FACTORIZE = FactorizeLayers()
INPUTS, OUTPUTS = 96, 160
FULLY_CONNECTED = {
    "MatMul": ("m = MatMul(x, w) y = Add(m, b)", False),
    "Gemm": ("y = Gemm(x, w, b)", False),
    "Gemm, transposed and scaled": ("y = Gemm <transB = 1, alpha = 0.5> (x, w, b)", True),
    "Gemm without bias": ("y = Gemm(x, w)", False),
}


def floats(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def low_rank(columns: int, outputs: int, rank: int) -> Array:
    return (floats(columns, rank) @ floats(rank, outputs, seed=1) / rank).astype(np.float32)


def sites_of(graph: Graph) -> dict[str, OfferedSite]:
    found = find_sites(graph, [FACTORIZE], load_target("npu1")).sites
    return {site.id.removeprefix("factorize-layers:"): site for site in found}


def factorized(graph: Graph, name: str = "y", at: int = 0) -> Graph:
    site = sites_of(graph)[name]
    return apply_candidates(graph, [FACTORIZE], [(site, site.candidates[at].name)])


def outputs(graph: Graph, samples: list[dict[str, Array]]) -> Array:
    runner = session(graph)
    return np.stack([run(runner, sample)["y"] for sample in samples])


def samples_of(count: int, *shape: int, seed: int = 5) -> list[dict[str, Array]]:
    return [{"x": floats(*shape, seed=seed + index)} for index in range(count)]


def assert_same(one: Array, other: Array) -> None:
    assert np.abs(one - other).max() <= 2e-5 * np.abs(one).max()


def missed(wanted: Array, given: Array) -> float:
    return float(np.square(wanted - given).mean() / wanted.var())


@pytest.mark.parametrize("body", sorted(FULLY_CONNECTED))
def test_weights_of_low_rank_are_two_layers_exactly(body: str) -> None:
    text, transposed = FULLY_CONNECTED[body]
    weights = low_rank(INPUTS, OUTPUTS, 24)
    constants = {"w": np.ascontiguousarray(weights.T) if transposed else weights}
    constants |= {"b": floats(OUTPUTS)} if "b)" in text else {}
    graph = graph_of(text, (4, INPUTS), constants)
    narrow = factorized(graph, at=-1)
    products = [node for node in narrow.nodes() if node.op in ("Gemm", "MatMul")]
    sizes = [values.size for n in products if (values := narrow.constant(n.inputs[1])) is not None]
    assert len(sizes) == 2
    assert sum(sizes) < INPUTS * OUTPUTS
    samples = samples_of(3, 4, INPUTS)
    assert_same(outputs(graph, samples), outputs(narrow, samples))


@settings(max_examples=25, deadline=None)
@given(
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    strides=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    dilations=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    pads=st.tuples(*[st.integers(0, 2)] * 4),
    biased=st.booleans(),
)
def test_convolutions_of_low_rank_are_two_exactly(
    kernel: tuple[int, int],
    strides: tuple[int, int],
    dilations: tuple[int, int],
    pads: tuple[int, int, int, int],
    biased: bool,
) -> None:
    weights = low_rank(80 * kernel[0] * kernel[1], 128, 20).T.reshape(128, 80, *kernel)
    constants = {"w": np.ascontiguousarray(weights)} | ({"b": floats(128)} if biased else {})
    sampling = f"strides = {list(strides)}, dilations = {list(dilations)}, pads = {list(pads)}"
    body = f"y = Conv <{sampling}> (x, w{', b' if biased else ''})"
    graph = graph_of(body, (1, 80, 7, 6), constants)
    narrow = factorized(graph, at=-1)
    assert [node.op for node in narrow.nodes()] == ["Conv", "Conv"]
    samples = samples_of(2, 1, 80, 7, 6)
    assert_same(outputs(graph, samples), outputs(narrow, samples))


def pair(rank: int) -> Graph:
    constants = {
        "w": low_rank(64, 128, rank).T.reshape(128, 64, 1, 1).copy(),
        "b": floats(128),
        "v": floats(96, 128, 1, 1, seed=3) / 11,
        "c": floats(96, seed=4),
    }
    return graph_of("a = Conv(x, w, b) y = Conv(a, v, c)", (1, 64, 5, 5), constants)


def test_two_linear_layers_pass_through_fewer_channels() -> None:
    graph = pair(rank=24)
    narrow = factorized(graph, "y (2 layers)", at=-1)
    between = [narrow.constant(node.inputs[1]).shape[0] for node in narrow.nodes()]  # type: ignore[union-attr]
    assert between[0] < 128
    samples = samples_of(2, 1, 64, 5, 5)
    assert_same(outputs(graph, samples), outputs(narrow, samples))


def test_the_repair_takes_the_directions_that_vary_on_the_samples() -> None:
    """The weights have full rank; what the layer reads varies in a few directions alone."""
    mixing = floats(16, INPUTS, seed=2)

    def feeds(count: int, seed: int) -> list[dict[str, Array]]:
        noise = [0.02 * x["x"] for x in samples_of(count, 8, INPUTS, seed=seed + 1000)]
        seen = samples_of(count, 8, 16, seed=seed)
        return [{"x": s["x"] @ mixing + n} for s, n in zip(seen, noise, strict=True)]

    constants = {"w": floats(INPUTS, OUTPUTS) / 10, "b": floats(OUTPUTS)}
    graph = graph_of("y = Gemm(x, w, b)", (8, INPUTS), constants)
    narrow = factorized(graph, at=-1)
    repaired = repair(graph, narrow, feeds(40, 0))
    assert not repaired.refused
    held_out = feeds(20, 500)
    expected = outputs(graph, held_out)
    assert missed(expected, outputs(narrow, held_out)) > 0.05
    after = missed(expected, outputs(repaired.graph, held_out))
    assert after < 2e-3
    assert repaired.layers[0].missed[1] == pytest.approx(after, rel=0.3)


@pytest.mark.parametrize("behind", ["", "Relu", "HardSwish"])
def test_pairs_are_fitted_together_behind_a_change(behind: str) -> None:
    """What the pair reads has changed as well: it is fitted to the original's outputs."""
    constants = {
        "k": floats(64, 8, 3, 3) / 8,
        "w": floats(192, 64, 1, 1, seed=1) / 8,
        "b": floats(192, seed=2),
        "v": floats(96, 192, 1, 1, seed=3) / 14,
    }
    last = f"z = Conv(a, v) y = {behind}(z)" if behind else "y = Conv(a, v)"
    body = f"h = Conv(x, k) f = Softplus(h) a = Conv(f, w, b) {last}"
    graph = graph_of(body, (1, 8, 10, 10), constants)
    changed = graph_of(body.replace("Softplus", "Relu"), (1, 8, 10, 10), constants)
    name = next(name for name in sites_of(changed) if "(2 layers)" in name)
    narrow = factorized(changed, name)
    repaired = repair(graph, narrow, samples_of(30, 1, 8, 10, 10))
    held_out = samples_of(8, 1, 8, 10, 10, seed=800)
    expected = outputs(graph, held_out)
    before = missed(expected, outputs(narrow, held_out))
    assert missed(expected, outputs(repaired.graph, held_out)) < min(0.1, before / 4)
    assert not repaired.refused


def test_no_rank_is_above_that_of_the_weights() -> None:
    graph = pair(rank=40)
    ranks = [int(c.name.split()[1]) for c in sites_of(graph)["y (2 layers)"].candidates]
    assert 0 < max(ranks) < 64


def test_the_rank_that_is_there_is_none_to_choose() -> None:
    constants = {"w": floats(48, 64, 1, 1), "v": floats(96, 48, 1, 1)}
    graph = graph_of("a = Conv(x, w) y = Conv(a, v)", (1, 64, 5, 5), constants)
    names = [candidate.name for candidate in sites_of(graph)["y (2 layers)"].candidates]
    assert names == ["rank 32"]


@pytest.mark.parametrize("opset", [7, 10, 11])
def test_fully_connected_layers_of_old_operator_sets_are_valid(opset: int) -> None:
    """A Gemm has to have a bias before opset 11, and the first of both has none."""
    constants = {"w": low_rank(INPUTS, OUTPUTS, 24), "b": floats(OUTPUTS)}
    graph = graph_of("y = Gemm(x, w, b)", (4, INPUTS), constants, opset=opset)
    narrow = factorized(graph, at=-1)
    samples = samples_of(3, 4, INPUTS)
    assert_same(outputs(graph, samples), outputs(narrow, samples))
    (refit,) = plan_refits(graph, narrow).refits
    assert refit.factors is not None
    assert refit.reference is not None


def test_both_are_fitted_alike_however_the_original_holds_its_weights() -> None:
    weights = floats(INPUTS, OUTPUTS) / 10
    found = []
    for transposed in (0, 1):
        held = np.ascontiguousarray(weights.T) if transposed else weights
        body = f"y = Gemm <transB = {transposed}> (x, w, b)"
        graph = graph_of(body, (8, INPUTS), {"w": held, "b": floats(OUTPUTS)})
        samples = samples_of(6, 8, INPUTS)
        found.append(outputs(repair(graph, factorized(graph), samples).graph, samples))
    assert_same(*found)


def test_automatic_pads_do_not_hide_the_original_layer() -> None:
    constants = {"w": floats(128, 80, 3, 3) / 27, "b": floats(128)}
    body = 'y = Conv <auto_pad = "SAME_UPPER", strides = [2, 2]> (x, w, b)'
    graph = graph_of(body, (1, 80, 8, 7), constants)
    (refit,) = plan_refits(graph, factorized(graph)).refits
    assert refit.reference is not None


@pytest.mark.parametrize("shape", [(4, 1), (4, OUTPUTS), (3, 1, OUTPUTS)])
@pytest.mark.parametrize("behind", ["", " y = MatMul(a, v)"])
def test_what_is_added_row_by_row_is_not_left_out(shape: tuple[int, ...], behind: str) -> None:
    body = f"m = MatMul(x, w) {'a' if behind else 'y'} = Add(m, b){behind}"
    constants = {"w": floats(INPUTS, OUTPUTS), "b": floats(*shape)}
    constants |= {"v": floats(OUTPUTS, INPUTS, seed=1)} if behind else {}
    survey = find_sites(graph_of(body, (4, INPUTS), constants), [FACTORIZE], load_target("npu1"))
    assert [site.site.writes for site in survey.sites] == ["y"] * bool(behind)
    assert {site.site.kind for site in survey.sites} <= {"MatMul"}
    assert {r.reason for _, r in survey.refusals} == {
        "what is added to a product is no constant row"
    }


def test_small_grouped_and_wide_layers_are_refused_with_the_reason() -> None:
    constants = {
        "g": floats(64, 1, 3, 3),
        "w": floats(16, 64, 1, 1),
        "t": floats(16, 64, 2, 2),
    }
    body = "a = Conv <group = 64> (x, g) r = Relu(a) s = Conv(r, w) q = Relu(s)"
    graph = graph_of(f"{body} y = ConvTranspose(q, t)", (1, 64, 8, 8), constants)
    survey = find_sites(graph, [FACTORIZE], load_target("npu1"))
    assert not survey.sites
    reasons = {refusal.subject: refusal.reason for _, refusal in survey.refusals}
    assert reasons["a"] == "it has groups"
    assert reasons["y"] == "it is a ConvTranspose"
    assert "below rank 13" in reasons["s"]
