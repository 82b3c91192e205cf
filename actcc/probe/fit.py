"""A target from what a kit's runner wrote: a table, or an NPU's profile with rates that fit."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from actcc.errors import DataError, TargetError
from actcc.graph import Array
from actcc.graph.files import write_text
from actcc.latency_models.probe_regression import (
    LatencyRegression,
    boosted_trees,
    training_rows,
)
from actcc.latency_models.probe_table import ProbeRow, ProbeTable, load_table
from actcc.output import check_output
from actcc.probe.kit import Kit, find_kit, read_kit

Kind = Literal["table", "analytic"]
FOLDS = 5
_LEAST_PROBES = 10
_SEED = 0

Predict = Callable[[Sequence[int], Sequence[int]], Array]
"""From the numbers of the rows that are known and of those that are not to the latter's latency."""


@dataclass(frozen=True)
class ErrorRow:
    """Error of predictions for graphs that were held out, as a share of what was measured.

    Attributes:
        kind: of graphs: "all", or a role.
        count: of graphs.
        median, percentile_90: of the error's magnitude.
    """

    kind: str
    count: int
    median: float
    percentile_90: float


@dataclass(frozen=True)
class Fit:
    """A target that was made.

    Attributes:
        path: of the profile.
        kind: what it prices by.
        measured, failed: graphs of the CSV.
        call_ns: what a call takes that does nothing.
        errors: cross-validated, by role; empty where there was nothing to validate it with.
        base_errors: of the profile that it began from; empty for a table.
        changes: rates with what they were and what they are, for an NPU.
        notes: what else the user should know, a sentence each.
    """

    path: Path
    kind: Kind
    measured: int
    failed: int
    call_ns: float
    errors: tuple[ErrorRow, ...]
    base_errors: tuple[ErrorRow, ...] = ()
    changes: tuple[tuple[str, float, float], ...] = ()
    notes: tuple[str, ...] = ()


def fit_target(
    results: str | Path,
    output: str | Path,
    *,
    base: str | None = None,
    kind: Kind | None = None,
    kit: str | Path | None = None,
    predict: bool = False,
) -> Fit:
    """Make a target profile from a CSV and say how far it is to be trusted.

    Args:
        results: the CSV; a table refers to it by its path from the profile.
        base: name or path of an analytic profile whose rates are fitted.
        kind: None for "analytic" where a base is given, else "table".
        kit: the kit that the CSV belongs to; None looks for its zip file beside the CSV and in the
            current folder. Only "analytic" needs it.
        predict: whether a table predicts what is not in it.

    Raises:
        TargetError: the CSV, the base or the installed libraries do not fit.
        DataError: the kit is missing, or is another one.
    """
    chosen, path = check_fit(output, results, kit, base=base, kind=kind, predict=predict)
    table = load_table(Path(results))
    if chosen == "table":
        return _fit_table(table, path, predict)
    from actcc.probe.npu_fit import fit_npu

    return fit_npu(table, _kit_of(table, kit), base or "", path)


def check_fit(
    output: str | Path, *inputs: object, base: str | None, kind: Kind | None, predict: bool
) -> tuple[Kind, Path]:
    """What a fit makes, and where: all that can be refused before anything is measured.

    Args:
        inputs: files that it reads, beside the base.

    Raises:
        TargetError: the arguments do not go together, the base cannot be fitted, or a library that
            is needed is not installed.
        ModelError: the output cannot be written, or is an input.
    """
    chosen: Kind = kind or ("table" if base is None else "analytic")
    if chosen == "analytic" and base is None:
        raise TargetError("--as analytic needs a profile to start from; give --base npu1")
    if chosen == "table" and base is not None:
        raise TargetError("--as table starts from no profile; leave --base out")
    if Path(output).suffix != ".toml":
        raise TargetError(f"{output}: a target profile is a .toml file; choose such a name")
    path = check_output(output, *inputs, base)
    if base is not None:
        from actcc.probe.npu_fit import base_profile

        base_profile(base, path)
    elif predict:
        boosted_trees()
    return chosen, path


