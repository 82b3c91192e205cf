"""Estimates with shared prefixes equal a run of the whole rewritten network."""

from pathlib import Path

import numpy as np
import pytest
from networks import images, residual_network

from actcc.accuracy.estimate import merge, plan_tasks, reference_outputs, run_task
from actcc.accuracy.fidelity import FidelityReference
from actcc.calibration import SampleSet, load_samples
from actcc.graph import Graph
from actcc.pass_api import apply_candidates, find_sites, select_passes
from actcc.runtime import run, session
from actcc.targets import load_target

PASSES = select_passes(None)


@pytest.fixture
def graph() -> Graph:
    return Graph.load(residual_network())


@pytest.fixture
def samples(graph: Graph, tmp_path: Path) -> SampleSet:
    np.savez(tmp_path / "calib.npz", images=images(6))
    return load_samples(tmp_path / "calib.npz", graph)


def test_every_estimate_equals_a_run_of_the_whole_network(graph: Graph, samples: SampleSet) -> None:
    sites = find_sites(graph, PASSES, load_target("npu1")).sites
    reference = FidelityReference(reference_outputs(graph, samples))
    tasks, failed = plan_tasks(graph, sites, PASSES, samples, reference, enough_loss=1e9)
    found = merge([run_task(task) for task in tasks])
    assert not failed
    assert not found.failed
    assert len(sites) == 6
    for site in sites:
        for candidate in site.candidates:
            if candidate.exact:
                continue
            whole = apply_candidates(graph, PASSES, [(site, candidate.name)])
            runner = session(whole)
            outputs = [run(runner, samples[i].inputs) for i in range(len(samples))]
            expected = reference.loss(outputs)
            estimate = found.losses[site.id, candidate.computes]
            assert estimate == pytest.approx(expected, rel=1e-3, abs=1e-9)


def test_a_hopeless_candidate_is_not_run_on_all_samples(graph: Graph, samples: SampleSet) -> None:
    sites = find_sites(graph, PASSES, load_target("npu1")).sites[:1]
    reference = FidelityReference(reference_outputs(graph, samples))
    (task,), _ = plan_tasks(graph, sites, PASSES, samples, reference, enough_loss=0.0)
    (full,), _ = plan_tasks(graph, sites, PASSES, samples, reference, enough_loss=1e9)
    early, late = run_task(task).losses, run_task(full).losses
    assert early.keys() == late.keys()
    assert any(early[key] != late[key] for key in early)


def test_exact_candidates_need_no_task(graph: Graph, samples: SampleSet) -> None:
    survey = find_sites(graph, PASSES, load_target("npu1"), exact_only=True)
    reference = FidelityReference(reference_outputs(graph, samples))
    tasks, failed = plan_tasks(graph, survey.sites, PASSES, samples, reference, 1.0)
    assert tasks == []
    assert failed == {}
