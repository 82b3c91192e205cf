"""Latencies of small graphs as a CSV file: what a probe kit measured on a device.

One row a graph, by its structure hash. The file stands by itself: each row says what was measured
with what, and holds the features from which a regression predicts graphs that are not in it.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from actcc.errors import TargetError

# What the runner writes; other columns are of no account here.
NEEDED = ("hash", "median_ns", "noise_ns", "status", "kit", "role", "features")
CALL = "call"
"""Role of the probe that does nothing: what it takes is a call's, and in every other figure too."""
MODEL = "model"
"""Role of the whole network."""
_AGAIN = "run the kit's run_probes.py again and take the file that it writes"


@dataclass(frozen=True)
class ProbeRow:
    """What was measured of one graph.

    Attributes:
        hash: of its structure.
        role: why it is in the kit: "keep", "candidate", "layer", "model" or "call".
        description: its operators and sizes, for people.
        latency_ns: median of one call; NaN where it failed.
        noise_ns: half width of the interval in which that median lies.
        against: hash of the graph that it was timed in turn with; empty if with none.
        difference_ns, difference_noise_ns: to that graph, round by round.
        reason: why it failed; empty if it did not.
        features: see `actcc.latency_models.probe_features`.
    """

    hash: str
    role: str
    description: str
    latency_ns: float
    noise_ns: float
    reason: str
    features: Mapping[str, float]
    against: str = ""
    difference_ns: float = math.nan
    difference_noise_ns: float = math.nan

    @property
    def measured(self) -> bool:
        """Whether there is a figure."""
        return not self.reason


@dataclass(frozen=True, eq=False)
class ProbeTable:
    """The rows of a CSV file; equal to itself only.

    Attributes:
        path: of the file.
        digest: first digits of the SHA-256 of its bytes.
        rows: by hash, in the file's order.
        kits: identities of the kits whose results are in it.
        tool: runtime, provider, threads and device, as the runner wrote them.
    """

    path: Path
    digest: str
    rows: Mapping[str, ProbeRow]
    kits: tuple[str, ...]
    tool: str

    @cached_property
    def measured(self) -> dict[str, ProbeRow]:
        """The rows that hold a figure."""
        return {key: row for key, row in self.rows.items() if row.measured}

    @cached_property
    def call_ns(self) -> float:
        """What a call of a graph that does nothing takes; 0 if that was not measured."""
        calls = [row.latency_ns for row in self.measured.values() if row.role == CALL]
        return calls[0] if calls else 0.0

    def difference(self, row: ProbeRow, base: ProbeRow) -> tuple[float, float]:
        """What one graph takes longer than another, and the half width of its interval, in ns."""
        if row.against == base.hash:
            return row.difference_ns, row.difference_noise_ns
        noise = math.hypot(row.noise_ns, base.noise_ns)
        return row.latency_ns - base.latency_ns, noise

    def work_ns(self, row: ProbeRow) -> float:
        """A row's latency without that of the call; above 0."""
        return max(row.latency_ns - self.call_ns, 0.01 * row.latency_ns)


def load_table(path: Path) -> ProbeTable:
    """Read what `run_probes.py` wrote.

    Raises:
        TargetError: the file is missing, is no such CSV, or no graph in it was measured.
    """
    try:
        data = path.read_bytes()
        text = data.decode("utf-8-sig")
    except FileNotFoundError as error:
        raise TargetError(
            f"{path}: no such file; `actcc probe kit` makes the kit whose runner writes it"
        ) from error
    except (OSError, UnicodeDecodeError) as error:
        raise TargetError(f"{path}: cannot be read ({error}); {_AGAIN}") from error
    lines = csv.DictReader(io.StringIO(text, newline=""))
    try:
        columns, entries = lines.fieldnames or [], list(lines)
    except csv.Error as error:
        raise TargetError(f"{path}: no CSV ({error}); {_AGAIN}") from error
    missing = [name for name in NEEDED if name not in columns]
    if missing:
        raise TargetError(f"{path}: has no column '{missing[0]}'; {_AGAIN}")
    rows = {}
    for number, entry in enumerate(entries, start=2):
        row = _row(path, number, entry)
        rows[row.hash] = row
    if not any(row.measured for row in rows.values()):
        why = next((f": {row.reason}" for row in rows.values()), "")
        raise TargetError(f"{path}: no graph in it was measured{why}; {_AGAIN}")
    kits = tuple(dict.fromkeys(entry["kit"] for entry in entries))
    return ProbeTable(path, hashlib.sha256(data).hexdigest()[:12], rows, kits, _tool(entries))


def _row(path: Path, number: int, entry: Mapping[str, str | None]) -> ProbeRow:
    failed = entry["status"] != "ok"
    try:
        latency = math.nan if failed else float(entry["median_ns"] or "")
        noise = math.nan if failed else float(entry["noise_ns"] or "")
        features = {str(k): float(v) for k, v in json.loads(entry["features"] or "").items()}
        if not failed and not (0 < latency < math.inf and 0 <= noise < math.inf):
            raise ValueError(f"{latency} ± {noise} ns is no latency")
        against = "" if failed else entry.get("against") or ""
        difference, difference_noise = math.nan, math.nan
        if against:
            difference = float(entry.get("difference_ns") or "")
            difference_noise = float(entry.get("difference_noise_ns") or "")
        if not entry["hash"]:
            raise ValueError("there is no hash")
    except (ValueError, AttributeError, TypeError) as error:
        raise TargetError(f"{path}: line {number} cannot be understood ({error}); {_AGAIN}") from (
            error
        )
    reason = (entry.get("reason") or "it failed") if failed else ""
    return ProbeRow(
        entry["hash"],
        entry["role"] or "",
        entry.get("description") or "",
        latency,
        noise,
        reason,
        features,
        against,
        difference,
        difference_noise,
    )


def _tool(entries: list[dict[str, str]]) -> str:
    names = ("runtime", "provider", "threads", "clock", "device")
    used = [", ".join(f"{entry.get(name) or '?'}" for name in names) for entry in entries]
    return " and ".join(dict.fromkeys(used))
