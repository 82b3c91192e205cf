"""What a run has found so far, kept line by line, so that `--resume` need not find it again.

A journal belongs to one run: its key covers the model, the data, the metric, the target and every
setting. An interrupted run leaves it in the cache folder; a run that ends takes it away.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from actcc.calibration import SampleSet
from actcc.price_cache import default_cache_path

_FOLDER = "runs"
_OLDEST_S = 30 * 24 * 3600.0


@dataclass
class Journal:
    """Findings by name; JSON values.

    Attributes:
        path: None keeps nothing on disk.
        known: what an earlier, interrupted run of the same kind has found.
    """

    path: Path | None = None
    known: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def open(cls, key: str, *, resume: bool) -> Journal:
        """The journal of a run: continued, or begun anew."""
        folder = default_cache_path().parent / _FOLDER
        path = folder / f"{key}.jsonl"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            _remove_old(folder)
            known = _read(path) if resume else {}
            if not resume:
                path.unlink(missing_ok=True)
        except OSError:  # a place that cannot be written is done without
            return cls()
        return cls(path, known)

    def record(self, name: str, value: Any) -> None:
        """Keep a finding; it is on disk when this returns."""
        if self.path is None:
            return
        line = json.dumps([name, value]) + "\n"
        try:
            with self.path.open("a", encoding="utf-8") as stream:
                stream.write(line)
        except OSError:
            self.path = None

    def discard(self) -> None:
        """The run has come to its end: nothing is left to resume."""
        if self.path is not None:
            with contextlib.suppress(OSError):
                self.path.unlink(missing_ok=True)


def run_key(settings: Mapping[str, Any], *sets: SampleSet | None) -> str:
    """The key of a run.

    Args:
        settings: everything that decides what it finds, as values with a stable text.
        sets: its data, of which every value counts, annotations included.
    """
    digest = hashlib.sha256(repr(sorted(settings.items())).encode())
    for samples in sets:
        digest.update(b"-" if samples is None else _identity(samples))
    return digest.hexdigest()


def _identity(samples: SampleSet) -> bytes:
    digest = hashlib.sha256()
    for sample in samples:
        digest.update(sample.name.encode())
        for part in (sample.inputs, sample.annotations):
            for name, values in part.items():
                digest.update(f"{name} {values.dtype} {values.shape}".encode())
                # Text has no bytes of its own, only addresses of its objects.
                digest.update(
                    repr(values.tolist()).encode() if values.dtype.hasobject else values.tobytes()
                )
    return digest.digest()


def _read(path: Path) -> dict[str, Any]:
    """All whole lines; the last may have been cut short."""
    known: dict[str, Any] = {}
    if not path.exists():
        return known
    for line in path.read_text(encoding="utf-8").splitlines():
        with contextlib.suppress(ValueError):
            name, value = json.loads(line)
            known[name] = value
    return known


def _remove_old(folder: Path) -> None:
    for path in folder.glob("*.jsonl"):
        if time.time() - os.path.getmtime(path) > _OLDEST_S:
            path.unlink(missing_ok=True)
