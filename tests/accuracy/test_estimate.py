"""Estimates with shared prefixes equal a run of the whole rewritten network."""

import pickle
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from networks import images, residual_network
from onnx import TensorProto, helper

from actcc.accuracy.estimate import SiteWork, Task, merge, plan_chunks, reference_outputs, run_task
from actcc.accuracy.fidelity import FidelityReference
from actcc.calibration import Sample, SampleSet, load_samples
from actcc.graph import Graph, extract
from actcc.pass_api import Pass, apply_candidates, find_sites, select_passes
from actcc.passes.swap_activation import SwapActivation
from actcc.runtime import run, session
from actcc.site import Candidate, OfferedSite, Refusal, Site
from actcc.targets import Target, load_target

PASSES = select_passes(None)


@pytest.fixture
def graph() -> Graph:
    return Graph.load(residual_network())


@pytest.fixture
def samples(graph: Graph, tmp_path: Path) -> SampleSet:
    np.savez(tmp_path / "calib.npz", images=images(6))
    return load_samples(tmp_path / "calib.npz", graph)


def plan(
    graph: Graph,
    folder: Path,
    sites: Sequence[OfferedSite],
    samples: SampleSet,
    enough_loss: float,
    passes: Sequence[Pass] = PASSES,
) -> list[Task]:
    """Tasks for a graph that is staged in `folder`; nothing may fail while they are planned."""
    chunks, failed = plan_chunks(graph, sites, passes)
    assert not failed
    path = folder / "staged.onnx"
    graph.save(path)
    reference = FidelityReference(reference_outputs(graph, samples))
    return [
        Task(path, graph.input_shapes, chunk, samples, reference, enough_loss) for chunk in chunks
    ]


def test_every_estimate_equals_a_run_of_the_whole_network(
    graph: Graph, samples: SampleSet, tmp_path: Path
) -> None:
    sites = find_sites(graph, PASSES, load_target("npu1")).sites
    reference = FidelityReference(reference_outputs(graph, samples))
    tasks = plan(graph, tmp_path, sites, samples, enough_loss=1e9)
    found = merge([run_task(task) for task in tasks])
    assert not found.failed
    assert {site.pass_name for site in sites} >= {"swap-activation", "collapse-convolutions"}
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


def test_a_hopeless_candidate_is_not_run_on_all_samples(
    graph: Graph, samples: SampleSet, tmp_path: Path
) -> None:
    sites = find_sites(graph, PASSES, load_target("npu1")).sites[:1]
    (task,) = plan(graph, tmp_path, sites, samples, enough_loss=0.0)
    (full,) = plan(graph, tmp_path, sites, samples, enough_loss=1e9)
    early, late = run_task(task).losses, run_task(full).losses
    assert early.keys() == late.keys()
    assert any(early[key] != late[key] for key in early)


def test_exact_candidates_need_no_task(graph: Graph) -> None:
    survey = find_sites(graph, PASSES, load_target("npu1"), exact_only=True)
    chunks, failed = plan_chunks(graph, survey.sites, PASSES)
    assert chunks == []
    assert failed == {}


@pytest.mark.parametrize("name", ["", "same"])
def test_sites_are_found_again_in_the_staged_model_where_node_names_are_missing_or_repeated(
    name: str, samples: SampleSet, tmp_path: Path
) -> None:
    model = residual_network()
    for node in model.graph.node:
        node.name = name
    graph = Graph.load(model)
    sites = find_sites(graph, PASSES, load_target("npu1")).sites
    found = merge([run_task(t) for t in plan(graph, tmp_path, sites, samples, enough_loss=1e9)])
    named = Graph.load(residual_network())
    offered = find_sites(named, PASSES, load_target("npu1")).sites
    expected = merge([run_task(t) for t in plan(named, tmp_path, offered, samples, 1e9)])
    assert len(expected.losses) > 6
    assert found == expected


def test_a_task_does_not_carry_the_model(graph: Graph, samples: SampleSet, tmp_path: Path) -> None:
    sites = find_sites(graph, PASSES, load_target("npu1")).sites[:1]
    (task,) = plan(graph, tmp_path, sites, samples, enough_loss=1.0)
    weight = graph.constant("w0")
    assert weight is not None
    assert weight.tobytes() not in pickle.dumps(task)


def test_estimates_hold_at_a_chosen_input_shape(samples: SampleSet, tmp_path: Path) -> None:
    model = residual_network()
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    graph = Graph.load(model, {"images": (1, 3, 16, 16)})
    sites = find_sites(graph, PASSES, load_target("npu1")).sites
    found = merge([run_task(t) for t in plan(graph, tmp_path, sites, samples, enough_loss=1e9)])
    assert not found.failed
    assert {identity for identity, _ in found.losses} == {site.id for site in sites}


class Bends(Pass):
    """Offers the same harmless candidate everywhere, beside what `bend` makes of the site."""

    name = "bends"

    def sites(self, graph: Graph) -> Iterable[Site | Refusal]:
        return [Site([node], node.inputs[0], node.outputs[0]) for node in graph.nodes("Sigmoid")]

    def candidates(self, site: Site, target: Target) -> Iterable[Candidate | Refusal]:
        return [Candidate("good", exact=False), Candidate("bad", exact=False)]

    def apply(self, graph: Graph, site: Site, candidate: Candidate) -> None:
        graph.replace(site, "HardSigmoid", [site.reads], alpha=0.25)
        if candidate.name == "bad":
            self.bend(graph, site)

    @abstractmethod
    def bend(self, graph: Graph, site: Site) -> None:
        """Spoil the candidate named "bad"."""


