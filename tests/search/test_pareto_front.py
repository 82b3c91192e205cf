"""The front: every point verified, faster than the one before, within its budget, on disk whole."""

import csv
from concurrent.futures import Executor
from pathlib import Path

import numpy as np
import onnx
import pytest

import actcc.journal
import actcc.search.run
import actcc.verify
from actcc.accuracy.estimate import reference_outputs
from actcc.accuracy.fidelity import FidelityReference
from actcc.budget import Amount, Budget
from actcc.calibration import load_samples
from actcc.errors import BudgetError, DataError, ModelError, SearchError
from actcc.front import Front, front_file_name
from actcc.graph import Graph
from actcc.pareto import pareto_front
from actcc.plan import Plan
from actcc.runtime import random_feeds, run, session

pytestmark = pytest.mark.usefixtures("simplify_here")


def test_the_original_comes_first_and_is_as_it_was(front: Front, network: Path) -> None:
    original = front.points[0]
    assert original.budget is None
    assert original.output is None
    row = original.row
    assert (row.latency_ratio, row.drop, row.value, row.sites) == (1.0, 0.0, 1.0, 0)
    assert original.plan.result_hash == original.plan.model_hash


def test_every_point_is_faster_than_the_more_accurate_ones(front: Front) -> None:
    ratios = [row.latency_ratio for row in front.rows]
    assert len(ratios) >= 3
    assert ratios == sorted(set(ratios), reverse=True)


def test_every_point_keeps_its_budget_when_measured_again(front: Front, network: Path) -> None:
    original = Graph.load(network)
    _, held_out = load_samples(network.parent / "calib.npz", original).split(0.4, 0)
    reference = FidelityReference(reference_outputs(original, held_out))
    for point in front.points[1:]:
        assert point.budget is not None
        assert point.output is not None
        again = reference.loss(reference_outputs(Graph.load(point.output), held_out))
        assert point.row.drop == pytest.approx(again, rel=1e-3, abs=1e-7)
        assert again <= (point.row.most_drop or 0.0) + 1e-9
        assert point.row.most_drop is not None
        assert max(point.row.drop, point.row.most_drop) <= point.budget.value


def test_each_budget_has_a_point_or_is_named_as_empty(front: Front) -> None:
    had = [point.budget for point in front.points[1:]]
    assert sorted([*had, *front.empty], key=lambda drop: drop.value) == [
        Amount(0.02, True),
        Amount(0.1, True),
        Amount(0.3, True),
    ]


def test_all_budgets_share_the_trials(front: Front) -> None:
    assert len(front.points) - 1 <= len(front.trials) <= 6


def test_the_folder_has_each_model_with_its_plan(front: Front, written: Path) -> None:
    names = {f"network.drop{100 * p.budget.value:g}.onnx" for p in front.points[1:] if p.budget}
    assert {path.name for path in written.iterdir()} == names | {f"{n}.plan.json" for n in names}
    assert not list(written.parent.glob(".actcc-*"))
    for point in front.points[1:]:
        plan = Plan.from_json(Path(f"{point.output}.plan.json").read_text())
        assert plan == point.plan
        assert plan.settings["max_drop"] == str(point.budget)
        assert session(point.output) is not None


