"""Prices from Vela, and what comes of what it cannot compile."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from importlib import util
from pathlib import Path

import numpy as np
import pytest
from networks import Builder, residual_network

pytest.importorskip("ethosu", reason="needs the extra 'ethos-u'")

from actcc import optimize
from actcc.backends.ethos_u.backend import EthosUBackend
from actcc.budget import Budget
from actcc.cli import main
from actcc.errors import PricingError, TargetError
from actcc.graph import Graph
from actcc.latency_models import Profile, load_profile
from actcc.pass_api import apply_pass, find_sites, select_passes
from actcc.prices import NetworkBackend, Price, PriceQuery, Unpriced
from actcc.pricing import price_sites
from actcc.progress import Silent
from actcc.targets import Target, load_target

SWAP = "swap-activation"
TARGETS = ("ethos-u55-128", "ethos-u55-256", "ethos-u65-512", "ethos-u85-256")


@pytest.fixture
def executor() -> Iterator[Executor]:
    with ThreadPoolExecutor(2) as pool:
        yield pool


def network(op: str = "Relu", **attributes: object) -> Graph:
    build = Builder()
    build.add(op, build.conv("images", 3, 16), **attributes)
    build.nodes[-1].output[0] = "y"
    return Graph.load(build.model((1, 3, 16, 16), {"y": (1, 16, 16, 16)}))


def enlarged(factor: int) -> Graph:
    build = Builder()
    scales = build.weight(np.array([1, 1, factor, factor]))
    build.add("Resize", "images", "", scales, mode="linear", output="y")
    size = 4 * factor
    return Graph.load(build.model((1, 8, 4, 4), {"y": (1, 8, size, size)}))


def with_settings(**settings: object) -> Profile:
    known = load_profile("ethos-u55-256")
    return known.model_copy(update={"settings": {**known.settings, **settings}})


@pytest.mark.parametrize("name", TARGETS)
def test_every_profile_compiles(name: str) -> None:
    backend = load_target(name).backend
    (timing,) = backend.time_models([network()])
    assert isinstance(backend, NetworkBackend)
    assert timing.source == "compiled"
    assert timing.latency_ns > 0
    assert name in timing.tool


def test_batch_normalization_behind_a_layer_costs_nothing() -> None:
    build = Builder()
    x = build.conv("images", 3, 16)
    statistics = [build.weight(np.ones(16)) for _ in range(4)]
    build.add("Relu", build.add("BatchNormalization", x, *statistics), output="y")
    graph = Graph.load(build.model((1, 3, 16, 16), {"y": (1, 16, 16, 16)}))
    backend = load_target("ethos-u55-256").backend
    normalized, plain = backend.time_models([graph, network()])
    assert normalized.latency_ns == plain.latency_ns
    assert [node.op for node in graph.nodes()] == ["Conv", "BatchNormalization", "Relu"]


def test_feature_maps_lie_in_the_sram_that_is_shared() -> None:
    (timing,) = load_target("ethos-u55-256").backend.time_models([network()])
    assert timing.peak_bytes is not None
    assert timing.peak_bytes >= 16 * 16 * 16


@pytest.mark.parametrize(("target", "in_dram"), [("ethos-u55-256", False), ("ethos-u65-512", True)])
def test_what_lies_in_dram_is_told(target: str, in_dram: bool) -> None:
    (timing,) = load_target(target).backend.time_models([network()])
    assert timing.dram_bytes is not None
    assert (timing.dram_bytes > 0) == in_dram


def test_prices_of_a_mixed_plan_add_up_to_what_vela_says_of_it(executor: Executor) -> None:
    graph = Graph.load(residual_network(channels=32, size=24))
    target = load_target("ethos-u55-256")
    passes = [found for found in select_passes(None, (), (), ()) if found.name == SWAP]
    sites = find_sites(graph, passes, target).sites
    prices = price_sites(graph, sites, passes, target, executor, Silent(), None)
    mixed, difference = graph.copy(), 0.0
    by_name = {found.name: found for found in passes}
    chosen = ("Relu", "HardSwish", "Gelu")
    for position, site in enumerate(sites):
        wanted = chosen[position % len(chosen)]
        candidate = next(c for c in site.candidates if c.name.split(" as ")[0] == wanted)
        apply_pass(by_name[site.pass_name], mixed, site.site, candidate)
        price = prices[site.id][candidate.name]
        assert isinstance(price, Price)
        difference += price.difference_ns
    before, after = load_target("ethos-u55-256").backend.time_models([graph, mixed])
    assert after.latency_ns < 0.9 * before.latency_ns
    assert sites
    assert before.latency_ns + difference == pytest.approx(after.latency_ns, rel=0.02)


def test_layers_add_up_to_the_latency_and_carry_names_of_the_model() -> None:
    backend = load_target("ethos-u55-256").backend
    graph = network("HardSwish")
    (timing,) = backend.time_models([graph])
    rows = backend.layers(graph)
    assert sum(row.latency_ns for row in rows) == pytest.approx(timing.latency_ns)
    assert {row.name for row in rows} <= {node.name for node in graph.nodes()}


def test_what_vela_runs_in_two_steps_stands_under_one_node() -> None:
    build = Builder()
    features = build.conv("images", 3, 16)
    build.add("Mul", features, build.add("GlobalAveragePool", features), output="y")
    graph = Graph.load(build.model((1, 3, 16, 16), {"y": (1, 16, 16, 16)}))
    (pooling,) = graph.nodes("GlobalAveragePool")
    rows = load_target("ethos-u55-256").backend.layers(graph)
    assert [row.op for row in rows if row.name == pooling.name] == ["DepthwiseConv2D", "Mul"]


def test_a_memory_budget_is_not_refused_by_what_is_alive_outside_the_sram(
    executor: Executor,
) -> None:
    known = load_profile("ethos-u65-512")
    settings = {**known.settings, "arena_cache_bytes": 16384}
    target = Target(known.model_copy(update={"settings": settings}))
    model = residual_network(channels=16, size=32)
    graph = Graph.load(model)
    (timing,) = target.backend.time_models([graph])
    assert timing.peak_bytes is not None
    assert timing.peak_bytes < target.backend.memory(graph).peak_bytes
    found = optimize(
        model,
        target,
        budget=Budget.parse(max_memory="100%"),
        skip=("simplify",),
        executor=executor,
        max_trials=1,
        cache=False,
    )
    assert found.plan.peak_bytes == (timing.peak_bytes, timing.peak_bytes)


def test_a_candidate_that_cannot_be_lowered_is_unpriced_and_the_others_are_not() -> None:
    graphs = {"HardSwish": network("HardSwish"), "Softsign": network("Softsign")}
    found = load_target("ethos-u55-256").backend.price(PriceQuery(network(), graphs))
    assert isinstance(found["keep"], Price)
    swish = found["HardSwish"]
    assert isinstance(swish, Price)
    assert swish.difference_ns > 0
    assert found["Softsign"] == Unpriced(
        "activation Softsign ('y') has no int8 operators on an Ethos-U"
    )


def test_what_vela_leaves_to_the_cpu_is_not_priced() -> None:
    backend = load_target("ethos-u55-256").backend
    backend.time_models([enlarged(2)])
    with pytest.raises(PricingError, match=r"leaves ResizeBilinear .* to the CPU"):
        backend.time_models([enlarged(3)])


def test_live_memory_counts_the_gate_of_a_silu() -> None:
    backend = load_target("ethos-u55-256").backend
    silu, relu = network("Relu"), network("Relu")
    (relu_node,) = silu.nodes("Relu")
    gate = silu.insert("Sigmoid", [relu_node.inputs[0]])
    silu.replace(_site(relu_node), "Mul", [relu_node.inputs[0], gate])
    map_bytes = 16 * 16 * 16
    assert backend.memory(relu).peak_bytes == 3 * 16 * 16 + map_bytes
    assert backend.memory(silu).peak_bytes == 2 * map_bytes


def _site(node: object) -> object:
    from actcc.site import Site

    return Site([node], node.inputs[0], node.outputs[0])  # type: ignore[attr-defined]


def test_a_setting_that_is_unknown_is_refused() -> None:
    with pytest.raises(TargetError, match=r"'settings\.speed'"):
        EthosUBackend(with_settings(speed=1))


def test_a_system_that_vela_does_not_know_is_an_error_of_the_target() -> None:
    with pytest.raises(TargetError, match="Ethos_U99"):
        EthosUBackend(with_settings(system_config="Ethos_U99")).time_models([network()])


def test_a_compilation_that_takes_too_long_is_ended() -> None:
    with pytest.raises(PricingError, match=r"did not finish within 0\.01 s"):
        EthosUBackend(with_settings(time_limit_s=0.01)).time_models([network()])


def test_without_vela_one_line_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(util, "find_spec", lambda name: None)
    model = tmp_path / "model.onnx"
    network().save(model)
    with pytest.raises(SystemExit) as ended:
        main(["optimize", str(model), "--target", "ethos-u55-256", "--quiet", "--workers", "1"])
    assert ended.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert "pip install 'actcc[ethos-u]'" in line
