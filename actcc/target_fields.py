"""A profile's settings as rows for people, each with its unit."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from actcc.latency_models import Profile

# By the ending of a setting's name; the first that fits.
_UNITS: tuple[tuple[str, str], ...] = (
    ("clock_mhz", "MHz"),
    ("bytes_per_cycle", "bytes a cycle"),
    ("elements_per_cycle", "elements a cycle"),
    ("macs_per_cycle", "multiply-accumulates a cycle"),
    ("latency_cycles", "cycles"),
    ("cycles_per_call", "cycles a call"),
    ("bytes_per_element", "bytes an element"),
    ("bytes_per_weight", "bytes a weight"),
    ("bytes_per_channel", "bytes a channel"),
    ("table_bytes", "bytes"),
    ("_bytes", "bytes"),
    ("bytes", "bytes"),
    ("_seconds", "s"),
    ("weight_bits", "bits"),
    ("_ns", "ns"),
    ("_mhz", "MHz"),
    ("precision", "share of the latency"),
    ("placement_noise", "share of the latency"),
    ("softmax_row_cycles", "cycles a row"),
    ("bytes_per_filler", "bytes a zero"),
    ("in_flight", "blocks"),
    ("cores", "cores"),
    ("threads", "threads"),
    ("input_channels", "channels"),
    ("channels", "channels"),
    ("kernel", "elements of a kernel"),
    ("window", "elements of a window"),
    ("rows", "positions"),
    ("columns", "positions"),
    ("positions", "positions"),
    ("accumulators", "sums"),
)
# Tables of rates whose names are operators or classes.
_RATES = {
    "elements_per_cycle": "elements a cycle",
    "macs_per_cycle": "multiply-accumulates a cycle",
}


@dataclass(frozen=True)
class ProfileField:
    """One setting.

    Attributes:
        name: with the sections that it lies in, joined by dots.
        value: as in the file.
        unit: of a number; empty where there is none.
    """

    name: str
    value: str
    unit: str


def profile_fields(profile: Profile) -> list[ProfileField]:
    """All settings of a profile, those that it inherits included, in the file's order."""
    return [
        ProfileField(name, _text(value), _unit(name, value))
        for name, value in _flat(profile.settings, "")
    ]


def _flat(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _text(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:_}"
    return value if isinstance(value, str) else json.dumps(value)


def _unit(name: str, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return ""
    *sections, last = name.split(".")
    if sections and sections[-1] in _RATES:
        return _RATES[sections[-1]]
    return next((unit for ending, unit in _UNITS if last.endswith(ending)), "")
