"""Where an activation moves: joins, names, provenance, prices."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from moving import MOVE, NPU1, POOL, assert_same, graph_of, operators, survey
from networks import Builder, images

from actcc.errors import PassError
from actcc.graph import Graph
from actcc.normalize import normalize
from actcc.pass_api import apply_candidates, select_passes
from actcc.pipeline import optimize
from actcc.runtime import random_feeds, run, session
from actcc.site import Candidate
from actcc.site_memory import memory_steps

# -------------------------------------------------------------------- joins

JOIN = "y = Concat <axis = 1> (p, q)"


@pytest.mark.parametrize(
    "branch",
    ["{w} = Clip({r}, low, high)", "{w} = Elu({r})", "g{w} = Sigmoid({r}) {w} = Mul({r}, g{w})"],
)
def test_behind_a_join_one_activation_is_left_of_several(branch: str) -> None:
    graph = graph_of(
        f"m = Neg(x) {branch.format(r='x', w='p')} {branch.format(r='m', w='q')} {JOIN}"
    )
    for rewritten in assert_same(graph, bitwise="Clip" in branch):
        assert operators(rewritten)[:2] == ["Neg", "Concat"]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (f"p = Relu(x) m = Neg(x) q = Tanh(m) {JOIN}", "end in different functions"),
        (f"p = PRelu(x, slope) m = Neg(x) q = PRelu(m, slope) {JOIN}", "a slope for each channel"),
        (f"k = Conv(x, weights) p = Relu(x) q = Relu(k) {JOIN}", "could not fuse with the layers"),
        (f"p = Relu(x) m = Neg(x) q = Relu(m) z = Abs(q) {JOIN}", "'q' is read by node"),
        (
            "q8 = QuantizeLinear(x, scale, point) d = DequantizeLinear(q8, scale, point) "
            f"p = Relu(d) m = Neg(x) q = Relu(m) {JOIN}",
            "inside QDQ",
        ),
    ],
)
def test_joins_that_are_not_exact_or_no_gain_are_refused(body: str, reason: str) -> None:
    found = survey(graph_of(body, outputs="y z" if "z =" in body else "y"))
    assert found.sites == ()
    assert [name for name, _ in found.refusals] == ["move-activation"]
    assert reason in found.refusals[0][1].reason


# -------------------------------------------------------------------- the pass


def test_it_runs_by_default_and_is_exact() -> None:
    (found,) = [entry for entry in select_passes(None) if entry.name == "move-activation"]
    assert found.exact


def test_in_its_new_place_it_may_be_written_in_every_legal_way() -> None:
    found = survey(graph_of(f"b = HardSigmoid(x) {POOL}"))
    (site,) = found.sites
    names = ["HardSigmoid behind MaxPool", "HardSigmoid as Mul+Clip behind MaxPool"]
    assert [candidate.name for candidate in site.candidates] == names
    assert (site.site.kind, site.site.reads, site.site.writes) == ("HardSigmoid+MaxPool", "x", "y")


def test_new_nodes_say_where_they_come_from() -> None:
    graph = graph_of(f"b = Relu(x) {POOL}")
    (site,) = survey(graph).sites
    rewritten = apply_candidates(graph, [MOVE], [(site, "Relu behind MaxPool")])
    for node in rewritten.to_proto().graph.node:
        properties = {entry.key: entry.value for entry in node.metadata_props}
        assert properties["actcc.pass"] == "move-activation"
        assert properties["actcc.candidate"] == "Relu behind MaxPool"


def test_an_unknown_candidate_is_an_error() -> None:
    graph = graph_of(f"b = Relu(x) {POOL}")
    with pytest.raises(PassError, match="has no candidate 'Tanh behind MaxPool'"):
        MOVE.apply(graph, survey(graph).sites[0].site, Candidate("Tanh behind MaxPool"))


def test_attributes_of_old_opsets_are_kept() -> None:
    body = 'a = Upsample <mode = "nearest"> (x, up) b = Relu(a) y = Neg(b)'
    assert_same(graph_of(body, opset=9, up=np.array([1, 1, 2, 2], np.float32)), bitwise=True)
    body = "b = Relu(x) y = Slice <starts = [1], ends = [4], axes = [2]> (b)"
    assert_same(graph_of(body, opset=9), bitwise=True)


def test_live_memory_counts_every_branch() -> None:
    body = "k = Conv(x, weights) m = Conv(x, weights) a = Concat <axis = 1> (k, m) y = Relu(a)"
    graph = graph_of(body)
    sites = survey(graph).sites
    outside, step = memory_steps(graph, sites, [MOVE], NPU1.backend)
    assert outside.base_bytes == 0  # both convolutions belong to the site's step
    assert {size for _, _, size in step.terms} == {4 * 4 * 36}  # both branches and their join


def test_a_strided_pooling_before_the_activation_is_faster_on_npu1() -> None:
    build = Builder()
    wide = build.add("Tanh", build.conv("images", 16, 128, kernel=1))
    pooled = build.add("MaxPool", wide, kernel_shape=[2, 2], strides=[2, 2])
    build.conv(pooled, 128, 8, kernel=1)
    build.nodes[-1].output[0] = "y"
    model = build.model((1, 16, 64, 64), {"y": (1, 8, 32, 32)})
    with ThreadPoolExecutor(1) as executor:
        result = optimize(model, "npu1", executor=executor, cache=False, skip=["simplify"])
    assert [site.chosen for site in result.plan.rewritten] == ["Tanh behind MaxPool"]
    assert result.plan.latency.ratio < 0.8
    feeds = {"images": images(1, 64).repeat(6, axis=1)[:, :16]}
    before = run(session(Graph.load(model)), feeds)["y"]
    np.testing.assert_allclose(run(session(result.graph), feeds)["y"], before, 1e-5, 1e-6)


@pytest.mark.parametrize(
    "back", ["", "t = Transpose <perm = [0, 3, 1, 2]> (y) z = Conv(t, weights)"]
)
def test_past_a_transposition_that_disappears_on_the_npu_nothing_is_saved(back: str) -> None:
    body = f"k = Conv(x, weights) a = Transpose <perm = [0, 2, 3, 1]> (k) y = Relu(a) {back}"
    graph = graph_of(body, x="1, 4, 7, 7", outputs="z" if back else "y")
    (site,) = survey(graph).sites
    rewritten = apply_candidates(graph, [MOVE], [(site, site.candidates[0].name)])
    before, after = NPU1.backend.time_models([graph, rewritten])
    assert after.latency_ns == before.latency_ns


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "kinds"),
    [
        ("FastestDet", {"Relu+MaxPool"}),
        ("mobilenet_v3_small", {"Transpose+HardSwish", "Reshape+HardSwish"}),
        ("yolox_nano_416", set()),
    ],
)
def test_real_models_with_everything_moved_compute_the_same(
    shared: Path, name: str, kinds: set[str]
) -> None:
    path = shared / "models" / f"{name}.onnx"
    # Cancelled transposes would leave nothing to move past.
    graph = normalize(Graph.load(path), skip=["simplify", "cancel-transposes"]).graph
    sites = survey(graph).sites
    assert {site.site.kind for site in sites} == kinds
    chosen = [(site, site.candidates[0].name) for site in sites]
    rewritten = apply_candidates(graph, [MOVE], chosen)
    feeds = random_feeds(graph, 0)
    before, after = (run(session(model), feeds) for model in (graph, rewritten))
    for output, expected in before.items():
        scale = np.abs(expected).max()
        np.testing.assert_allclose(after[output], expected, 1e-5, 1e-5 * scale)
