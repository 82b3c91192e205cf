"""The profiles of NPUs: what they say, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

import actcc.latency_models
from actcc.errors import TargetError
from actcc.latency_models import built_in_profiles, load_profile
from actcc.latency_models.npu_settings import npu_settings

FOLDER = Path(actcc.latency_models.__file__).parent


def leaves(settings: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        here = f"{path}.{key}" if path else key
        if isinstance(value, Mapping):
            yield from leaves(value, here)
        else:
            yield here, value


def extended(folder: Path, text: str) -> Path:
    path = folder / "own.toml"
    path.write_text('extends = "npu1"\nname = "own"\ndescription = "mine"\n' + text)
    return path


def refusal(folder: Path, text: str) -> str:
    with pytest.raises(TargetError) as caught:
        npu_settings(load_profile(extended(folder, text)))
    return str(caught.value)


def test_the_shared_base_is_no_target_of_its_own() -> None:
    names = [profile.name for profile in built_in_profiles()]
    assert {"npu1", "npu2"} <= set(names)
    assert "npu_base" not in names


def test_the_two_npus_differ_in_clock_cores_memories_and_what_was_fitted_only() -> None:
    first, second = (dict(leaves(load_profile(name).settings)) for name in ("npu1", "npu2"))
    assert first.keys() == second.keys()
    assert {key for key in first if first[key] != second[key]} == {
        "clock_mhz",
        "cores",
        "sram.bytes",
        "sram.bytes_per_cycle",
        "sram.holds_interface",
        "dram.bytes_per_cycle",
        "dram.latency_cycles",
        "dram.write_latency_cycles",
        "sram.spills",
        "weights.bytes_per_weight",
        "weights.bytes_per_filler",
    }


@pytest.mark.parametrize(
    ("name", "macs", "sram_gigabytes", "dram_gigabytes"),
    [("npu1", 256, 4.0, 0.5), ("npu2", 512, 16.0, 3.75)],
)
def test_a_profile_holds_the_published_figures(
    name: str, macs: int, sram_gigabytes: float, dram_gigabytes: float
) -> None:
    settings = npu_settings(load_profile(name))
    per_second = settings.clock_mhz * 1e6 / 1e9
    assert settings.cores * settings.macs_per_cycle.convolution == macs
    assert settings.sram.bytes_per_cycle * per_second == pytest.approx(sram_gigabytes)
    assert settings.dram.bytes_per_cycle * per_second == pytest.approx(dram_gigabytes)


@pytest.mark.parametrize("name", ["npu_base", "npu1", "npu2"])
def test_every_number_has_a_comment_with_its_source(name: str) -> None:
    explained = False
    for line in (FOLDER / f"{name}.toml").read_text().splitlines():
        if line.startswith("#"):
            explained = True
        elif re.match(r"\w+ *= *[\d.]", line):
            assert explained, f"'{line}' says nothing of its source"
        elif not re.match(r"\w+ *=", line):
            explained = False  # an empty line or the next table


def test_a_profile_of_ones_own_changes_what_it_names(tmp_path: Path) -> None:
    own = npu_settings(load_profile(extended(tmp_path, "[settings.sram]\nbytes = 1000\n")))
    base = npu_settings(load_profile("npu1"))
    assert own.sram.bytes == 1000
    assert own.model_copy(update={"sram": base.sram}) == base


@pytest.mark.parametrize(
    ("text", "where", "what"),
    [
        ("[settings]\nclock_mhz = -1\n", "settings.clock_mhz", "greater than 0"),
        ("[settings]\nclock_mhz = nan\n", "settings.clock_mhz", "finite"),
        ("[settings]\nclock_mhz = inf\n", "settings.clock_mhz", "finite"),
        ("[settings]\nclock = 500\n", "settings.clock", "not permitted"),
        ("[settings.sram]\nsize = 1\n", "settings.sram.size", "not permitted"),
        ("[settings]\ncores = 0\n", "settings.cores", "greater than or equal to 1"),
        ("[settings]\ncores = 1.5\n", "settings.cores", "integer"),
        ("[settings.elements_per_cycle]\nadd = 0\n", "settings.elements_per_cycle.add", "greater"),
        ("[settings.operators]\nErf = 'magic'\n", "settings", "'operators.Erf' names the class"),
        ("[settings]\nfusing = ['magic']\n", "settings", "'fusing' names the class 'magic'"),
        (
            "[settings.activations]\nMish = { unit = 'magic' }\n",
            "settings.activations.Mish.unit",
            "'clamp', 'lookup' or 'passes'",
        ),
        (
            "[settings.activations]\nSelu = { unit = 'passes' }\n",
            "settings",
            "'activations.Selu': 'passes' goes with",
        ),
        (
            "[settings.activations]\nSelu = { unit = 'passes', passes = ['Erf'] }\n",
            "settings",
            "'activations.Selu' needs the operator 'Erf'",
        ),
        (
            "[settings.activations]\nSwishy = { unit = 'clamp' }\n",
            "settings",
            "there is no activation 'Swishy'",
        ),
    ],
)
def test_a_field_that_does_not_fit_is_named(
    tmp_path: Path, text: str, where: str, what: str
) -> None:
    message = refusal(tmp_path, text)
    assert f"target 'own': '{where}': " in message
    assert what in message
    assert message.endswith("see docs/targets.md")


def test_a_missing_field_is_named(tmp_path: Path) -> None:
    path = tmp_path / "bare.toml"
    path.write_text('name = "bare"\ndescription = "d"\nbackend = "analytic"\n')
    with pytest.raises(TargetError, match=r"target 'bare': 'settings.clock_mhz': Field required"):
        npu_settings(load_profile(path))
