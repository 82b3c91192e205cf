"""What commands share, and the files that `pareto` and `rank` write beside what they print."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from networks import images, residual_network

from actcc.cli import main
from actcc.effort import FRONT_EFFORT, STRATEGY_NAMES
from actcc.errors import ModelError
from actcc.search import STRATEGIES

pytestmark = pytest.mark.usefixtures("simplify_here", "unrepaired")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    onnx.save_model(residual_network(), tmp_path / "network.onnx")
    np.savez(tmp_path / "calib.npz", images=images(4))
    monkeypatch.chdir(tmp_path)
    return tmp_path


DATA = ("network.onnx", "-t", "npu1", "--calib", "calib.npz", "--workers", "1")
REFUSED = {
    "table over model": (("pareto", *DATA, "--csv", "network.onnx"), "is the input"),
    "plot over data": (("pareto", *DATA, "--plot", "calib.npz"), "is the input"),
    "table over plot": (
        ("pareto", *DATA, "--csv", "front.svg", "--plot", "./front.svg"),
        "both --csv and --plot",
    ),
    "table in no folder": (("pareto", *DATA, "--csv", "absent/f.csv"), "does not exist"),
    "ranking over model": (("rank", *DATA, "--save", "network.onnx"), "is the input"),
    "ranking in no folder": (("rank", *DATA, "--save", "absent/rank.json"), "does not exist"),
    "drop that is empty": (("pareto", *DATA, "--drops", "1%,,2%"), "--drops: '' cannot be"),
    "samples of nothing": (
        ("compare", "network.onnx", "network.onnx", "--samples", "3"),
        "--samples without --calib",
    ),
    "preprocessing of nothing": (
        ("compare", "network.onnx", "network.onnx", "--preprocess", "yolox"),
        "--preprocess without --calib",
    ),
    "apply over its plan": (("apply", "network.onnx", "calib.npz", "-o", "calib.npz"), "is the"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_it_is_refused_at_once_in_one_line(
    folder: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    if "--plot" in REFUSED[name][0]:
        pytest.importorskip("matplotlib", reason="needs the extra plot")
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with pytest.raises(SystemExit) as ended:
        main(list(REFUSED[name][0]))
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert REFUSED[name][1] in said
    assert said.count("\n") == 1
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_the_front_is_printed_before_a_file_of_it_fails(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(path: Path, text: str) -> None:
        raise ModelError(f"{path}: cannot be written")

    monkeypatch.setattr("actcc.front.write_text", full)
    with pytest.raises(SystemExit) as ended:
        main(
            ["pareto", *DATA, "--drops", "30%", "--max-trials", "1", "--json", "--csv", "front.csv"]
        )
    printed, said = capsys.readouterr()
    assert ended.value.code == 2
    assert "front.csv: cannot be written" in said
    assert json.loads(printed)["points"]


def test_the_ranking_is_printed_before_its_file_fails(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Record:
        def to_json(self) -> str:
            return '{"plans": []}'

    def full(path: Path, text: str) -> None:
        raise ModelError(f"{path}: cannot be written")

    monkeypatch.setattr("actcc.rank.rank_model", lambda *arguments, **options: Record())
    monkeypatch.setattr("actcc.graph.files.write_text", full)
    with pytest.raises(SystemExit) as ended:
        main(["rank", *DATA, "--json", "--save", "rank.json"])
    printed, said = capsys.readouterr()
    assert ended.value.code == 2
    assert "rank.json: cannot be written" in said
    assert json.loads(printed) == {"plans": []}


def test_the_strategies_on_offer_are_those_there_are() -> None:
    assert tuple(STRATEGIES) == STRATEGY_NAMES


def test_help_shows_the_defaults_of_the_front(capsys: pytest.CaptureFixture[str]) -> None:
    main(["pareto", "--help"])
    text = capsys.readouterr().out
    assert f"[default: {FRONT_EFFORT.max_trials}; x>=1]" in text
    assert "0.5%,1%,2%,5%,10%" in text


def test_help_loads_nothing_heavy() -> None:
    script = (
        "import sys; from actcc.cli import main\n"
        "try: main(['pareto', '--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'onnx', 'numpy', 'ortools', 'onnxruntime', 'rich'} & set(sys.modules)\n"
        "sys.exit(f'loaded: {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
