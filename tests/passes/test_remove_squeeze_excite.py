"""Squeeze-and-excitations that go, and their mean gates in the layer behind."""

from __future__ import annotations

from block_networks import WIDTH, gated, missed, network, offers, rewritten, samples
from networks import Builder

from actcc.pass_api import find_sites
from actcc.passes.remove_squeeze_excite import RemoveSqueezeExcite
from actcc.repair import repair
from actcc.targets import load_target

REMOVE = RemoveSqueezeExcite()


def test_without_it_the_layer_behind_reads_what_it_read() -> None:
    graph = network(gated)
    removed = rewritten(graph, REMOVE, offers(graph, REMOVE)["squeeze-excite"], "mean gate")
    operators = [node.op for node in removed.nodes()]
    assert operators == ["Conv", "Tanh", "Conv", "Relu", "Conv", "Relu", "Conv", "Tanh", "Conv"]


def test_the_repair_folds_the_mean_gate_into_the_layer_behind() -> None:
    graph = network(gated)
    removed = rewritten(graph, REMOVE, offers(graph, REMOVE)["squeeze-excite"], "mean gate")
    repaired = repair(graph, removed, samples(40)).graph
    held_out = samples(16, seed=7)
    before, after = (missed(graph, g, held_out) for g in (removed, repaired))
    assert after < 0.03
    assert after < 0.2 * before


def test_where_no_layer_is_behind_the_reason_is_given() -> None:
    def ends_in_a_sum(build: Builder, x: str) -> str:
        gate = build.add("Sigmoid", build.conv(build.add("GlobalAveragePool", x), WIDTH, WIDTH, 1))
        return build.add("Add", build.add("Mul", x, gate), x)

    survey = find_sites(network(ends_in_a_sum), [REMOVE], load_target("npu1"))
    assert survey.sites == ()
    assert "could be folded" in survey.refusals[0][1].reason
