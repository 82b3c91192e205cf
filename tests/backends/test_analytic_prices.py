"""Prices, ratios and refusals of the analytic backend, by hand on a device of round numbers."""

from __future__ import annotations

from pathlib import Path

import pytest
from onnx import helper
from round_device import CONVOLUTION, LOOKUP, device, load

from actcc.graph import Graph
from actcc.prices import Price, PriceQuery, Unpriced


def test_prices_are_differences_to_keep(tmp_path: Path) -> None:
    backend = device(tmp_path)
    query = PriceQuery(
        load("c = Conv(x, w)  s = Sigmoid(c)  y = Mul(c, s)"),
        {
            "HardSwish": load("c = Conv(x, w)  y = HardSwish(c)"),
            "Relu": load("c = Conv(x, w)  y = Relu(c)"),
        },
    )
    prices = backend.price(query)
    assert list(prices) == ["keep", "HardSwish", "Relu"]
    for name, latency in (("keep", 128.0), ("HardSwish", LOOKUP), ("Relu", CONVOLUTION)):
        price = prices[name]
        assert isinstance(price, Price)
        assert price.latency_ns == pytest.approx(latency)
        assert price.difference_ns == pytest.approx(latency - 128)
        assert (price.noise_ns, price.source, price.tool) == (0, "estimated", backend.tool)


def foreign() -> Graph:
    model = load("c = Conv(x, w)  y = Relu(c)").to_proto()
    model.graph.node[1].op_type, model.graph.node[1].domain = "Magic", "com.example"
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    return Graph.load(model)


def test_a_candidate_that_nothing_can_run_has_no_price(tmp_path: Path) -> None:
    query = PriceQuery(load("c = Conv(x, w)  y = Relu(c)"), {"Magic": foreign()})
    prices = device(tmp_path).price(query)
    assert isinstance(prices["keep"], Price)
    refused = prices["Magic"]
    assert isinstance(refused, Unpriced)
    assert "com.example.Magic" in refused.reason


def test_nothing_has_a_price_where_the_neighbourhood_has_none(tmp_path: Path) -> None:
    query = PriceQuery(foreign(), {"Relu": load("c = Conv(x, w)  y = Relu(c)")})
    prices = device(tmp_path).price(query)
    assert {type(price) for price in prices.values()} == {Unpriced}
    assert list(prices) == ["keep", "Relu"]


def test_ratios_are_relative_to_the_first_model(tmp_path: Path) -> None:
    slow, fast = load("c = Conv(x, w)  y = Tanh(c)"), load("y = Conv(x, w)")
    first, second = device(tmp_path).time_models([slow, fast])
    assert (first.ratio, second.ratio) == (1.0, pytest.approx(CONVOLUTION / LOOKUP))
    assert (first.noise_ns, first.ratio_noise) == (0, 0)


def test_the_tool_names_the_profile_and_changes_with_its_settings(tmp_path: Path) -> None:
    first = device(tmp_path).tool
    assert first.startswith("actcc analytic round ")
    assert device(tmp_path).tool == first
    assert device(tmp_path, "[settings]\ncores = 2\n").tool != first
