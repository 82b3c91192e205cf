"""The rates of an analytic profile, fitted to what was measured.

An operation takes as long as its slowest part (`actcc.latency_models.npu_cycles`), and each part is
inversely proportional to one rate of the profile. The fit multiplies every rate by a factor of its
own: least squares over the logarithm of measured against predicted latency with a soft L1 loss,
which a few graphs that the model does not describe cannot bend (Huber 1981), and a weak pull
towards the profile's own rates, which holds those that no graph depends on.
"""

from __future__ import annotations

import copy
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from actcc.backends.analytic import AnalyticBackend
from actcc.errors import ActccError, DataError, TargetError
from actcc.graph import Array, Graph
from actcc.graph.files import write_text
from actcc.latency_models import Profile, load_profile
from actcc.latency_models.npu_cycles import Cycles
from actcc.latency_models.npu_program import HOST, Operation
from actcc.latency_models.probe_regression import training_rows
from actcc.latency_models.probe_table import ProbeRow, ProbeTable
from actcc.probe.fit import Fit, cross_validate, error_rows, measured_ns, quoted
from actcc.probe.kit import Kit

_PULL = 0.05  # a rate that is off by e counts as much as a graph that is off by 5 %
_OUTLIER = 0.1  # errors above it count by their size, those below it by their square
_LARGEST_FACTOR = 1e4
_ENDLESS = 1e12
_DRAM = "dram.bytes_per_cycle"
_HOST_RATES = ("host.bytes_per_cycle", "host.elements_per_cycle", "host.macs_per_cycle")
_MULTIPLYING = ("macs_per_cycle.convolution", "macs_per_cycle.depthwise", "macs_per_cycle.matrix")
_SEPARATE = "lookup.separate_elements_per_cycle"


@dataclass(frozen=True)
class _Part:
    """Cycles of an operation that are inversely proportional to one rate, at the base's."""

    rate: str
    cycles: float


_NO_PART = _Part(_DRAM, 0.0)


@dataclass(frozen=True)
class _Cost:
    """What an operation needs: the slowest of its parts, its table, and what no rate changes."""

    parts: tuple[_Part, ...]
    table: float
    fixed: float


@dataclass(frozen=True)
class _Work:
    """Costs of all operations of many graphs.

    Attributes:
        clock_mhz: of the device.
        graphs: how many there are.
        graph: number of each operation's graph, [m].
        parts: cycles side by side, [m, 5].
        rates: numbers of the rates that they depend on, [m, 5].
        table, fixed: cycles besides, [m].
        names: of the rates.
    """

    clock_mhz: float
    graphs: int
    graph: Array
    parts: Array
    rates: Array
    table: Array
    fixed: Array
    names: tuple[str, ...]

    @classmethod
    def of(cls, costs: Sequence[Sequence[_Cost]], clock_mhz: float) -> _Work:
        """From the costs of each graph's operations."""
        numbered = [(index, cost) for index, graph in enumerate(costs) for cost in graph]
        named = [part.rate for _, cost in numbered for part in cost.parts if part.cycles > 0]
        names = tuple(dict.fromkeys([_DRAM, *sorted(named)]))
        return cls(
            clock_mhz=clock_mhz,
            graphs=len(costs),
            graph=np.array([index for index, _ in numbered]),
            parts=np.array([[part.cycles for part in cost.parts] for _, cost in numbered]),
            rates=np.array(
                [
                    [names.index(part.rate if part.cycles > 0 else _DRAM) for part in cost.parts]
                    for _, cost in numbered
                ]
            ),
            table=np.array([cost.table for _, cost in numbered]),
            fixed=np.array([cost.fixed for _, cost in numbered]),
            names=names,
        )

    def latency_ns(self, logarithms: Array) -> Array:
        """Latency of each graph with the rates multiplied by e to the power of `logarithms`."""
        factors = np.exp(logarithms)
        slowest = (self.parts / factors[self.rates]).max(axis=1)
        cycles = slowest + self.table / factors[self.names.index(_DRAM)] + self.fixed
        return np.bincount(self.graph, cycles, minlength=self.graphs) * 1e3 / self.clock_mhz