class Raises(Bends):
    def bend(self, graph: Graph, site: Site) -> None:
        raise KeyError("no such thing")


class ChangesShape(Bends):
    def bend(self, graph: Graph, site: Site) -> None:
        site = Site([graph.producer(site.writes)], site.reads, site.writes)
        graph.replace(site, "GlobalMaxPool", [site.reads])


class CannotRun(Bends):
    def bend(self, graph: Graph, site: Site) -> None:
        site = Site([graph.producer(site.writes)], site.reads, site.writes)
        graph.replace(site, "Missing", [site.reads], domain="nowhere")


@pytest.mark.parametrize(
    ("found", "reason"), [(Raises(), "KeyError"), (ChangesShape(), "changed from")]
)
def test_a_candidate_that_cannot_be_applied_ends_no_other(
    graph: Graph, found: Pass, reason: str
) -> None:
    sites = find_sites(graph, [found], load_target("npu1")).sites
    chunks, failed = plan_chunks(graph, sites, [found])
    assert failed.keys() == {(site.id, "bad") for site in sites}
    assert all(reason in line and "bends" in line for line in failed.values())
    kept = [key for chunk in chunks for work in chunk for key in work.keys]
    assert kept == [(site.id, "good") for site in sites]


def test_a_candidate_that_cannot_be_run_ends_no_other(
    graph: Graph, samples: SampleSet, tmp_path: Path
) -> None:
    sites = find_sites(graph, [CannotRun()], load_target("npu1")).sites
    tasks = plan(graph, tmp_path, sites, samples, 1e9, [CannotRun()])
    found = merge([run_task(task) for task in tasks])
    assert found.losses.keys() == {(site.id, "good") for site in sites}
    assert found.failed.keys() == {(site.id, "bad") for site in sites}
    assert all("ONNX Runtime cannot load" in line for line in found.failed.values())


def test_a_staged_model_that_is_gone_fails_its_sites_with_the_reason(
    graph: Graph, samples: SampleSet, tmp_path: Path
) -> None:
    sites = find_sites(graph, PASSES, load_target("npu1")).sites[:2]
    (task,) = plan(graph, tmp_path, sites, samples, enough_loss=1.0)
    task.path.unlink()
    found = run_task(task)
    assert found.losses == {}
    assert found.failed.keys() == {key for work in task.work for key in work.keys}
    assert all("no such file" in line for line in found.failed.values())


def test_samples_are_read_once_a_chunk_and_no_longer_than_a_candidate_is_of_use(
    graph: Graph, samples: SampleSet, tmp_path: Path
) -> None:
    class Counts:
        def __init__(self) -> None:
            self.read: list[int] = []

        def __len__(self) -> int:
            return len(samples)

        def load(self, index: int) -> Sample:
            self.read.append(index)
            return samples[index]

    sites = find_sites(graph, [SwapActivation()], load_target("npu1")).sites
    for enough_loss, expected in ((1e9, 6), (-1.0, 4)):
        (task,) = plan(graph, tmp_path, sites, samples, enough_loss)
        loader = Counts()
        run_task(replace(task, samples=SampleSet("counted", loader, samples.indices)))
        assert loader.read == list(range(expected))


def test_outputs_that_no_node_writes_do_not_change(tmp_path: Path) -> None:
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    network (float[1, 8] x) => (float[1, 8] y, float[2] fixed, float[1, 8] x)
    <float[2] fixed = {1, 2}> { y = Sigmoid(x) }
    """
    graph = Graph.load(onnx.parser.parse_model(text))
    np.savez(tmp_path / "calib.npz", x=images(6)[:, 0, 0, :8])
    samples = load_samples(tmp_path / "calib.npz", graph)
    part = Graph.load(onnx.parser.parse_model(text.replace("Sigmoid", "HardSigmoid")))
    rewritten = extract(part, [node.name for node in part.nodes()], ["y"])
    (sigmoid,) = graph.nodes()
    offered = OfferedSite(Site([sigmoid], "x", "y"), "by-hand", ())
    graph.save(tmp_path / "staged.onnx")
    values = [samples[index].inputs["x"] for index in range(len(samples))]
    fixed = np.array([1, 2], np.float32)
    reference = FidelityReference(
        [{"y": 1 / (1 + np.exp(-x)), "fixed": fixed, "x": x} for x in values]
    )
    work = (SiteWork(offered, extract(graph, [sigmoid.name]), {"hard": rewritten}),)
    found = run_task(Task(tmp_path / "staged.onnx", {}, work, samples, reference, 1e9))
    outputs = [{"y": np.clip(0.2 * x + 0.5, 0, 1), "fixed": fixed, "x": x} for x in values]
    assert not found.failed
    assert found.losses == {(offered.id, "hard"): pytest.approx(reference.loss(outputs), rel=1e-4)}


def test_a_site_that_reads_an_overridable_initializer_fails_with_the_reason(
    samples: SampleSet, tmp_path: Path
) -> None:
    model = residual_network()
    model.graph.input.append(helper.make_tensor_value_info("w1", TensorProto.FLOAT, [16]))
    graph = Graph.load(model)
    sites = find_sites(graph, PASSES, load_target("npu1")).sites
    found = merge([run_task(t) for t in plan(graph, tmp_path, sites, samples, enough_loss=1e9)])
    assert found.losses.keys() | found.failed.keys() == {
        (site.id, c.computes) for site in sites for c in site.candidates if not c.exact
    }
    assert all("'w1'" in line for line in found.failed.values())
    assert found.failed