def test_the_table_as_csv_has_a_line_for_each_point(front: Front, tmp_path: Path) -> None:
    front.save_csv(tmp_path / "front.csv")
    with (tmp_path / "front.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [line["budget"] for line in lines] == [row.budget for row in front.rows]
    assert float(lines[-1]["latency_ms"]) == front.rows[-1].latency_ms
    assert lines[0]["most_drop"] == ""
    assert lines[-1]["model"].endswith(".onnx")


@pytest.mark.usefixtures("unrepaired")
def test_weights_beside_a_model_stay_beside_each_point(
    network: Path, tmp_path: Path, in_process: Executor
) -> None:
    source = tmp_path / "heavy.onnx"
    onnx.save_model(
        onnx.load(network), source, save_as_external_data=True, location="w", size_threshold=0
    )
    found = pareto_front(
        source,
        "npu1",
        drops=[Amount(0.3, True)],
        calibration=network.parent / "calib.npz",
        output=tmp_path / "front",
        max_trials=2,
        executor=in_process,
    )
    output = found.points[1].output
    assert output == tmp_path / "front" / "heavy.drop30.onnx"
    assert (tmp_path / "front" / "heavy.drop30.onnx.data").exists()
    feeds = random_feeds(Graph.load(source), 0)
    written, verified = run(session(output), feeds), run(session(found.points[1].graph), feeds)
    assert all(np.array_equal(written[name], verified[name]) for name in verified)


@pytest.mark.usefixtures("unrepaired")
def test_an_interruption_keeps_the_points_verified_so_far(
    network: Path, tmp_path: Path, in_process: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt = actcc.search.run.Search.attempt
    count = iter(range(100))

    def interrupted(self: object, chosen: object) -> object:
        if next(count) == 3:
            raise KeyboardInterrupt
        return attempt(self, chosen)  # type: ignore[arg-type]

    monkeypatch.setattr(actcc.search.run.Search, "attempt", interrupted)
    found = pareto_front(
        network,
        "npu1",
        drops=[Amount(0.1, True), Amount(0.3, True)],
        calibration=network.parent / "calib.npz",
        output=tmp_path / "front",
        executor=in_process,
    )
    assert len(found.trials) == 3
    assert len(found.points) >= 2
    assert (tmp_path / "front").is_dir()


@pytest.mark.usefixtures("unrepaired")
def test_a_verdict_that_is_resumed_counts_for_the_budget_at_hand(
    network: Path, tmp_path: Path, in_process: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACTCC_CACHE_DIR", str(tmp_path))

    def front_of(*shares: float, resume: bool = False) -> Front:
        return pareto_front(
            network,
            "npu1",
            drops=[Amount(share, True) for share in shares],
            calibration=network.parent / "calib.npz",
            max_trials=4,
            executor=in_process,
            resume=resume,
        )

    with monkeypatch.context() as patched:
        patched.setattr(actcc.journal.Journal, "discard", lambda self: None)
        first = front_of(0.02, 0.3)
    verified: list[object] = []
    monkeypatch.setattr(actcc.verify.Verifier, "verify", lambda *given, **named: verified.append(1))
    again = front_of(0.02, 0.3, resume=True)
    assert not verified
    assert [point.plan.chosen for point in again.points] == [p.plan.chosen for p in first.points]


@pytest.mark.usefixtures("unrepaired")
def test_an_interruption_before_any_point_leaves_nothing(
    network: Path, tmp_path: Path, in_process: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(self: object, chosen: object) -> object:
        raise KeyboardInterrupt

    monkeypatch.setattr(actcc.search.run.Search, "attempt", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pareto_front(
            network,
            "npu1",
            calibration=network.parent / "calib.npz",
            output=tmp_path / "front",
            executor=in_process,
        )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("unrepaired")
def test_a_model_that_cannot_be_faster_is_a_front_of_itself(
    tmp_path: Path, in_process: Executor
) -> None:
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    network (float[1, 8] x) => (float[1, 8] y) { y = Relu(x) }
    """
    onnx.save_model(onnx.parser.parse_model(text), tmp_path / "relu.onnx")
    np.savez(tmp_path / "calib.npz", x=np.ones((8, 8), np.float32))
    found = pareto_front(
        tmp_path / "relu.onnx",
        "npu1",
        calibration=tmp_path / "calib.npz",
        output=tmp_path / "front",
        executor=in_process,
    )
    assert [row.budget for row in found.rows] == [""]
    assert list((tmp_path / "front").iterdir()) == []


def test_absolute_and_relative_drops_have_names_of_their_own() -> None:
    assert front_file_name("net.onnx", Amount(0.005, True)) == "net.drop0.5.onnx"
    assert front_file_name("net.onnx", Amount(0.5, False)) == "net.drop0.5abs.onnx"
    assert front_file_name("net.onnx", Amount(0.7 * 0.01, True)) == "net.drop0.7.onnx"
    assert front_file_name("net.onnx", Amount(1e-9, False)) == "net.drop0.000000001abs.onnx"
    near = (Amount(0.12345678, True), Amount(0.12345679, True))
    assert len({front_file_name("net.onnx", budget) for budget in near}) == 2


def test_a_folder_with_files_in_it_is_refused_and_kept(network: Path, tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(ModelError, match="not an empty folder"):
        pareto_front(network, "npu1", calibration=network.parent / "calib.npz", output=tmp_path)
    assert (tmp_path / "mine.txt").read_text() == "mine"


def test_bad_arguments_are_refused_before_any_work(network: Path) -> None:
    calibration = network.parent / "calib.npz"
    with pytest.raises(DataError, match="--calib"):
        pareto_front(network, "npu1")
    with pytest.raises(BudgetError, match="--drops"):
        pareto_front(network, "npu1", calibration=calibration, drops=[])
    with pytest.raises(BudgetError, match="finite"):
        pareto_front(network, "npu1", calibration=calibration, drops=[Amount(0.0, True)])
    budget = Budget(max_drop=Amount(0.01, True))
    with pytest.raises(BudgetError, match="max_drop"):
        pareto_front(network, "npu1", calibration=calibration, budget=budget)
    with pytest.raises(SearchError, match="no strategy"):
        pareto_front(network, "npu1", calibration=calibration, search="best")


def test_equal_inputs_give_equal_fronts(front: Front, network: Path) -> None:
    again = pareto_front(
        network,
        "npu1",
        drops=[Amount(share, True) for share in (0.02, 0.1, 0.3)],
        calibration=network.parent / "calib.npz",
        skip=["simplify"],
        max_trials=6,
        workers=2,
    )
    assert [p.plan.chosen for p in again.points] == [p.plan.chosen for p in front.points]
