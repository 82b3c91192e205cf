"""The boxes: fused groups as a runtime would form them, never a cycle, every node in one."""

from __future__ import annotations

from dataclasses import replace

import onnx
import pytest
from networks import residual_network

from actcc.graph import Graph
from actcc.plan import SitePlan
from actcc.report.boxes import Network, draw_boxes


def graph_of(text: str) -> Graph:
    return Graph.load(onnx.parser.parse_model(f'<ir_version: 8, opset_import: ["" : 17]> {text}'))


def site_of(identity: str, *nodes: str) -> SitePlan:
    return SitePlan(identity, "swap-activation", "Silu", "", nodes, "keep", ())


def titles(network: Network) -> list[str]:
    return [" | ".join((box.title, *box.rest)) for box in network.boxes]


def test_a_convolution_takes_the_element_wise_work_behind_it() -> None:
    graph = graph_of(
        """net (float[1,3,8,8] x, float[6,3,3,3] w) => (float[1,6,4,4] y) {
            a = Conv <strides = [2, 2], pads = [1, 1, 1, 1]> (x, w)
            b = Relu (a)
            y = Neg (b)
        }"""
    )
    network = draw_boxes(graph, [])
    assert titles(network) == ["x", "w", "Conv 3×3 /2 · 6 | Relu | Neg", "y"]
    assert network.edges == ((0, 2), (1, 2), (2, 3))
    assert network.boxes[2].shape == (1, 6, 4, 4)


def test_an_activation_of_several_nodes_is_one_box_with_its_producer() -> None:
    graph = graph_of(
        """net (float[1,4] x) => (float[1,4] y) {
            n = Neg (x)
            s = Sigmoid (n)
            y = Mul (n, s)
        }"""
    )
    assert titles(draw_boxes(graph, [])) == ["x", "Neg | Sigmoid | Mul", "y"]


def test_what_is_read_elsewhere_is_not_swallowed() -> None:
    graph = graph_of(
        """net (float[1,4] x) => (float[1,4] y, float[1,4] n) {
            n = Neg (x)
            y = Relu (n)
        }"""
    )
    assert titles(draw_boxes(graph, [])) == ["x", "Neg", "Relu", "n", "y"]


def test_pooling_stands_by_itself() -> None:
    graph = graph_of(
        """net (float[1,3,8,8] x) => (float[1,3,1,1] y) {
            a = Relu (x)
            b = GlobalAveragePool (a)
            y = Neg (b)
        }"""
    )
    assert titles(draw_boxes(graph, [])) == ["x", "Relu", "GlobalAveragePool | Neg", "y"]


def test_every_node_is_in_one_box_and_edges_go_forward() -> None:
    graph = Graph.load(residual_network())
    network = draw_boxes(graph, [])
    drawn = [name for box in network.boxes for name in box.nodes]
    assert sorted(drawn) == sorted(node.name for node in graph.nodes())
    assert all(tail < head for tail, head in network.edges)


def test_a_site_whose_nodes_were_renamed_is_found_by_what_it_writes() -> None:
    graph = graph_of("net (float[1,4] x) => (float[1,4] y) { y = Relu (x) }")
    network = draw_boxes(graph, [site_of("swap-activation:y", "gone"), site_of("p:z", "gone too")])
    assert [box.sites for box in network.boxes] == [(), (0,), ()]
    assert network.absent == 1


def test_a_site_that_something_else_flows_through_stays_in_pieces() -> None:
    graph = graph_of(
        """net (float[1,4] x) => (float[1,4] y) {
            n = Neg (x)
            s = Softmax (n)
            y = Add (n, s)
        }"""
    )
    first, _, last = (node.name for node in graph.nodes())
    network = draw_boxes(graph, [site_of("block:y", first, last)])
    assert all(tail < head for tail, head in network.edges)
    assert sum(0 in box.sites for box in network.boxes) == 2


def test_nodes_inside_a_subgraph_pull_their_box_below_what_they_read() -> None:
    graph = graph_of(
        """net (bool c, float[4] x) => (float[4] y) {
            n = Neg (x)
            y = If (c) <
                then_branch = a () => (float[4] t) { t = Relu (n) },
                else_branch = b () => (float[4] e) { e = Abs (n) }
            >
        }"""
    )
    network = draw_boxes(graph, [])
    where = {title: index for index, title in enumerate(titles(network))}
    assert (where["Neg"], where["If"]) in network.edges


@pytest.mark.parametrize(("group", "title"), [(1, "Conv 1×1 · 4"), (4, "DWConv 1×1 · 4")])
def test_a_depthwise_convolution_is_called_so(group: int, title: str) -> None:
    graph = graph_of(
        f"""net (float[1,4,8,8] x, float[4,{4 // group},1,1] w) => (float[1,4,8,8] y) {{
            y = Conv <group = {group}> (x, w)
        }}"""
    )
    assert title in titles(draw_boxes(graph, []))


def test_sites_that_share_nodes_share_a_box() -> None:
    graph = graph_of("net (float[1,4] x) => (float[1,4] y) { y = Relu (x) }")
    (name,) = (node.name for node in graph.nodes())
    one = site_of("swap-activation:y", name)
    network = draw_boxes(graph, [one, replace(one, id="drop-activation:y")])
    assert network.boxes[1].sites == (0, 1)


def test_a_node_of_constants_that_is_an_output_is_a_box_of_its_own() -> None:
    graph = graph_of(
        """net () => (float[4] y) <float[4] w = {1, 2, 3, 4}> {
            y = Neg (w)
        }"""
    )
    assert titles(draw_boxes(graph, [])) == ["Neg", "y"]