def base_profile(base: str, path: Path) -> Profile:
    """The profile that a fit starts from.

    Args:
        path: of the profile to write.

    Raises:
        TargetError: it is not analytic, has the name of what is to be written, or scipy is missing.
    """
    profile = load_profile(base)
    if profile.backend != "analytic":
        raise TargetError(
            f"--base {base}: its backend is '{profile.backend}'; only the rates of an analytic "
            "profile can be fitted, such as npu1; leave --base out for a table"
        )
    if path.stem == Path(base).stem:
        raise TargetError(f"{path}: has the name of its base; choose another output")
    _solver()
    return profile


def fit_npu(table: ProbeTable, kit: Kit, base: str, path: Path) -> Fit:
    """Fit the rates of an analytic profile and write it as one that extends the base.

    Raises:
        TargetError: the base does not fit, scipy is missing, or too few graphs can be used.
        DataError: no graph of the kit was measured.
    """
    profile = base_profile(base, path)
    rows, work, refused = _usable(table, kit, profile)
    measured = measured_ns(table, rows)

    def predict(known: Sequence[int], unknown: Sequence[int]) -> Array:
        return work.latency_ns(_fitted(work, measured, known))[list(unknown)]

    errors = cross_validate(rows, measured, predict)
    logarithms = _fitted(work, measured, list(range(len(rows))))
    at_base = work.latency_ns(np.zeros(len(work.names)))
    settings, changes = _scaled(profile, work.names, np.exp(logarithms))
    text = _profile_text(table, profile, base, path, changes)
    AnalyticBackend(profile.model_copy(update={"settings": settings}))
    write_text(path, text)
    return Fit(
        path,
        "analytic",
        len(rows),
        len(table.rows) - len(table.measured),
        table.call_ns,
        errors,
        error_rows(rows, np.abs(at_base / measured - 1)),
        changes,
        tuple(f"{count} graphs were left out: {reason}" for reason, count in refused.items()),
    )


def _solver() -> Any:
    """scipy's `least_squares`."""
    try:
        from scipy.optimize import least_squares
    except ImportError as error:
        raise TargetError(
            "to fit a profile needs scipy; pip install 'actcc[predict]', or leave --base out for "
            "a table"
        ) from error
    return least_squares


def _fitted(work: _Work, measured: Array, known: Sequence[int]) -> Array:
    """Logarithms of the rates' factors."""
    chosen = np.asarray(known, dtype=int)
    wanted = np.log(measured[chosen])
    bound = float(np.log(_LARGEST_FACTOR))
    unchanged = np.zeros(len(work.names))
    # What all graphs have in common says how much faster the device is than the base.
    common = float(np.median(np.log(work.latency_ns(unchanged)[chosen]) - wanted))
    start = np.full(len(work.names), np.clip(common, -0.9 * bound, 0.9 * bound))

    def residuals(logarithms: Array) -> Array:
        found = np.log(work.latency_ns(logarithms)[chosen]) - wanted
        return np.concatenate([found, _PULL * (logarithms - start)])

    found = _solver()(residuals, start, bounds=(-bound, bound), loss="soft_l1", f_scale=_OUTLIER)
    return np.asarray(found.x)


def _usable(
    table: ProbeTable, kit: Kit, profile: Profile
) -> tuple[list[ProbeRow], _Work, Counter[str]]:
    """The measured graphs that the base has a figure for, with it, and what was left out and why.

    Raises:
        DataError: there is none.
    """
    costing = _Costing(profile)
    rows: list[ProbeRow] = []
    costs: list[list[_Cost]] = []
    refused: Counter[str] = Counter()
    for row in training_rows(table):
        if row.hash not in kit.graphs:
            refused["they are not in the kit"] += 1
            continue
        try:
            found = costing.costs(kit.graph(row.hash))
        except ActccError:
            refused["the base cannot price them"] += 1
            continue
        if not any(cost.fixed or any(p.cycles for p in cost.parts) for cost in found):
            refused["nothing in them costs the base anything"] += 1
            continue
        rows.append(row)
        costs.append(found)
    if not rows:
        raise DataError(
            f"{table.path}: no graph of the kit was measured that '{profile.name}' can price; "
            "give the kit that it belongs to with --kit, or leave --base out for a table"
        )
    return rows, _Work.of(costs, costing.base.settings.clock_mhz), refused


