"""Activations that a quantizer spread over QuantizeLinear and DequantizeLinear nodes."""

from __future__ import annotations

import numpy as np
import pytest
from quantized_networks import HARD_SWISH, SILU, TWO_LAYERS, floating, quantized

from actcc.activations import Activation, cut_off_by_rounding, find_activations, with_rounding
from actcc.graph import Graph
from actcc.graph.pairs import StoredAs, pair_behind

ROUND = "{0}q = QuantizeLinear({0}, #0.05) {0}d = DequantizeLinear({0}q, #0.05) "


@pytest.mark.parametrize("element", ["uint8", "int8"])
@pytest.mark.parametrize(
    ("body", "name", "spelling"),
    [(SILU, "Silu", "Sigmoid+Mul"), (HARD_SWISH, "HardSwish", "Add+Mul+Div")],
)
def test_a_spread_activation_is_found(body, name, spelling, element, tmp_path):
    graph = quantized(floating(body), tmp_path, element)
    (match,) = find_activations(graph)
    assert (match.activation, match.spelling) == (Activation(name), spelling)
    assert match.quantized
    assert match.rounds


def test_with_its_roundings_it_lies_between_the_tensors_of_the_layers(tmp_path):
    graph = quantized(floating(), tmp_path)
    (match,) = find_activations(graph)
    whole = with_rounding(graph, match)
    assert [n.op for n in whole.nodes[:2]] == ["QuantizeLinear", "DequantizeLinear"]
    assert [n.op for n in whole.nodes[-2:]] == ["QuantizeLinear", "DequantizeLinear"]
    first, second = graph.nodes("Conv")
    assert (whole.reads, whole.writes) == (first.outputs[0], second.inputs[0])


def test_a_rounding_that_something_else_reads_is_no_part_of_the_activation(build_model):
    body = ROUND.format("x") + "s = Sigmoid(xd) " + ROUND.format("s") + "m = Mul(xd, sd) "
    body += ROUND.format("m") + "y = Add(md, xd)"
    graph = Graph.load(build_model(body))
    (match,) = find_activations(graph)
    whole = with_rounding(graph, match)
    assert (whole.reads.name, whole.writes.name) == ("xd", "md")


def test_what_is_read_between_the_roundings_is_a_near_miss(build_model):
    body = ROUND.format("x") + "s = Sigmoid(xd) " + ROUND.format("s") + "m = Mul(xd, sd) "
    graph = Graph.load(build_model(body + "y = Add(m, sd)"))
    assert [match.activation.name for match in find_activations(graph)] == ["Sigmoid"]


def test_other_scales_on_the_way_back_are_no_rounding(build_model):
    body = "s = Sigmoid(x) q = QuantizeLinear(s, #0.05) d = DequantizeLinear(q, #0.1) y = Mul(x, d)"
    graph = Graph.load(build_model(body))
    assert [match.activation.name for match in find_activations(graph)] == ["Sigmoid"]
    assert pair_behind(graph, graph.tensor("s")) is None


def test_a_layer_whose_rounding_stores_no_negative_number_ends_in_relu(tmp_path):
    graph = quantized(floating(TWO_LAYERS.format("a = Relu(k)")), tmp_path)
    assert not list(graph.nodes("Relu"))  # the quantizer took it out
    (match,) = cut_off_by_rounding(graph)
    assert match.activation == Activation("Relu")
    assert match.reads is next(graph.nodes("Conv")).outputs[0]


def test_roundings_of_another_domain_are_left_alone(tmp_path):
    proto = quantized(floating(TWO_LAYERS.format("a = Relu(k)")), tmp_path).to_proto()
    for node in proto.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            node.domain = "com.microsoft"
    proto.opset_import.add(domain="com.microsoft", version=1)
    del proto.graph.value_info[:]  # ONNX does not know what its nodes write
    assert not list(cut_off_by_rounding(Graph.load(proto)))


def test_bounds_a_quarter_step_inside_are_cut_off_and_half_a_step_is_not():
    kind = StoredAs(np.float32(0.1), np.uint8(0))
    assert kind.cuts_off(0.0, 25.5 - 0.02)
    assert not kind.cuts_off(0.0, 25.5 - 0.05)
    assert not kind.cuts_off(0.05, np.inf)
    assert not StoredAs(np.float32(-0.1), np.uint8(0)).cuts_off(0.0, np.inf)
