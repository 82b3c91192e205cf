"""Budgets: what the result must keep, in units or relative to the original."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal

from actcc.errors import BudgetError

Objective = Literal["latency", "accuracy", "size"]
_NUMBER = r"(\d+(?:\.\d+)?|\.\d+)"
_LATENCY_NS = {"ns": 1.0, "us": 1e3, "µs": 1e3, "ms": 1e6, "s": 1e9}
_MEMORY_BYTES = {"B": 1.0, "KiB": 2.0**10, "MiB": 2.0**20, "GiB": 2.0**30, "KB": 1e3, "MB": 1e6}


@dataclass(frozen=True)
class Amount:
    """A limit: `value` in the budget's unit, or as a share of the original's value."""

    value: float
    relative: bool

    def against(self, original: float) -> float:
        """The limit in the budget's unit, given the original's value."""
        return self.value * original if self.relative else self.value

    def __str__(self) -> str:
        if math.isinf(self.value):
            return "no limit"
        return f"{100 * self.value:g} %" if self.relative else f"{self.value:g}"


NO_LIMIT = Amount(math.inf, False)
DEFAULT_CONFIDENCE = 0.8
# What `actcc pareto` asks for; texts as `--drops` takes them.
FRONT_DROPS = ("0.5%", "1%", "2%", "5%", "10%")


@dataclass(frozen=True)
class Budget:
    """What the result must keep.

    Attributes:
        max_drop: of accuracy; relative to the original's metric, or absolute in its units. None
            is no limit where accuracy is the objective, and 1 % elsewhere.
        max_latency: in nanoseconds, or relative to the original's latency. None is no slower than
            the original where size counts, and no limit elsewhere.
        max_memory: peak of activations in bytes, or relative to the original's peak.
        max_size: of the model's file in bytes, weights beside it included, or relative to the
            original's.
        objective: what is made best within the limits.
        confidence: with which the drop must be within its limit: one-sided, in [0.5, 1).
    """

    max_drop: Amount | None = None
    max_latency: Amount | None = None
    max_memory: Amount | None = None
    objective: Objective = "latency"
    confidence: float = DEFAULT_CONFIDENCE
    max_size: Amount | None = None

    def __post_init__(self) -> None:
        if not 0.5 <= self.confidence < 1:
            raise BudgetError(
                f"--confidence {100 * self.confidence:g} %: must be from 50 % to below 100 %; "
                f"{100 * DEFAULT_CONFIDENCE:g} % is the default"
            )
        if self.objective == "accuracy" and self.max_latency is None:
            raise BudgetError(
                "--objective accuracy needs a latency to reach; give --max-latency, e.g. 70%"
            )

    @property
    def drop_limit(self) -> Amount:
        """What may be lost of accuracy; an infinite amount is no limit."""
        if self.max_drop is not None:
            return self.max_drop
        return NO_LIMIT if self.objective == "accuracy" else Amount(0.01, True)

    @property
    def size_counts(self) -> bool:
        """Whether the size of the file is limited, or made small."""
        return self.objective == "size" or self.max_size is not None

    @classmethod
    def parse(
        cls,
        max_drop: str | None = None,
        max_latency: str | None = None,
        max_memory: str | None = None,
        objective: Objective = "latency",
        confidence: str | None = None,
        max_size: str | None = None,
    ) -> Budget:
        """A budget from texts such as `1%`, `0.5abs`, `none`, `8ms`, `70%`, `4MiB`.

        Raises:
            BudgetError: a text cannot be understood.
        """
        return cls(
            None if max_drop is None else parse_drop(max_drop),
            None if max_latency is None else parse_latency(max_latency),
            None if max_memory is None else parse_memory(max_memory),
            objective,
            DEFAULT_CONFIDENCE if confidence is None else parse_confidence(confidence),
            None if max_size is None else parse_max_size(max_size),
        )


def parse_confidence(text: str) -> float:
    """`90%` as a share."""
    number, _ = _split(text, {"%": 0.01}, "--confidence", "90%")
    return number / 100


def parse_drop(text: str, option: str = "--max-drop") -> Amount:
    """`1%` is relative to the original's accuracy, `0.5abs` is in the metric's own units, and
    `none` is no limit.

    Args:
        option: where the text was given, for the error.
    """
    if text.strip() == "none":
        return NO_LIMIT
    units = {"%": 0.01, "abs": 1.0}
    number, unit = _split(text, units, option, "1% (relative) or 0.5abs (absolute)")
    return Amount(number * units[unit], unit == "%")


def parse_latency(text: str) -> Amount:
    """`8ms`, `500us`, or `70%` of the original."""
    units = {"%": 0.01, **_LATENCY_NS}
    number, unit = _split(text, units, "--max-latency", "8ms, 500us or 70%")
    return Amount(number * units[unit], unit == "%")


def parse_memory(text: str) -> Amount:
    """`4MiB`, `512KiB`, or `60%` of the original."""
    return _parse_bytes(text, "--max-memory", "4MiB, 512KiB or 60%")


def parse_max_size(text: str) -> Amount:
    """`2MiB`, `500KiB`, or `50%` of the original."""
    return _parse_bytes(text, "--max-size", "2MiB, 500KiB or 50%")


def _parse_bytes(text: str, option: str, examples: str) -> Amount:
    units = {"%": 0.01, **_MEMORY_BYTES}
    number, unit = _split(text, units, option, examples)
    return Amount(number * units[unit], unit == "%")


def parse_size(text: str, option: str) -> int:
    """`512MiB`, `2GiB`: bytes."""
    number, unit = _split(text, _MEMORY_BYTES, option, "512MiB or 2GiB")
    return int(number * _MEMORY_BYTES[unit])


def _split(text: str, units: dict[str, float], option: str, examples: str) -> tuple[float, str]:
    match = re.fullmatch(rf"\s*{_NUMBER}\s*(\S+)\s*", text)
    if match is None or match.group(2) not in units:
        raise BudgetError(f"{option}: '{text}' cannot be understood; write it as {examples}")
    return float(match.group(1)), match.group(2)