class _Costing:
    """Tells the parts of an operation apart by making the other ones endlessly fast."""

    def __init__(self, profile: Profile) -> None:
        self.base = AnalyticBackend(profile)
        leaving_only, _ = _scaled(profile, _MULTIPLYING, np.full(len(_MULTIPLYING), _ENDLESS))
        multiplying_only, _ = _scaled(profile, ("output_elements_per_cycle",), np.array([_ENDLESS]))
        self._leaving = AnalyticBackend(profile.model_copy(update={"settings": leaving_only}))
        self._multiplying = AnalyticBackend(
            profile.model_copy(update={"settings": multiplying_only})
        )

    def costs(self, graph: Graph) -> list[_Cost]:
        """The cost of each operation of a graph."""
        runs = [
            backend.operations(graph) for backend in (self.base, self._multiplying, self._leaving)
        ]
        return [
            self._cost(operation, cycles, multiplying, leaving)
            for (operation, cycles), (_, multiplying), (_, leaving) in zip(*runs, strict=True)
        ]

    def _cost(
        self, operation: Operation, cycles: Cycles, multiplying: Cycles, leaving: Cycles
    ) -> _Cost:
        settings = self.base.settings
        if operation.kind == HOST:
            call = settings.host.cycles_per_call
            parts = (_Part("host", cycles.host - call), *[_NO_PART] * 4)
            return _Cost(parts, 0.0, call)
        # The operation before it hides a part of the table's latency.
        latency = min(settings.dram.latency_cycles, cycles.table)
        if operation.work is None:
            computing = (_Part(_rate(operation), cycles.compute), _NO_PART)
        else:
            computing = (
                _Part(_rate(operation), multiplying.compute),
                _Part("output_elements_per_cycle", leaving.compute),
            )
        beside = (
            _Part("lookup.fused_elements_per_cycle", cycles.lookup),
            _Part("sram.bytes_per_cycle", cycles.sram),
            _Part(_DRAM, cycles.dram),
        )
        # What no rate explains: results of the last block, commands.
        parts = (*computing, *beside)
        rest = max(cycles.total - cycles.table - max(part.cycles for part in parts), 0.0)
        return _Cost(parts, cycles.table - latency, latency + rest)


def _rate(operation: Operation) -> str:
    """The rate at which an operation computes."""
    if operation.work is not None:
        if operation.work.depthwise:
            return "macs_per_cycle.depthwise"
        return f"macs_per_cycle.{'matrix' if operation.kind == 'matrix' else 'convolution'}"
    if operation.kind == "pooling":
        return "pooling.elements_per_cycle"
    if operation.kind in ("lookup", "clamp", "join"):
        return _SEPARATE
    return f"elements_per_cycle.{operation.kind}"


def _scaled(
    profile: Profile, names: Sequence[str], factors: Array
) -> tuple[dict[str, Any], tuple[tuple[str, float, float], ...]]:
    """The profile's settings with some rates multiplied; and each with its old and new value."""
    settings: dict[str, Any] = copy.deepcopy(profile.settings)
    changes = []
    for name, factor in zip(names, factors, strict=True):
        for rate in _HOST_RATES if name == "host" else (name,):
            *sections, key = rate.split(".")
            section = settings
            for one in sections:
                section = section[one]
            before = float(section[key])
            section[key] = float(f"{before * factor:.6g}")
            changes.append((rate, before, section[key]))
    return settings, tuple(changes)


def _profile_text(
    table: ProbeTable,
    profile: Profile,
    base: str,
    path: Path,
    changes: Sequence[tuple[str, float, float]],
) -> str:
    parent = base
    if base.endswith(".toml"):
        parent = Path(os.path.relpath(Path(base).with_suffix(""), path.parent)).as_posix()
    lines = [
        f"# Made by `actcc probe fit` from {table.path.name}: the rates of {profile.name}, fitted.",
        f"extends = {quoted(parent)}",
        f"name = {quoted(path.stem)}",
        f"description = {quoted(f'{profile.name} fitted to {table.tool}')}",
    ]
    sections: dict[str, list[str]] = {"settings": []}
    for rate, before, after in changes:
        *section, key = ("settings", *rate.split("."))
        line = f"{key} = {after:.6g}  # {before:g} in {profile.name}"
        sections.setdefault(".".join(section), []).append(line)
    for name, entries in sections.items():
        lines += ["", f"[{name}]", *entries]
    return "\n".join(lines) + "\n"
