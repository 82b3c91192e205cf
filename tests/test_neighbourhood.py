"""A site is priced with what feeds it and what reads it, and equal places share one price."""

from collections import Counter

import numpy as np
import onnx
from networks import residual_network

from actcc.backends.onnx_layers import fused_operators
from actcc.graph import Graph, extract
from actcc.neighbourhood import constant_nodes, neighbourhoods, neighbouring_nodes
from actcc.pass_api import find_sites
from actcc.passes.swap_activation import SwapActivation, activation_sites
from actcc.site import Site
from actcc.targets import load_target

PASSES = [SwapActivation()]


def test_the_neighbourhood_reaches_from_the_convolution_before_to_the_readers() -> None:
    graph = Graph.load(residual_network())
    site = find_sites(graph, PASSES, load_target("npu1")).sites[1].site
    ops = sorted(graph.node(name).op for name in neighbouring_nodes(graph, site))
    assert ops == ["Conv", "Conv", "Mul", "Sigmoid"]


def test_what_reads_any_tensor_of_a_site_is_in_its_neighbourhood() -> None:
    body = """
        one = Conv(x, w)
        other = Conv(x, w)
        y = Relu(one)
        z = Relu(other)
    """
    header = '<ir_version: 8, opset_import: ["": 17]> network'
    model = onnx.parser.parse_model(
        f"{header} (float[1, 1, 4, 4] x) => (float[1, 1, 4, 4] y, float[1, 1, 4, 4] z)"
        f" <float[1, 1, 1, 1] w = {{2.0}}> {{ {body} }}"
    )
    graph = Graph.load(model)
    site = Site(list(graph.nodes("Conv")), "x", "one")
    around = neighbouring_nodes(graph, site)
    assert sorted(graph.node(name).op for name in around) == ["Conv", "Conv", "Relu", "Relu"]


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


def quantized_network(nodes: int = 1) -> Graph:
    """int8 convolutions with a SiLU in floating point between each two, and a computed size."""
    links = "\n".join(
        f"""
        xf{i} = DequantizeLinear(xq{i}, scale, zero)
        wf{i} = DequantizeLinear(weight, scale, zero)
        c{i} = Conv(xf{i}, wf{i})
        cq{i} = QuantizeLinear(c{i}, scale, zero)
        cf{i} = DequantizeLinear(cq{i}, scale, zero)
        s{i} = Sigmoid(cf{i})
        y{i} = Mul(cf{i}, s{i})
        xq{i + 1} = QuantizeLinear(y{i}, scale, zero)
        """
        for i in range(nodes)
    )
    model = onnx.parser.parse_model(
        f"""
        <ir_version: 8, opset_import: ["": 13]>
        network (uint8[1,8,8,8] xq0) => (float[1,8,16,16] y)
        <uint8[8,8,1,1] weight, float scale = {{0.02}}, uint8 zero = {{128}}> {{
            {links}
            last = DequantizeLinear(xq{nodes}, scale, zero)
            half = Constant<value = float[4] {{0.5, 0.5, 1.0, 1.0}}>()
            sizes = Div(one, half)
            y = Resize<mode = "nearest">(last, , sizes)
        }}""".replace("zero = {128}>", "zero = {128}, float[4] one = {1.0, 1.0, 2.0, 2.0}>")
    )
    weight = np.random.default_rng(0).integers(0, 255, (8, 8, 1, 1), dtype=np.uint8)
    model.graph.initializer.append(onnx.numpy_helper.from_array(weight, "weight"))
    return Graph.load(model)


def silu_sites(graph: Graph) -> list[Site]:
    return [entry for entry in activation_sites(graph) if isinstance(entry, Site)]


def test_an_int8_layer_is_priced_with_what_quantizes_its_inputs_and_outputs() -> None:
    graph = quantized_network(3)
    site = silu_sites(graph)[1]
    part = extract(graph, neighbouring_nodes(graph, site))
    operators = Counter(fused_operators(part))
    assert operators["QLinearConv"] == 2
    assert operators["Conv"] == 0
    assert [(t.name, t.dtype) for t in part.inputs] == [("xq1", onnx.TensorProto.UINT8)]


def test_what_is_computed_from_constants_is_part_of_the_neighbourhood() -> None:
    graph = quantized_network()
    (site,) = silu_sites(graph)
    part = extract(graph, neighbouring_nodes(graph, site))
    assert [tensor.name for tensor in part.inputs] == ["xq0"]
    assert {"Constant", "Div", "Resize"} <= {node.op for node in part.nodes()}


def test_a_long_network_has_neighbourhoods_as_small_as_a_short_one() -> None:
    graph = quantized_network(60)
    constants = constant_nodes(graph)
    sizes = Counter(len(neighbouring_nodes(graph, site, constants)) for site in silu_sites(graph))
    assert sizes == {12: 60}
