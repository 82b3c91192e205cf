"""A kit stands for its model, without its weights, and its script runs without actcc."""

import csv
import json
import subprocess
import sys
import zipfile
from pathlib import Path

import networks
import numpy as np
import onnx
import pytest

from actcc.graph import Graph, structure_hash
from actcc.graph.layers import layer_nodes, layers
from actcc.neighbourhood import neighbourhoods
from actcc.normalize import normalize
from actcc.pass_api import apply_candidates, find_sites, select_passes
from actcc.passes.move_activation import MoveActivation
from actcc.passes.swap_activation import SwapActivation
from actcc.probe import run_probes
from actcc.probe.kit import read_kit, unpack_kit, write_kit
from actcc.probe.probes import Probes, model_probes
from actcc.probe.sweep import sweep_probes
from actcc.targets import load_target


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "network.onnx"
    onnx.save_model(networks.residual_network(channels=8, size=8), path)
    return path


@pytest.fixture(scope="module")
def probes(model: Path) -> Probes:
    return model_probes(model, load_target("cpu"))


def test_every_candidate_of_every_neighbourhood_is_in_it_once(model: Path, probes: Probes) -> None:
    graph = normalize(Graph.load(model)).graph
    passes = select_passes(None)
    groups, _ = neighbourhoods(graph, find_sites(graph, passes, load_target("cpu")).sites, passes)
    hashes = [probe.hash for probe in probes.probes]
    assert len(hashes) == len(set(hashes))
    for group in groups:
        for part in (group.query.baseline, *group.query.candidates.values()):
            assert structure_hash(part) in hashes


def test_the_layers_of_any_choice_of_activations_are_in_it(model: Path, probes: Probes) -> None:
    graph = normalize(Graph.load(model)).graph
    passes = select_passes([SwapActivation(), MoveActivation()])
    known = {probe.hash for probe in probes.probes}
    sites = find_sites(graph, passes, load_target("cpu")).sites
    for shift in range(3):
        free: set[str] = set()
        chosen = []
        for index, site in enumerate(sites):
            if not free & set(site.site.nodes):
                free |= set(site.site.nodes)
                names = [candidate.name for candidate in site.candidates]
                chosen.append((site, names[(index + shift) % len(names)]))
        rewritten = apply_candidates(graph, passes, chosen)
        # As it is read back from its file.
        written = Graph.load(rewritten.to_proto())
        assert {structure_hash(part) for part in layers(written)} <= known


def test_layers_cover_each_node_once_and_hold_activations_together(model: Path) -> None:
    graph = normalize(Graph.load(model)).graph
    found = layer_nodes(graph)
    names = [node.name for node in graph.nodes()]
    assert sorted(name for layer in found for name in layer) == sorted(names)
    silu = [
        layer for layer in layers(graph) if [n.op for n in layer.nodes()][1:] == ["Sigmoid", "Mul"]
    ]
    assert len(silu) == 6


def test_no_weights_of_the_model_are_in_it(model: Path, probes: Probes, tmp_path: Path) -> None:
    write_kit(probes, tmp_path / "kit.zip")
    values = onnx.numpy_helper.to_array(onnx.load(model).graph.initializer[0]).tobytes()
    with zipfile.ZipFile(tmp_path / "kit.zip") as archive:
        names = archive.namelist()
        assert not any(values in archive.read(name) for name in names)
    assert {"run_probes.py", "manifest.json", "README.txt"} <= set(names)


def test_a_kit_read_back_has_the_same_structures_and_identity(
    probes: Probes, tmp_path: Path
) -> None:
    write_kit(probes, tmp_path / "kit.zip")
    first = (tmp_path / "kit.zip").read_bytes()
    write_kit(probes, tmp_path / "kit.zip")
    assert (tmp_path / "kit.zip").read_bytes() == first
    kit = read_kit(tmp_path / "kit.zip")
    for probe in probes.probes[:40]:
        assert structure_hash(kit.graph(probe.hash)) == probe.hash


def test_the_hash_of_a_graph_does_not_depend_on_whether_it_was_written() -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]>'
        "g (float[1,4] x) => (float[1,4] y) { y = LeakyRelu<alpha=0.01>(x) }"
    )
    graph = Graph.load(model)
    (node,) = graph.nodes()
    graph.set_attribute(node, "alpha", 0.01)
    assert structure_hash(graph) == structure_hash(Graph.load(model))


def test_a_sweep_has_layers_with_every_activation() -> None:
    found = sweep_probes()
    assert not found.refusals
    operators = {probe.description.split()[0] for probe in found.probes}
    assert {"Conv", "Conv+Relu", "Conv+HardSwish", "Conv+Sigmoid+Mul", "Add"} <= operators
    assert len(found.probes) > 400


