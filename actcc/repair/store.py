"""Arrays that are kept in memory up to a limit, and in files of a temporary folder beyond it."""

from __future__ import annotations

import itertools
import tempfile
import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from actcc.errors import RepairError
from actcc.graph import Array


@dataclass(frozen=True, eq=False)
class Kept:
    """An array that a store keeps.

    Attributes:
        held: the array itself, where it is in memory.
        path: the file that holds it, where it is not.
        dtype: its type, which files of the types that NumPy does not know leave out.
    """

    held: Array | None
    path: Path | None
    dtype: np.dtype[Any]

    @property
    def values(self) -> Array:
        """The array; read-only and mapped from its file where it is not in memory."""
        if self.held is not None:
            return self.held
        assert self.path is not None
        # Mapped anew each time: a mapping holds a file open, of which there may be only so many.
        mapped = not self.dtype.hasobject
        found: Array = np.load(
            self.path, mmap_mode="r" if mapped else None, allow_pickle=not mapped
        )
        return found.view(self.dtype) if mapped else found


class TensorStore:
    """Keeps arrays; a context manager, on whose exit all are gone. Any thread may use it.

    Args:
        limit: bytes that may be in memory at once; what is beyond goes to the disk.

    Attributes:
        bytes: that are in memory now.
        most_bytes: that ever were.
        spilled_bytes: that were written to the disk so far.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._folder = tempfile.TemporaryDirectory(
            prefix="actcc-repair-", ignore_cleanup_errors=True
        )
        self.bytes = 0
        self.most_bytes = 0
        self.spilled_bytes = 0

    def __enter__(self) -> TensorStore:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def keep(self, values: Array) -> Kept:
        """Keep an array until it is dropped.

        Raises:
            RepairError: it has to go to the disk, which is full or gone.
        """
        with self._lock:
            fits = self.bytes + values.nbytes <= self._limit
            if fits:
                self.bytes += values.nbytes
                self.most_bytes = max(self.most_bytes, self.bytes)
            else:
                self.spilled_bytes += values.nbytes
        if fits:
            return Kept(values, None, values.dtype)
        return Kept(None, self._spilled(values), values.dtype)

    def drop(self, kept: Kept) -> None:
        """Forget an array; each once."""
        if kept.held is not None:
            with self._lock:
                self.bytes -= kept.held.nbytes
        elif kept.path is not None:
            try:
                kept.path.unlink(missing_ok=True)
            except PermissionError:
                # Windows, while a mapping is still held: the file goes with the folder.
                return

    def close(self) -> None:
        """Forget everything; nothing that was spilled can be read any longer."""
        self._folder.cleanup()
        self.bytes = 0

    def _spilled(self, values: Array) -> Path:
        path = Path(self._folder.name) / f"{next(self._numbers)}.npy"
        try:
            np.save(path, values, allow_pickle=values.dtype.hasobject)
        except OSError as error:
            raise RepairError(
                f"{path}: a tensor cannot be spilled to the disk ({error.strerror}); make room, "
                "set TMPDIR to another folder, or raise --repair-memory"
            ) from error
        return path
