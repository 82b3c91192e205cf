"""A CSV becomes a target, and what stands in the way is said in one line."""

import csv
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import networks
import numpy as np
import onnx
import pytest

from actcc.backends.analytic import AnalyticBackend
from actcc.cli import main
from actcc.errors import ActccError, DataError, TargetError
from actcc.graph import Graph, structure_hash
from actcc.latency_models import load_profile
from actcc.latency_models.probe_table import load_table
from actcc.prices import Price, PriceQuery, Unpriced
from actcc.probe.fit import fit_target, table_profile
from actcc.probe.here import Runner, probe_here
from actcc.probe.kit import identity_of, write_kit
from actcc.probe.probes import Probes, model_probes
from actcc.targets import Target, load_target

COLUMNS = (
    *("hash", "median_ns", "noise_ns", "runs", "runtime", "provider", "threads", "status"),
    *("reason", "kit", "role", "description", "features"),
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "network.onnx"
    onnx.save_model(networks.residual_network(channels=16, size=16), path)
    return path


@pytest.fixture(scope="module")
def probes(model: Path) -> Probes:
    return model_probes(model, load_target("npu1"))


@pytest.fixture(scope="module")
def latencies(probes: Probes) -> dict[str, float]:
    """What a device would measure whose rates are not npu1's: 20 µs a call, and npu2."""
    device = AnalyticBackend(load_profile("npu2"))
    found = {}
    for probe in probes.probes:
        cycles = sum(cycles.total for _, cycles in device.operations(probe.graph))
        found[probe.hash] = 20_000 + (0 if probe.role == "call" else cycles * 2)
    return found


def write_results(
    path: Path, probes: Probes, latencies: Mapping[str, float], kit: str | None = None
) -> Path:
    with path.open("w", newline="") as file:
        lines = csv.DictWriter(file, COLUMNS)
        lines.writeheader()
        for probe in probes.probes:
            lines.writerow(
                {
                    "hash": probe.hash,
                    "median_ns": latencies[probe.hash],
                    "noise_ns": 1.0,
                    "runs": 60,
                    "runtime": "device 1.0",
                    "status": "ok",
                    "kit": kit or identity_of(probes),
                    "role": probe.role,
                    "description": probe.description,
                    "features": json.dumps(dict(probe.features)),
                }
            )
    return path


@pytest.fixture
def results(tmp_path: Path, probes: Probes, latencies: Mapping[str, float]) -> Path:
    return write_results(tmp_path / "results.csv", probes, latencies)


def test_rates_of_another_device_are_found_from_its_latencies(
    results: Path, probes: Probes, latencies: Mapping[str, float], tmp_path: Path
) -> None:
    pytest.importorskip("scipy", reason="needs the extra 'predict'")
    write_kit(probes, tmp_path / "kit.zip")
    fit = fit_target(results, tmp_path / "mine.toml", base="npu1")
    before, after = fit.base_errors[0], fit.errors[0]
    assert fit.call_ns == 20_000
    assert before.median > 0.3
    assert after.median < 0.05
    assert after.percentile_90 < 0.15
    backend = Target(load_profile(tmp_path / "mine.toml")).backend
    assert isinstance(backend, AnalyticBackend)
    errors = []
    for probe in probes.probes:
        cycles = sum(cycles.total for _, cycles in backend.operations(probe.graph))
        if cycles and probe.role not in ("call", "model"):
            errors.append(abs(cycles * 2 / (latencies[probe.hash] - 20_000) - 1))
    assert float(np.median(errors)) < 0.05


def test_a_table_prices_what_was_measured(
    results: Path, probes: Probes, latencies: Mapping[str, float]
) -> None:
    groups: dict[str, list[int]] = {}
    for index, probe in enumerate(probes.probes):
        groups.setdefault(probe.group, []).append(index)
    members = next(m for m in groups.values() if probes.probes[m[0]].role == "keep" and len(m) > 2)
    keep, *others = (probes.probes[index] for index in members)
    backend = as_table(results).backend
    prices = backend.price(PriceQuery(keep.graph, {p.hash: p.graph for p in others}))
    for probe in others:
        price = prices[probe.hash]
        assert isinstance(price, Price)
        assert price.source == "measured"
        wanted = latencies[probe.hash] - latencies[keep.hash]
        assert price.difference_ns == pytest.approx(wanted if abs(wanted) > 2**0.5 else 0.0)


def test_square_brackets_of_a_path_are_printed_as_they_are(
    results: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results.write_text("".join(results.read_text().splitlines(keepends=True)[:5]))
    output = results.with_name("mine [bold].toml")
    main(["probe", "fit", str(results), "-o", str(output)])
    assert capsys.readouterr().out.startswith(f"{output}: table, ")


def without(results: Path, hashes: set[str]) -> None:
    with results.open(newline="") as file:
        rows = [row for row in csv.DictReader(file) if row["hash"] not in hashes]
    with results.open("w", newline="") as file:
        lines = csv.DictWriter(file, COLUMNS)
        lines.writeheader()
        lines.writerows(rows)


def as_table(results: Path, *, predict: bool = False) -> Target:
    """A target from a CSV, without the cross-validation."""
    path = results.with_suffix(".toml")
    path.write_text(table_profile(load_table(results), path, predict))
    return load_target(path)


def test_what_is_missing_is_unpriced_and_says_which_probe(results: Path, probes: Probes) -> None:
    keep = next(p for p in probes.probes if p.role == "keep")
    gone = next(p for p in probes.probes if p.group == keep.group and p.role == "candidate")
    others = {p.hash for p in probes.probes if p.role in ("layer", "candidate")}
    without(results, others)
    prices = as_table(results).backend.price(PriceQuery(keep.graph, {"gone": gone.graph}))
    refused = prices["gone"]
    assert isinstance(refused, Unpriced)
    assert "results.csv lacks the layer" in refused.reason
    assert "actcc probe kit" in refused.reason


def test_what_is_missing_is_predicted_with_its_uncertainty(
    results: Path, probes: Probes, latencies: Mapping[str, float]
) -> None:
    pytest.importorskip("sklearn", reason="needs the extra 'predict'")
    layer = [p for p in probes.probes if p.role == "layer"]
    gone = {p.hash for p in layer[::5]}
    without(results, gone)
    backend = as_table(results, predict=True).backend
    graphs = [p for p in layer if p.hash in gone]
    inside = 0
    for probe in graphs:
        (timing,) = backend.time_models([probe.graph])
        assert timing.source == "estimated"
        assert timing.noise_ns > 0
        inside += abs(timing.latency_ns - latencies[probe.hash]) <= timing.noise_ns
    assert inside >= 0.8 * len(graphs)


def test_a_whole_model_costs_what_its_layers_change(
    results: Path, model: Path, latencies: Mapping[str, float]
) -> None:
    from actcc.normalize import normalize
    from actcc.pass_api import apply_candidates, find_sites, select_passes

    target = as_table(results)
    graph = normalize(Graph.load(model)).graph
    passes = select_passes(None)
    site = find_sites(graph, passes, target).sites[0]
    rewritten = apply_candidates(graph, passes, [(site, "Relu")])
    before, after = target.backend.time_models([graph, rewritten])
    assert before.latency_ns == latencies[structure_hash(graph)]
    device = AnalyticBackend(load_profile("npu2"))
    cycles = [sum(c.total for _, c in device.operations(g)) for g in (graph, rewritten)]
    assert after.latency_ns < before.latency_ns
    wanted = 2 * (cycles[1] - cycles[0])
    assert after.latency_ns - before.latency_ns == pytest.approx(wanted, rel=0.05)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "has no column 'hash'"),
        ("a,b\n1,2\n", "has no column 'hash'"),
        (",".join(COLUMNS) + "\n", "no graph in it was measured"),
    ],
)
def test_a_csv_that_is_none_is_refused(tmp_path: Path, content: str, said: str) -> None:
    (tmp_path / "results.csv").write_text(content)
    with pytest.raises(TargetError, match=said):
        load_table(tmp_path / "results.csv")


