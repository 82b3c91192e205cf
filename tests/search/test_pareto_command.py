"""`actcc pareto`: the table, the files it was asked for, and one line where input is bad."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from actcc.budget import Amount
from actcc.cli import cli, main
from actcc.cli.pareto import _render
from actcc.front import Front
from actcc.plan import Plan

pytestmark = pytest.mark.usefixtures("simplify_here")


@pytest.fixture
def data(front: Front, network: Path) -> tuple[str, ...]:
    calib = str(network.parent / "calib.npz")
    return (str(network), "--target", "npu1", "--calib", calib, "--repair", "none")


def test_the_table_and_the_files(data: tuple[str, ...], tmp_path: Path) -> None:
    csv, folder = tmp_path / "front.csv", tmp_path / "front"
    options = ("--drops", "2%,30%", "--max-trials", "4", "--csv", str(csv), "-o", str(folder))
    done = CliRunner().invoke(cli, ["pareto", *data, *options, "--workers", "1"])
    assert done.exit_code == 0, done.output
    assert "network.onnx on npu1: fidelity, 8 held-out samples" in done.output
    assert "original" in done.output
    assert "≤ 30 %" in done.output
    assert "size" in done.output
    assert f"wrote {csv}" in done.output
    assert csv.read_text().count("\n") == 1 + done.output.count("≤") + 1
    assert (folder / "network.drop30.onnx").exists()


def test_json_has_every_point(data: tuple[str, ...]) -> None:
    options = ("--drops", "30%", "--max-trials", "2", "--json", "--workers", "1")
    done = CliRunner().invoke(cli, ["pareto", *data, *options])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert [point["budget"] for point in found["points"]] == ["", "30 %"]
    assert found["trials"] <= 2


def test_the_repair_is_the_one_that_was_asked_for(data: tuple[str, ...], tmp_path: Path) -> None:
    options = ("--drops", "30%", "--max-trials", "1", "-o", str(tmp_path / "front"), "--quiet")
    done = CliRunner().invoke(cli, ["pareto", *data, *options, "--repair", "closed-form"])
    assert done.exit_code == 0, done.output
    (plan,) = (tmp_path / "front").glob("*.plan.json")
    assert Plan.load(plan).settings["repair"] == "closed-form"


def test_of_a_budget_without_a_point_it_says_how_near_plans_came(
    front: Front, capsys: pytest.CaptureFixture[str]
) -> None:
    _render(replace(front, empty=(Amount(1e-6, True),)))
    least = min((t.accuracy for t in front.trials if t.accuracy), key=lambda found: found.bound)
    assert f"the least that a plan lost: {least.drop:.4g}" in capsys.readouterr().out


BAD = {
    "drops without unit": (("--drops", "1"), "write it as 1%"),
    "no drop at all": (("--drops", "0%"), "--drops"),
    "plot of no format": (("--plot", "front.gif"), ".svg or .png"),
    "table in no folder": (("--csv", "absent/front.csv"), "does not exist"),
    "front in no folder": (("-o", "absent/front"), "does not exist"),
}


@pytest.mark.parametrize(("options", "said"), BAD.values(), ids=list(BAD))
def test_bad_input_is_one_line_and_leaves_nothing(
    data: tuple[str, ...],
    options: tuple[str, ...],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as ended:
        main(["pareto", *data, *options])
    assert ended.value.code == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []
