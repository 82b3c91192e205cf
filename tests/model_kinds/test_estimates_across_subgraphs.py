"""Sites whose results subgraphs read are priced and estimated like all others."""

from __future__ import annotations

from pathlib import Path

import pytest
from every_kind import KINDS

from actcc.accuracy.estimate import Task, merge, plan_chunks, reference_outputs, run_task
from actcc.accuracy.fidelity import FidelityReference
from actcc.calibration import load_samples
from actcc.graph import Graph
from actcc.neighbourhood import neighbouring_nodes
from actcc.pass_api import apply_candidates, find_sites, select_passes
from actcc.runtime import run, session
from actcc.targets import load_target

PASSES = [found for found in select_passes(None) if found.name == "swap-activation"]


@pytest.mark.parametrize("name", ["branches on data", "loop", "nested control flow", "scan"])
def test_an_estimate_equals_a_run_of_the_whole_network(name: str, tmp_path: Path) -> None:
    kind = KINDS[name]()
    graph = Graph.load(kind.model)
    samples = load_samples([kind.sample(seed) for seed in range(5)], graph)
    sites = find_sites(graph, PASSES, load_target("npu1")).sites
    chunks, failed = plan_chunks(graph, sites, PASSES)
    assert not failed
    graph.save(tmp_path / "staged.onnx")
    reference = FidelityReference(reference_outputs(graph, samples))
    tasks = [Task(tmp_path / "staged.onnx", {}, c, samples, reference, 1e9) for c in chunks]
    found = merge([run_task(task) for task in tasks])
    assert not found.failed
    for site in sites:
        for candidate in site.candidates:
            if not candidate.exact:
                whole = apply_candidates(graph, PASSES, [(site, candidate.name)])
                runner = session(whole)
                outputs = [run(runner, sample.inputs) for sample in samples]
                estimate = found.losses[site.id, candidate.computes]
                assert estimate == pytest.approx(reference.loss(outputs), rel=1e-3, abs=1e-9)


def test_readers_and_reads_see_through_subgraphs() -> None:
    graph = Graph.load(KINDS["nested control flow"]().model)
    assert [node.op for node in graph.readers("a")] == ["If"]
    (holder,) = graph.nodes("If")
    assert {tensor.name for tensor in graph.reads(holder)} >= {"flag", "three", "a"}


@pytest.mark.parametrize(
    "name", ["shape as an input", "sequence inside", "sizes that depend on data"]
)
def test_a_neighbourhood_ends_before_what_depends_on_data(name: str) -> None:
    kind = KINDS[name]()
    graph = Graph.load(kind.model)
    site = find_sites(graph, PASSES, load_target("npu1")).sites[1].site
    operators = {graph.node(node).op for node in neighbouring_nodes(graph, site)}
    assert operators == {"Conv", "Sigmoid", "Mul"}