def _kit_of(table: ProbeTable, kit: str | Path | None) -> Kit:
    if kit is None:
        found = find_kit(table.kits, table.path.parent, Path())
        if found is None:
            raise DataError(
                f"{table.path}: the kit '{table.kits[0]}' that it was measured with is not beside "
                "it; give it with --kit"
            )
        return found
    found = read_kit(Path(kit))
    if found.identity not in table.kits:
        raise DataError(
            f"{table.path}: was measured with the kit '{table.kits[0]}' and not with {kit} "
            f"('{found.identity}'); give the kit that it belongs to"
        )
    return found


def _fit_table(table: ProbeTable, path: Path, predict: bool) -> Fit:
    rows = training_rows(table)
    notes: list[str] = []
    errors: tuple[ErrorRow, ...] = ()
    try:
        errors = cross_validate(rows, measured_ns(table, rows), table_prediction(table, rows))
    except TargetError as error:
        if predict:
            raise
        notes.append(f"not cross-validated: {error}")
    write_text(path, table_profile(table, path, predict))
    failed = len(table.rows) - len(table.measured)
    return Fit(
        path, "table", len(table.measured), failed, table.call_ns, errors, notes=tuple(notes)
    )


def table_profile(table: ProbeTable, path: Path, predict: bool) -> str:
    """The text of a table's profile."""
    where = os.path.relpath(table.path.resolve(), path.parent.resolve()).replace(os.sep, "/")
    return (
        f"# Made by `actcc probe fit` from {table.path.name}.\n"
        f"name = {quoted(path.stem)}\n"
        f"description = {quoted(f'{len(table.measured)} probes, {table.tool}')}\n"
        'backend = "table"\n'
        "\n[settings]\n"
        "# From this file's folder.\n"
        f"table = {quoted(where)}\n"
        "# Whether what is not in the table is predicted from it (pip install 'actcc[predict]').\n"
        f"predict = {'true' if predict else 'false'}\n"
    )


def quoted(text: str) -> str:
    """A TOML string."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return '"' + "".join(c if c.isprintable() else " " for c in escaped) + '"'


def measured_ns(table: ProbeTable, rows: Sequence[ProbeRow]) -> Array:
    """Latencies without the call's, [n]."""
    return np.array([table.work_ns(row) for row in rows])


def table_prediction(table: ProbeTable, rows: Sequence[ProbeRow]) -> Predict:
    """The regression of `actcc.latency_models.probe_regression`, on some of the rows."""
    features = [row.features for row in rows]
    latency = measured_ns(table, rows)

    def predict(known: Sequence[int], unknown: Sequence[int]) -> Array:
        model = LatencyRegression([features[i] for i in known], latency[list(known)])
        return model.predict([features[i] for i in unknown]).latency_ns

    return predict


def cross_validate(
    rows: Sequence[ProbeRow], measured: Array, predict: Predict
) -> tuple[ErrorRow, ...]:
    """Error of five-fold cross-validation over distinct graphs, for all and by role.

    Raises:
        TargetError: there are too few graphs.
    """
    if len(rows) < _LEAST_PROBES:
        raise TargetError(
            f"{len(rows)} measured graphs are too few to fit to; measure at least {_LEAST_PROBES}"
        )
    errors = np.zeros(len(rows))
    for known, unknown in _folds(len(rows)):
        errors[unknown] = np.abs(predict(known, unknown) / measured[unknown] - 1)
    return error_rows(rows, errors)


def error_rows(rows: Sequence[ProbeRow], errors: Array) -> tuple[ErrorRow, ...]:
    """Median and 90th percentile of errors, for all rows and by role."""
    roles = [row.role for row in rows]
    chosen: dict[str, Any] = {"all": np.ones(len(rows), dtype=bool)}
    for role in dict.fromkeys(roles):
        chosen[role] = np.array([one == role for one in roles])
    return tuple(
        ErrorRow(
            kind,
            int(of.sum()),
            float(np.median(errors[of])),
            float(np.quantile(errors[of], 0.9)),
        )
        for kind, of in chosen.items()
    )


def _folds(count: int) -> Iterator[tuple[list[int], list[int]]]:
    shuffled = np.random.default_rng(_SEED).permutation(count)
    for held_out in np.array_split(shuffled, FOLDS):
        unknown = set(held_out.tolist())
        yield [i for i in range(count) if i not in unknown], sorted(unknown)
