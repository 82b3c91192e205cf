"""Estimates of candidates that are repaired where they are: lower, and still of one site alone."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from networks import Builder, images, residual_network

from actcc.accuracy.estimate import Estimates, Task, merge, plan_chunks, reference_outputs, run_task
from actcc.accuracy.fidelity import FidelityReference, FidelityTally
from actcc.accuracy.local_repair import repaired_part, site_part
from actcc.calibration import SampleSet, load_samples
from actcc.graph import Array, Graph, extract
from actcc.graph.operators import CONTRACTIONS
from actcc.pass_api import Pass, find_sites
from actcc.passes.compress_weights import CompressWeights
from actcc.passes.swap_activation import SwapActivation
from actcc.targets import load_target

PASSES: list[Pass] = [SwapActivation()]


@pytest.fixture
def graph() -> Graph:
    return Graph.load(residual_network())


@pytest.fixture
def samples(graph: Graph, tmp_path: Path) -> SampleSet:
    np.savez(tmp_path / "calib.npz", images=images(10))
    return load_samples(tmp_path / "calib.npz", graph)


def estimates(
    graph: Graph,
    samples: SampleSet,
    folder: Path,
    *,
    repairs: bool,
    count: int = 6,
    passes: list[Pass] = PASSES,
) -> Estimates:
    sites = find_sites(graph, passes, load_target("npu1")).sites[:count]
    chunks, failed = plan_chunks(graph, sites, passes, repairs=repairs)
    assert not failed
    path = folder / "staged.onnx"
    graph.save(path)
    reference = FidelityReference(reference_outputs(graph, samples))
    tasks = [Task(path, {}, chunk, samples, reference, 1e9, repairs) for chunk in chunks]
    return merge([run_task(task) for task in tasks])


def test_repaired_candidates_lose_less(graph: Graph, samples: SampleSet, tmp_path: Path) -> None:
    plain = estimates(graph, samples, tmp_path, repairs=False)
    repaired = estimates(graph, samples, tmp_path, repairs=True)
    assert not plain.failed
    assert not repaired.failed
    assert repaired.losses.keys() == plain.losses.keys()
    relu = [key for key in plain.losses if key[1] == "Relu"]
    assert len(relu) == 6
    shares = [repaired.losses[key] / plain.losses[key] for key in relu]
    assert max(shares) < 0.5
    assert np.mean(shares) < 0.2


def test_what_comes_behind_the_repair_is_not_repaired(
    graph: Graph, samples: SampleSet, tmp_path: Path
) -> None:
    """Or a fit of the layers beside it would hide that int8 loses more than float16."""
    found = estimates(graph, samples, tmp_path, repairs=True, passes=[CompressWeights()])
    sites = {site for site, _ in found.losses}
    assert len(sites) >= 3
    assert all(10 * found.losses[s, "float16"] < found.losses[s, "int8"] for s in sites)


@pytest.mark.parametrize("repairs", [True, False])
def test_what_weights_were_fitted_to_is_not_measured_on(
    graph: Graph,
    samples: SampleSet,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    repairs: bool,
) -> None:
    counted: set[int] = set()
    add = FidelityTally.add

    def counting(tally: FidelityTally, index: int, outputs: Mapping[str, Array]) -> None:
        counted.add(index)
        add(tally, index, outputs)

    monkeypatch.setattr(FidelityTally, "add", counting)
    estimates(graph, samples, tmp_path, repairs=repairs, count=1)
    assert counted == set(range(min(8, len(samples) // 2) if repairs else 0, len(samples)))


def test_where_only_some_of_the_layers_can_be_cut_out_those_are_repaired(graph: Graph) -> None:
    """The first site is read by a layer, and by a sum with what comes of that layer."""
    site = find_sites(graph, PASSES, load_target("npu1")).sites[0]
    part = site_part(graph, site, repairs=True)
    assert [node.op for node in part.nodes()] == ["Conv", "Sigmoid", "Mul", "Conv"]
    assert site.site.writes in [tensor.name for tensor in part.outputs]


def test_estimates_are_the_same_each_time(graph: Graph, samples: SampleSet, tmp_path: Path) -> None:
    found = [estimates(graph, samples, tmp_path, repairs=True, count=1).losses for _ in range(2)]
    assert found[0] == found[1]


def test_a_part_holds_the_layers_around_the_site_and_the_site_alone_without_a_repair(
    graph: Graph,
) -> None:
    site = find_sites(graph, PASSES, load_target("npu1")).sites[1]
    with_layers = [node.op for node in site_part(graph, site, repairs=True).nodes()]
    alone = [node.name for node in site_part(graph, site, repairs=False).nodes()]
    assert any(op in CONTRACTIONS for op in with_layers)
    assert alone == list(site.site.nodes)


def test_a_layer_that_cannot_be_cut_out_is_left_out() -> None:
    """One layer that reads the site takes its bias from nodes behind another."""
    build = Builder()
    a = build.silu(build.conv("images", 3, 4))
    first = build.conv(a, 4, 4)
    mean = build.add("ReduceMean", build.add("Sign", first), axes=[0, 2, 3], keepdims=0)
    weight = build.weight(build.random.standard_normal((4, 4, 1, 1)))
    build.add("Conv", a, weight, mean, output="out")
    graph = Graph.load(build.model((1, 3, 8, 8), {"out": (1, 4, 8, 8)}))
    site = next(s for s in find_sites(graph, PASSES, load_target("npu1")).sites)
    part = site_part(graph, site, repairs=True)
    assert [node.op for node in part.nodes()] == ["Conv", "Sigmoid", "Mul", "Conv"]
    assert "out" not in [tensor.name for tensor in part.outputs]


def test_without_a_layer_near_it_a_site_is_alone() -> None:
    build = Builder()
    gate = build.silu(build.add("Softmax", "images", axis=1))
    build.add("Softmax", gate, axis=1, output="out")
    graph = Graph.load(build.model((1, 3, 8, 8), {"out": (1, 3, 8, 8)}))
    (site,) = find_sites(graph, PASSES, load_target("npu1")).sites
    part = site_part(graph, site, repairs=True)
    assert [node.name for node in part.nodes()] == list(site.site.nodes)


def test_a_part_without_layers_stays_as_it_is(graph: Graph) -> None:
    site = find_sites(graph, PASSES, load_target("npu1")).sites[0]
    part = extract(graph, site.site.nodes)
    assert repaired_part(part, part, [{}]) is part
