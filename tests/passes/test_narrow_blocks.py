"""Blocks with fewer inner units: which go, what is left, and why some have to stay."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from block_networks import BLOCKS, missed, network, samples
from every_rewrite import Immediately
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import images
from normalizing import graph_of

from actcc.apply import apply_plan
from actcc.budget import Budget
from actcc.calibration import SampleSet, load_samples
from actcc.errors import PlanError
from actcc.graph import Array, Graph
from actcc.normalize import normalize
from actcc.pass_api import OfferedSite, Survey, apply_candidates, find_sites
from actcc.passes.narrow_blocks import NarrowBlocks
from actcc.pipeline import optimize
from actcc.plan import Plan
from actcc.repair import RepairMethod
from actcc.runtime import run, session
from actcc.targets import load_target

NARROW = NarrowBlocks()
HALF = "1/2 of the units"
INNER = 64


def surveyed(graph: Graph, seen: SampleSet | None = None) -> Survey:
    return find_sites(graph, [NARROW], load_target("npu1"), samples=seen)


def offered(graph: Graph, seen: SampleSet | None = None) -> OfferedSite:
    (site,) = surveyed(graph, seen).sites
    return site


def narrowed(graph: Graph, candidate: str = HALF, seen: SampleSet | None = None) -> Graph:
    return apply_candidates(graph, [NARROW], [(offered(graph, seen), candidate)])


def weight_shapes(graph: Graph) -> list[tuple[int, ...]]:
    layers = [node for node in graph.nodes() if node.op in ("Conv", "Gemm", "MatMul")]
    return [graph.constant(node.inputs[1]).shape for node in layers]


def assert_equal(graph: Graph, other: Graph, feed: Mapping[str, Array]) -> None:
    expected, found = (run(session(g), feed)["y"] for g in (graph, other))
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


# What a block reads (1, 16, 6, 6) or rows of 16, with weights U (to the units), D (a unit each)
# and V (from the units); V is zero for every other unit.
BLOCK_BODIES = {
    "inverted residual": "a = Conv(x, U, u) b = Clip(a, low, high) c = Conv <pads = [1, 1, 1, 1],"
    " group = 64> (b, D, d) e = Clip(c, low, high) y = Conv(e, V, v)",
    "with a residual": "a = Conv(x, U, u) b = Relu(a) c = Conv <pads = [1, 1, 1, 1], group = 64>"
    " (b, D, d) e = Relu(c) f = Conv(e, V, v) y = Add(x, f)",
    "strided, two depthwise layers": "a = Conv(x, U) b = Elu(a) c = Conv <strides = [2, 2],"
    " group = 64> (b, D2) e = Conv <pads = [1, 1, 1, 1], group = 64> (c, D, d) y = Conv(e, V)",
    "pair": "a = Conv <pads = [1, 1, 1, 1]> (x, U3, u) s = Sigmoid(a) b = Mul(a, s)"
    " y = Conv <strides = [2, 2]> (b, V3, v)",
}
MLP_BODIES = {
    "Gemm": "a = Gemm(x, U, u) b = Elu(a) y = Gemm(b, V, v)",
    "transposed": "a = Gemm <transB = 1> (x, T, u) b = Elu(a) y = Gemm <alpha = 0.5> (b, V, v)",
    "one bias for all": "a = Gemm <beta = 2.0> (x, U, one) b = Elu(a) y = Gemm(b, V)",
    "MatMul": "m = MatMul(x, U) a = Add(u, m) b = Elu(a) n = MatMul(b, V) y = Add(n, v)",
    "bias by row": "m = MatMul(x, U) a = Add(m, R) b = Elu(a) y = MatMul(b, V)",
    "no bias": "a = MatMul(x, U) b = Elu(a) y = MatMul(b, V)",
}


def weights(*, convolutions: bool, seed: int = 0) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    shapes: dict[str, tuple[int, ...]] = {"u": (INNER,), "d": (INNER,), "v": (16,), "one": (1,)}
    if convolutions:
        shapes |= {"U": (INNER, 16, 1, 1), "U3": (INNER, 16, 3, 3), "D": (INNER, 1, 3, 3)}
        shapes |= {"D2": (INNER, 1, 2, 2), "V": (16, INNER, 1, 1), "V3": (16, INNER, 3, 3)}
    else:
        shapes |= {"U": (16, INNER), "T": (INNER, 16), "V": (INNER, 16), "R": (1, 5, INNER)}
    found = {name: 0.3 * random.standard_normal(shape) for name, shape in shapes.items()}
    found |= {"low": np.float32(0), "high": np.float32(6)}
    return {name: np.asarray(values, np.float32) for name, values in found.items()}


def block(body: str, values: Mapping[str, np.ndarray], x: tuple[int, ...]) -> Graph:
    words = body.replace("(", " ").replace(")", " ").replace(",", " ").split()
    return graph_of(body, x, {n: v for n, v in values.items() if n in words})


@given(seed=st.integers(0, 2**16), kind=st.sampled_from(sorted(BLOCK_BODIES) + sorted(MLP_BODIES)))
@settings(max_examples=25, deadline=None)
def test_units_that_nothing_reads_can_go(seed: int, kind: str) -> None:
    convolutions = kind in BLOCK_BODIES
    random = np.random.default_rng(seed)
    values = weights(convolutions=convolutions, seed=seed)
    unread = random.permutation(INNER)[: INNER // 2]
    for name in ("V", "V3") if convolutions else ("V",):
        values[name][(slice(None), unread) if convolutions else unread] = 0
    x = (1, 16, 7, 6) if convolutions else (5, 16) if "MatMul" not in kind else (2, 5, 16)
    graph = block((BLOCK_BODIES | MLP_BODIES)[kind], values, x)
    narrow = narrowed(graph)
    assert graph.shape("y") == narrow.shape("y")
    assert sum(map(np.prod, weight_shapes(narrow))) * 2 == sum(map(np.prod, weight_shapes(graph)))
    assert_equal(graph, narrow, {"x": random.standard_normal(x).astype(np.float32)})


def test_tensors_keep_their_names_and_shapes_are_inferred_anew() -> None:
    graph = block(BLOCK_BODIES["with a residual"], weights(convolutions=True), (1, 16, 6, 6))
    assert graph.shape("b") == (1, INNER, 6, 6)
    narrow = narrowed(graph, "1/4 of the units")
    assert {n: narrow.shape(n) for n in "abcef"} == {
        **dict.fromkeys("abce", (1, 16, 6, 6)),
        "f": (1, 16, 6, 6),
    }
    assert [node.op for node in narrow.nodes()] == [node.op for node in graph.nodes()]


@pytest.mark.parametrize(
    ("units", "widths"),
    [(144, [112, 64, 32]), (64, [48, 32, 16]), (32, [24, 16, 8]), (16, [8]), (8, [])],
)
def test_widths_are_whole_groups_of_channels(units: int, widths: list[int]) -> None:
    random = np.random.default_rng(0)
    values = {"U": random.standard_normal((4, units)), "V": random.standard_normal((units, 4))}
    values = {name: array.astype(np.float32) for name, array in values.items()}
    graph = graph_of("a = MatMul(x, U) b = Relu(a) y = MatMul(b, V)", (5, 4), values)
    survey = surveyed(graph)
    found = [c.name for site in survey.sites for c in site.candidates]
    assert [weight_shapes(narrowed(graph, name))[0][1] for name in found] == widths
    if not widths:
        assert "too few" in survey.refusals[0][1].reason


def correlated() -> tuple[Graph, int]:
    """Half of the units say what one of the others says, which is told too, and weigh more."""
    values = weights(convolutions=False)
    few, many = slice(0, INNER // 2), slice(INNER // 2, INNER)
    largest = int(np.linalg.norm(values["U"][:, few], axis=0).argmax())
    values["U"][:, many] = 1.1 * values["U"][:, [largest]]
    values["u"][many] = 1.1 * values["u"][largest]
    values["V"][many] = 0.2
    values["V"][few] *= 0.5
    return block(MLP_BODIES["Gemm"].replace("Elu", "Relu"), values, (40, 16)), largest


def test_a_unit_that_others_stand_for_goes_before_one_of_smaller_weights() -> None:
    graph, same = correlated()
    random = np.random.default_rng(0)
    rows = [{"x": random.standard_normal((40, 16)).astype(np.float32)} for _ in range(16)]
    order = str(offered(graph, load_samples(rows, graph)).site.facts["order"]).split()
    assert {int(unit) for unit in order[-24:]} <= {same, *range(INNER // 2, INNER)}
    by_weights = str(offered(graph).site.facts["order"]).split()
    assert {int(unit) for unit in by_weights[: INNER // 2]} == set(range(INNER // 2, INNER))


def test_where_a_caller_may_override_a_constant_the_samples_say_nothing() -> None:
    body = "t = Add(x, v) a = Gemm(t, U, u) b = Elu(a) y = Gemm(b, V)"
    values = weights(convolutions=False)
    model = block(body, values, (5, 16)).to_proto()
    model.graph.input.append(onnx.helper.make_tensor_value_info("v", 1, [16]))
    graph = Graph.load(model)
    assert graph.overridable
    rows = load_samples([{"x": np.ones((5, 16), np.float32)}], graph)
    assert offered(graph, rows).site.facts == offered(graph).site.facts


def test_orders_are_the_same_however_few_covariances_fit_into_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    random = np.random.default_rng(0)
    sizes = {"A": (8, 32), "B": (32, 48), "C": (48, 8)}
    constants = {n: random.standard_normal(s).astype(np.float32) for n, s in sizes.items()}
    body = "a = Gemm(x, A) b = Elu(a) c = Gemm(b, B) d = Elu(c) y = Gemm(d, C)"
    graph = graph_of(body, (20, 8), constants)
    rows = [{"x": random.standard_normal((20, 8)).astype(np.float32)} for _ in range(8)]
    seen = load_samples(rows, graph)
    together = [site.site.facts["order"] for site in surveyed(graph, seen).sites]
    monkeypatch.setattr("actcc.passes.narrow_blocks._MOST_BYTES", 1)
    assert [site.site.facts["order"] for site in surveyed(graph, seen).sites] == together
    assert len(set(together)) == 2


@pytest.mark.parametrize("kind", ["inverted residual", "mlp"])
def test_units_chosen_on_samples_lose_less_than_those_of_the_largest_weights(kind: str) -> None:
    graph = network(BLOCKS[kind])
    seen = load_samples(samples(24, 3), graph)
    losses = []
    for chosen in (seen, None):
        site = surveyed(graph, chosen).sites[-1]
        narrow = apply_candidates(graph, [NARROW], [(site, site.candidates[-1].name)])
        losses.append(missed(graph, RepairMethod().run(graph, narrow, seen).graph, samples(8, 7)))
    assert losses[0] < losses[1]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("a = Conv(x, U) b = PRelu(a, s) y = Conv(b, V)", "numbers of its own for each unit"),
        (
            "a = Conv(x, U) b = Relu(a) m = GlobalAveragePool(b) w = Conv(m, S) g = Sigmoid(w)"
            " c = Mul(b, g) y = Conv(c, V)",
            "squeeze-and-excitation behind",
        ),
        (
            "a = Conv(x, U) b = Relu(a) c = Conv <group = 64> (b, twice) e = Relu(c)"
            " y = Conv(e, V2)",
            "several channels of one",
        ),
        (
            "z = Conv(x, U) o = Relu(z) p = Conv(o, V) q = Tanh(p) a = Conv(q, U) b = Relu(a)"
            " y = Conv(b, V)",
            "are shared with",
        ),
    ],
)
def test_blocks_whose_units_belong_together_are_refused(body: str, reason: str) -> None:
    random = np.random.default_rng(0)
    values = weights(convolutions=True) | {
        "s": random.random((INNER, 1, 1)).astype(np.float32),
        "S": random.random((INNER, INNER, 1, 1)).astype(np.float32),
        "twice": random.random((2 * INNER, 1, 1, 1)).astype(np.float32),
        "V2": random.random((16, 2 * INNER, 1, 1)).astype(np.float32),
    }
    survey = surveyed(block(body, values, (1, 16, 6, 6)))
    assert not survey.sites
    assert all(reason in refusal.reason for _, refusal in survey.refusals)
    assert survey.refusals


@pytest.mark.parametrize(
    "body",
    [
        "a = Conv(x, U) y = Conv(a, V)",
        "a = Conv(x, U) b = Relu(a) c = Conv(b, V) e = Add(b, b) f = Conv(e, V) y = Add(c, f)",
        "a = Conv <group = 16> (x, G) b = Relu(a) y = Conv(b, V)",
    ],
)
def test_units_that_something_else_reads_or_that_are_no_rows_are_no_site(body: str) -> None:
    values = weights(convolutions=True)
    values["G"] = values["U"][:, :1]
    survey = surveyed(block(body, values, (1, 16, 6, 6)))
    assert not survey.sites
    assert not survey.refusals


@pytest.mark.parametrize("repair", ["closed-form", "none"])
def test_a_plan_is_applied_again_bit_for_bit(tmp_path: Path, repair: str) -> None:
    graph = network(BLOCKS["inverted residual"])
    graph.save(tmp_path / "network.onnx")
    np.savez(tmp_path / "calib.npz", images=images(24, 12))
    optimize(
        tmp_path / "network.onnx",
        "npu1",
        output=tmp_path / "fast.onnx",
        calibration=tmp_path / "calib.npz",
        budget=Budget.parse(max_drop="90%"),
        passes=[NARROW],
        repair=RepairMethod(repair),
        executor=Immediately(),
        max_trials=1,
    )
    plan = Plan.load(tmp_path / "fast.onnx.plan.json")
    assert [site.pass_name for site in plan.rewritten] == ["narrow-blocks"]
    assert "order" not in (tmp_path / "fast.onnx.plan.json").read_text()
    again = tmp_path / "again.onnx"
    with pytest.raises(PlanError, match="give them with --calib"):
        apply_plan(tmp_path / "network.onnx", plan, again)
    apply_plan(tmp_path / "network.onnx", plan, again, calibration=tmp_path / "calib.npz")
    assert again.read_bytes() == (tmp_path / "fast.onnx").read_bytes()


@pytest.mark.shared
def test_all_inverted_residuals_of_mobilenet_can_be_narrower(shared: Path) -> None:
    graph = normalize(Graph.load(shared / "models" / "mobilenet_v2.onnx")).graph
    sites = surveyed(graph).sites
    assert len(sites) == 17
    assert {site.site.kind for site in sites} == {"3x3, dw 3x3, 1x1", "1x1, dw 3x3, 1x1"}
    assert all(len(site.candidates) == 3 for site in sites)
    half = [(site, HALF) for site in sites]
    sizes = [
        sum(map(np.prod, weight_shapes(g)))
        for g in (graph, apply_candidates(graph, [NARROW], half))
    ]
    assert sizes[1] < 0.75 * sizes[0]