def run(folder: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """The kit's script, where actcc cannot be imported."""
    command = [sys.executable, "-c", _WITHOUT_ACTCC, *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


_WITHOUT_ACTCC = """
import runpy, sys
sys.modules["actcc"] = None
sys.argv[0] = "run_probes.py"
runpy.run_path("run_probes.py", run_name="__main__")
"""


@pytest.fixture(scope="module")
def unpacked(probes: Probes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("kit")
    few = Probes(probes.source, probes.probes[:12], ())
    unpack_kit(few, folder)
    return folder


def test_the_script_measures_each_graph_without_actcc(unpacked: Path) -> None:
    done = run(unpacked, "--runs", "8", "--out", "first.csv")
    assert done.returncode == 0, done.stderr
    with (unpacked / "first.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    manifest = json.loads((unpacked / "manifest.json").read_text())
    assert [row["hash"] for row in rows] == [probe["hash"] for probe in manifest["probes"]]
    assert all(row["status"] == "ok" and float(row["median_ns"]) > 0 for row in rows)
    assert all(float(row["noise_ns"]) >= 0 and row["runs"] == "8" for row in rows)


def test_the_script_goes_on_where_it_stopped(unpacked: Path) -> None:
    run(unpacked, "--runs", "8", "--out", "whole.csv")
    lines = (unpacked / "whole.csv").read_text().splitlines(keepends=True)
    groups = {p["group"] for p in json.loads((unpacked / "manifest.json").read_text())["probes"]}
    assert len(groups) > 1
    (unpacked / "part.csv").write_text("".join(lines[:2]))
    done = run(unpacked, "--runs", "8", "--out", "part.csv", "--anew")
    assert "1 graphs are in part.csv already" in done.stdout
    again = (unpacked / "part.csv").read_text().splitlines(keepends=True)
    assert len(again) == len(lines)
    assert again[1] == lines[1]


def test_sessions_that_differ_are_noise_however_many_samples_each_gives() -> None:
    steady = [[100.0] * 50, [100.0] * 50, [104.0] * 50, [104.0] * 50]
    middle, noise = run_probes.estimate(steady, 0.0)
    assert (middle, noise >= 2.0) == (102.0, True)
    equal = [[100.0] * 50] * 4
    assert run_probes.estimate(equal, 0.5) == (100.0, 0.5)


def test_a_run_of_other_effort_is_refused_or_measured_anew(unpacked: Path) -> None:
    run(unpacked, "--runs", "8", "--out", "effort.csv")
    lines = (unpacked / "effort.csv").read_text().splitlines()
    done = run(unpacked, "--runs", "12", "--out", "effort.csv")
    assert done.returncode == 2
    assert "holds results of another run (most_runs '8', now '12')" in done.stderr
    done = run(unpacked, "--runs", "12", "--out", "effort.csv", "--anew")
    assert (done.returncode, "already" in done.stdout) == (0, False)
    again = (unpacked / "effort.csv").read_text().splitlines()
    assert not set(lines[1:]) & set(again)


def test_a_finished_run_is_measured_anew_only_where_that_is_asked_for(
    tmp_path: Path,
) -> None:
    same = {"most_runs": "8", "kit": "k", **dict.fromkeys(run_probes.SAME[1:-2], "x")}
    settings = {**same, "most_seconds": "1.0"}
    row = {**dict.fromkeys(run_probes.COLUMNS, ""), **settings, "hash": "a"}
    options = run_probes.parse(["--out", str(tmp_path / "r.csv")])
    anew = run_probes.parse(["--out", str(tmp_path / "r.csv"), "--anew"])
    run_probes.write(options.out, [row], {"a": row})
    assert list(run_probes.kept(options, settings, {"a"})) == ["a"]
    assert list(run_probes.kept(anew, settings, {"a", "b"})) == ["a"]
    assert not run_probes.kept(anew, settings, {"a"})
    assert not run_probes.kept(anew, {**settings, "most_runs": "9"}, {"a", "b"})
    with pytest.raises(run_probes.RefusalError, match="another run"):
        run_probes.kept(anew, {**settings, "device": "y"}, {"a"})


@pytest.mark.parametrize("content", [b"\x89PNG\xff\xfe", b"name,median_ns\n", b""])
def test_a_file_that_the_script_did_not_write_is_left_as_it_is(
    tmp_path: Path, content: bytes
) -> None:
    (tmp_path / "mine.csv").write_bytes(content)
    with pytest.raises(run_probes.RefusalError, match=r"mine\.csv: was not written by this script"):
        run_probes.earlier(str(tmp_path / "mine.csv"))
    assert (tmp_path / "mine.csv").read_bytes() == content


def test_the_script_refuses_results_of_another_run(unpacked: Path) -> None:
    run(unpacked, "--runs", "8", "--out", "one.csv")
    done = run(unpacked, "--runs", "8", "--threads", "2", "--out", "one.csv")
    assert done.returncode == 2
    assert "holds results of another run (threads '1', now '2')" in done.stderr
    done = run(unpacked, "--provider", "NoSuchProvider")
    assert done.returncode == 2
    assert "it has: " in done.stderr


def test_a_graph_that_fails_has_a_reason_and_the_others_go_on(
    probes: Probes, tmp_path: Path
) -> None:
    unpack_kit(Probes("x", probes.probes[:3], ()), tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    (tmp_path / manifest["probes"][1]["file"]).write_bytes(b"no model")
    assert run(tmp_path, "--runs", "8").returncode == 0
    with (tmp_path / "results.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["status"] for row in rows] == ["ok", "failed", "ok"]
    assert rows[1]["reason"]


def test_the_script_judges_samples_as_the_compiler_does() -> None:
    from actcc.backends.measure import median_interval

    random = np.random.default_rng(0)
    for count in (3, 8, 20, 60, 61, 200):
        samples = random.lognormal(size=count).tolist()
        assert run_probes.median_interval(samples) == pytest.approx(median_interval(samples))
