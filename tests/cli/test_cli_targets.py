"""`actcc targets` says what is there, and `show` what a profile holds."""

import json
from pathlib import Path

import pytest

from actcc.cli import main


def test_targets_say_how_prices_come_about_and_what_is_missing(
    capsys: pytest.CaptureFixture[str],
) -> None:
    main(["targets", "--json"])
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["cpu"]["prices"] == "measured"
    assert rows["npu1"]["prices"] == "estimated"
    assert all(
        row["available"] == "yes" or "pip install" in row["available"] for row in rows.values()
    )


def test_show_prints_inherited_settings_with_units(capsys: pytest.CaptureFixture[str]) -> None:
    main(["targets", "show", "npu1", "--json"])
    shown = json.loads(capsys.readouterr().out)
    assert shown["settings"]["clock_mhz"] == 500
    assert shown["units"]["clock_mhz"] == "MHz"
    assert shown["units"]["sram.bytes"] == "bytes"
    main(["targets", "show", "npu1"])
    assert "multiply-accumulates a cycle" in capsys.readouterr().out


def test_every_number_of_a_built_in_profile_has_a_unit() -> None:
    from actcc.target_fields import profile_fields
    from actcc.targets import list_targets

    for target in list_targets():
        for field in profile_fields(target.profile):
            if field.value.replace("_", "").replace(".", "").isdigit():
                assert field.unit, f"{target.name}: {field.name}"


def test_an_unknown_target_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["targets", "show", "npu9"])
    assert ended.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


def test_square_brackets_of_a_profile_are_printed_as_they_are(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    text = 'description = "d [/bold] [x]"\nbackend = "table"\n[settings]\ntable = "[1].csv"\n'
    (tmp_path / "t.toml").write_text(f'name = "mine [/]"\n{text}')
    main(["targets", "show", str(tmp_path / "t.toml")])
    printed = capsys.readouterr().out
    assert printed.startswith("mine [/]: d [/bold] [x]\n")
    assert "[1].csv" in printed