def test_a_latency_that_is_none_is_refused_with_its_line(results: Path) -> None:
    lines = results.read_text().splitlines()
    lines[2] = lines[2].replace(lines[2].split(",")[1], "fast", 1)
    results.write_text("\n".join(lines))
    with pytest.raises(TargetError, match="line 3 cannot be understood"):
        load_table(results)


def test_the_kit_of_another_model_is_refused(
    probes: Probes, latencies: Mapping[str, float], tmp_path: Path
) -> None:
    results = write_results(tmp_path / "results.csv", probes, latencies, kit="another")
    write_kit(probes, tmp_path / "kit.zip")
    with pytest.raises(DataError, match="give the kit that it belongs to"):
        fit_target(results, tmp_path / "x.toml", base="npu1", kit=tmp_path / "kit.zip")
    with pytest.raises(DataError, match="give it with --kit"):
        fit_target(results, tmp_path / "x.toml", base="npu1")
    assert not (tmp_path / "x.toml").exists()


@pytest.mark.parametrize(
    "arguments",
    [
        ["fit", "absent.csv", "-o", "x.toml"],
        ["fit", "results.csv", "-o", "x.json"],
        ["fit", "results.csv", "-o", "x.toml", "--base", "cpu"],
        ["fit", "results.csv", "-o", "x.toml", "--base", "nothing"],
        ["fit", "results.csv", "-o", "x.toml", "--as", "analytic"],
        ["kit", "-o", "kit.zip"],
        ["kit", "absent.onnx", "-o", "kit.zip"],
        ["run", "--sweep", "-o", "x.toml", "--target", "npu1"],
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(
    results: Path,
    probes: Probes,
    arguments: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(results.parent)
    write_kit(probes, results.parent / "beside.zip")
    with pytest.raises(SystemExit) as ended:
        main(["probe", *arguments])
    assert ended.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (results.parent / "x.toml").exists()


@pytest.mark.parametrize(
    ("output", "options", "said"),
    [
        ("x.txt", {}, "a target profile is a .toml file"),
        ("x.toml", {"kind": "analytic"}, "--as analytic needs a profile to start from"),
        ("x.toml", {"base": "cpu"}, "only the rates of an analytic profile can be fitted"),
        ("x.toml", {"predict": True}, "needs scikit-learn"),
        ("x.toml", {"base": "npu1"}, "needs scipy"),
        ("taken.toml", {}, "is a folder"),
    ],
)
def test_what_the_fit_would_refuse_is_refused_before_anything_is_timed(
    output: str,
    options: dict[str, Any],
    said: str,
    probes: Probes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "taken.csv").mkdir()
    for module in ("sklearn.ensemble", "scipy.optimize"):
        monkeypatch.setitem(sys.modules, module, None)
    monkeypatch.setattr("actcc.probe.here.unpack_kit", never)
    with pytest.raises(ActccError, match=said):
        probe_here(probes, Runner("CPUExecutionProvider", 1, 8), tmp_path / output, **options)


def never(*arguments: object) -> None:
    raise AssertionError("the probes were to be timed")


def test_a_profile_without_its_table_is_refused(tmp_path: Path) -> None:
    text = 'name = "t"\ndescription = "d"\nbackend = "table"\n[settings]\ntable = "no.csv"\n'
    (tmp_path / "t.toml").write_text(text)
    with pytest.raises(ActccError, match="no such file"):
        _ = load_target(tmp_path / "t.toml").backend


def test_probing_here_makes_a_target(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["": 17]>'
        "g (float[1,4,8,8] x) => (float[1,4,8,8] y) { y = Sigmoid(x) }"
    )
    onnx.save_model(model, tmp_path / "small.onnx")
    command = ["probe", "run", str(tmp_path / "small.onnx"), "-o", str(tmp_path / "here.toml")]
    main([*command, "--runs", "8"])
    assert "here.toml: table" in capfd.readouterr().out
    first = (tmp_path / "here.csv").read_text()
    backend = load_target(tmp_path / "here.toml").backend
    (timing,) = backend.time_models([Graph.load(model)])
    assert timing.latency_ns > 0
    lines = first.splitlines(keepends=True)
    (tmp_path / "here.csv").write_text("".join(lines[:-1]))
    main([*command, "--runs", "8", "--json"])
    (note, *_) = json.loads(capfd.readouterr().out)["notes"]
    assert note.endswith(f"graphs are in {tmp_path / 'here.csv'} already")
