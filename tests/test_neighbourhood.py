"""A site is priced with what feeds it and what reads it, and equal places share one price."""

from networks import residual_network

from actcc.graph import Graph
from actcc.neighbourhood import neighbourhoods, neighbouring_nodes
from actcc.pass_api import find_sites, select_passes
from actcc.targets import load_target

PASSES = select_passes(None)


def test_the_neighbourhood_reaches_from_the_convolution_before_to_the_readers() -> None:
    graph = Graph.load(residual_network())
    site = find_sites(graph, PASSES, load_target("npu1")).sites[1].site
    ops = sorted(graph.node(name).op for name in neighbouring_nodes(graph, site))
    assert ops == ["Conv", "Conv", "Mul", "Sigmoid"]


def test_equal_places_share_one_query() -> None:
    graph = Graph.load(residual_network())
    sites = find_sites(graph, PASSES, load_target("npu1")).sites
    groups, failed = neighbourhoods(graph, sites, PASSES)
    assert failed == {}
    assert sorted(len(group.sites) for group in groups) == [1, 1, 2, 2]
    assert {identity for group in groups for identity in group.sites} == {s.id for s in sites}


def test_each_candidate_is_applied_to_a_neighbourhood_of_its_own() -> None:
    graph = Graph.load(residual_network())
    sites = find_sites(graph, PASSES, load_target("npu1")).sites
    (group, *_), _ = neighbourhoods(graph, sites, PASSES)
    assert [node.op for node in group.query.baseline.nodes()][:3] == ["Conv", "Sigmoid", "Mul"]
    rewritten = group.query.candidates["Relu"]
    assert "Relu" in [node.op for node in rewritten.nodes()]
    assert "Sigmoid" not in [node.op for node in rewritten.nodes()]
    assert [t.name for t in rewritten.outputs] == [t.name for t in group.query.baseline.outputs]
