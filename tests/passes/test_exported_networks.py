"""Whole networks as frameworks export them: what normalizing makes of them, and what is offered."""

from __future__ import annotations

from collections import Counter
from functools import cache

import pytest
from exported_networks import FULL_SIZE_NETWORKS, SMALL_NETWORKS
from offering import NPU1, all_applied, survey

from actcc.activations import find_activations
from actcc.blocks import find_chains
from actcc.graph import Graph
from actcc.graph.compare import compare
from actcc.normalize import Normalized, normalize
from actcc.pass_api import Pass, find_sites
from actcc.passes import BUILT_IN
from actcc.passes.convolve_before_resize import ConvolveBeforeResize
from actcc.passes.pooling_chain import PoolingChain
from actcc.passes.space_to_depth_stem import SpaceToDepthStem
from actcc.runtime import random_feeds

pytestmark = pytest.mark.usefixtures("simplify_here")

# Operators of the normalized network, where their number is less than in the file.
FEWER = {
    "repvgg": {"Conv": 6, "Add": 0, "BatchNormalization": 0},
    "qarepvgg": {"Conv": 6, "Add": 0, "BatchNormalization": 0},
    "mobileone": {"Conv": 12, "Add": 0, "BatchNormalization": 0},
    "residual": {"BatchNormalization": 0},
    "mobilenet_v2": {"BatchNormalization": 0},
    "mobilenet_v3": {"BatchNormalization": 0},
    # One at the input, and one that moves no element before Flatten.
    "mobilenet_v3_last": {"BatchNormalization": 0, "Transpose": 2},
    "efficientnet": {"BatchNormalization": 0},
    # Of each block the half of GELU and the scale of LayerNormalization stay.
    "convnext": {"Mul": 15, "Transpose": 12, "MatMul": 0, "Add": 22},
    "convnext_first": {"Mul": 15, "Transpose": 12, "MatMul": 0, "Add": 22},
    "yolov5": {"BatchNormalization": 0, "Slice": 4},
    "yolox": {"BatchNormalization": 0, "Slice": 4},
}
MORE = {"convnext": {"Gemm": 9, "Reshape": 8}, "convnext_first": {"Gemm": 9, "Reshape": 8}}


@cache
def exported(name: str) -> Graph:
    """The small network of that name; no test changes it."""
    return Graph.load(SMALL_NETWORKS[name]())


@cache
def normalized(name: str) -> Normalized:
    """What normalizing makes of it, once for all tests of this file."""
    return normalize(exported(name))


def operators(graph: Graph) -> Counter[str]:
    return Counter(node.op for node in graph.nodes() if node.op != "Constant")


@pytest.mark.parametrize("name", SMALL_NETWORKS)
def test_networks_stay_equal_and_lose_what_the_layers_take_up(name: str) -> None:
    graph, result = exported(name), normalized(name)
    before = operators(graph)
    expected = {**before, **FEWER[name], **MORE.get(name, {})}
    assert operators(result.graph) == +Counter(expected), result.notes
    assert all(count < before[op] for op, count in FEWER[name].items())
    assert not [note for note in result.notes if "left out" in note[1]]
    feeds = [random_feeds(graph, 1)]
    assert compare(graph, result.graph, feeds, optimise=False).agrees(1e-5)


@pytest.mark.parametrize("name", SMALL_NETWORKS)
def test_activations_are_recognised_as_before(name: str) -> None:
    """What is folded belongs to no activation."""

    def found(seen: Graph) -> Counter[str]:
        return Counter(str(match.activation) for match in find_activations(seen))

    before, after = found(exported(name)), found(normalized(name).graph)
    assert before
    assert after == before


def test_channels_last_exports_have_the_chains_and_sites_of_channels_first() -> None:
    graphs = [normalized(name).graph for name in ("mobilenet_v3", "mobilenet_v3_last")]
    chains = [sorted(len(chain) for chain in find_chains(graph)) for graph in graphs]
    assert chains[0] == chains[1]
    assert max(chains[0]) == 6
    surveys = [find_sites(graph, [cls() for cls in BUILT_IN], NPU1) for graph in graphs]
    offered = [Counter(site.pass_name for site in found.sites) for found in surveys]
    assert offered[0] == offered[1]
    assert offered[0]["collapse-convolutions"] == 19


@pytest.mark.parametrize(
    ("name", "by", "kind"),
    [
        ("yolov5", SpaceToDepthStem(), "SpaceToDepth 2x2+Conv"),
        ("yolox", SpaceToDepthStem(), "SpaceToDepth 2x2+Conv"),
        ("yolov5", PoolingChain(), "3 MaxPool chain"),
        ("yolox", PoolingChain(), "3 MaxPool parallel"),
    ],
)
def test_stem_and_pooling_of_detectors_are_offered(name: str, by: Pass, kind: str) -> None:
    graph = normalized(name).graph
    assert [entry.site.kind for entry in survey(graph, by).sites] == [kind]
    assert len(all_applied(graph, by)) == 1


@pytest.mark.parametrize("name", ["yolov5", "yolox"])
def test_layers_behind_both_resized_maps_of_a_neck_are_offered_before_them(name: str) -> None:
    graph = normalized(name).graph
    applied = all_applied(graph, ConvolveBeforeResize())
    assert [operators(graph)["Concat"] - operators(each)["Concat"] for each in applied] == [1, 1]


def test_every_small_network_has_one_of_full_size() -> None:
    assert list(SMALL_NETWORKS) == list(FULL_SIZE_NETWORKS)
