"""`actcc cache info` and `actcc cache clear`."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from actcc.cli import main
from actcc.price_cache import PriceCache
from actcc.prices import Price


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ACTCC_CACHE_DIR", str(tmp_path))
    return tmp_path / "prices.sqlite"


def keep(path: Path, key: str, tool: str) -> None:
    PriceCache(path).put(key, {"keep": Price(1.0, 0.0, 0.0, "measured", tool)})


def test_info_counts_entries_by_tool(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for key, tool in (("a", "runtime 1"), ("b", "runtime 2"), ("c", "runtime 2")):
        keep(path, key, tool)
    main(["cache", "info", "--json"])
    found = json.loads(capsys.readouterr().out)
    assert found["path"] == str(path)
    assert found["entries"] == {"runtime 2": 2, "runtime 1": 1}
    assert found["size_bytes"] >= path.stat().st_size
    main(["cache", "info"])
    printed = capsys.readouterr().out
    assert printed.startswith(f"{path}: 3 entries, ")
    assert "runtime 2" in printed


def test_info_makes_no_file(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["cache", "info"])
    assert capsys.readouterr().out == f"{path}: 0 entries, 0 KiB\n"
    assert not list(path.parent.iterdir())


def test_clear_says_what_it_removed(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keep(path, "a", "runtime 1")
    path.with_name(f"{path.name}.corrupt-1").write_bytes(b"broken")
    main(["cache", "clear"])
    printed = capsys.readouterr().out
    assert printed.startswith("removed 1 entries and 1 damaged file (")
    assert printed.endswith(f" from {path}\n")
    assert PriceCache(path).get("a") is None
    assert not list(path.parent.glob("*.corrupt-*"))


def test_a_damaged_file_is_said_in_one_line_and_cleared(
    path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path.write_bytes(b"this is no database" * 500)
    with pytest.raises(SystemExit) as ended:
        main(["cache", "info"])
    told = capsys.readouterr().err
    assert ended.value.code == 2
    assert told.count("\n") == 1
    assert "`actcc cache clear` removes it" in told
    main(["cache", "clear"])
    assert capsys.readouterr().out.startswith("removed 0 entries and 1 damaged file ")
    assert not path.exists()
    keep(path, "a", "runtime 1")
    assert PriceCache(path).contents().entries == {"runtime 1": 1}
