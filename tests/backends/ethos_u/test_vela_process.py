"""Vela as a process of its own: where it runs, with which configuration, what it leaves behind."""

from __future__ import annotations

from pathlib import Path

import pytest
from networks import residual_network

pytest.importorskip("ethosu", reason="needs the extra 'ethos-u'")

import ethosu

from actcc.errors import TargetError
from actcc.graph import Graph
from actcc.targets import Target, load_target

PROFILE = 'extends = "ethos-u55-256"\nname = "board"\n[settings]\nconfig = "{config}"\n'
VELA = Path(next(iter(ethosu.__path__))) / "config_files" / "Arm" / "vela.ini"


def board(folder: Path, config: str = "mine.ini") -> Target:
    path = folder / "board.toml"
    path.write_text(PROFILE.format(config=config))
    return load_target(path)


def latency_ns(target: Target) -> float:
    (timing,) = target.backend.time_models([Graph.load(residual_network())])
    return timing.latency_ns


def test_python_files_of_the_current_folder_are_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = tmp_path / "ran"
    (tmp_path / "numpy.py").write_text(f"open({str(ran)!r}, 'w')\n")
    monkeypatch.chdir(tmp_path)
    assert latency_ns(load_target("ethos-u55-256")) > 0
    assert not ran.exists()


def test_the_configuration_starts_at_the_folder_of_the_profile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slower = VELA.read_text().replace("core_clock=500e6", "core_clock=250e6")
    (tmp_path / "boards").mkdir()
    (tmp_path / "boards" / "mine.ini").write_text(slower)
    monkeypatch.chdir(tmp_path)
    found = board(Path("boards"))
    assert latency_ns(found) > 1.5 * latency_ns(load_target("ethos-u55-256"))


def test_what_the_configuration_says_is_part_of_the_tool(tmp_path: Path) -> None:
    (tmp_path / "mine.ini").write_text(VELA.read_text())
    before = board(tmp_path).backend.tool
    assert before == load_target("ethos-u55-256").backend.tool
    (tmp_path / "mine.ini").write_text(VELA.read_text() + "\n[Memory_Mode.Another]\n")
    assert board(tmp_path).backend.tool != before


@pytest.mark.parametrize(
    ("config", "text", "reason"),
    [
        ("missing.ini", "", "there is no .ini file .*missing.ini"),
        ("mine.txt", "", "there is no .ini file .*mine.txt"),
        ("mine.ini", "garbage here\n", "mine.ini cannot be read"),
    ],
)
def test_a_configuration_that_is_none_is_refused_before_anything_runs(
    tmp_path: Path, config: str, text: str, reason: str
) -> None:
    (tmp_path / "mine.ini").write_text(text)
    (tmp_path / "mine.txt").write_text(text)
    with pytest.raises(TargetError, match=reason):
        _ = board(tmp_path, config).backend


def test_a_configuration_that_vela_cannot_read_is_an_error_of_the_target(tmp_path: Path) -> None:
    (tmp_path / "mine.ini").write_text(VELA.read_text().replace("axi0_port=Sram", "axi0_port=S"))
    with pytest.raises(TargetError, match=r"mine\.ini: KeyError: 'S'"):
        latency_ns(board(tmp_path))
