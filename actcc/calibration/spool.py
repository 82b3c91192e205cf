"""A temporary folder for samples, so that memory stays free and only a path travels."""

from __future__ import annotations

import pickle
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from actcc.calibration.sample import Sample
from actcc.errors import DataError

_MOST_BYTES = 16 << 30


class Spool:
    """A folder that is removed with the object that made it; copies in other processes read it."""

    def __init__(self) -> None:
        self._owner: tempfile.TemporaryDirectory[str] | None = tempfile.TemporaryDirectory(
            prefix="actcc-samples-", ignore_cleanup_errors=True
        )
        self.path = Path(self._owner.name)

    def __getstate__(self) -> dict[str, Any]:
        return {"_owner": None, "path": self.path}


class SpooledSamples:
    """A source of samples that were written to a spool one by one."""

    def __init__(
        self, samples: Iterable[Sample], source: str, most_bytes: int = _MOST_BYTES
    ) -> None:
        """Write all samples.

        Raises:
            DataError: there is none, they take more than `most_bytes`, or the disk is full.
        """
        self._spool = Spool()
        self._names: list[str] = []
        total = 0
        for sample in samples:
            total += sum(array.nbytes for array in sample.inputs.values())
            if total > most_bytes:
                raise DataError(
                    f"{source}: {len(self)} samples fill {most_bytes / 2**30:.3g} GiB and there "
                    "are more; limit their number with --samples"
                )
            self._write(sample, source)
            self._names.append(sample.name)
        if not self._names:
            raise DataError(f"{source}: no samples; it must give at least one")

    def _write(self, sample: Sample, source: str) -> None:
        try:
            with self._path(len(self)).open("wb") as file:
                pickle.dump(sample, file, protocol=pickle.HIGHEST_PROTOCOL)
        except OSError as error:
            raise DataError(
                f"{source}: the samples cannot be kept in {self._spool.path} ({error.strerror}); "
                "make room, or set TMPDIR to another folder"
            ) from error

    def _path(self, index: int) -> Path:
        return self._spool.path / f"{index:06d}.pickle"

    def __len__(self) -> int:
        return len(self._names)

    def name(self, index: int) -> str:
        """Name of sample `index`."""
        return self._names[index]

    def load(self, index: int) -> Sample:
        """Sample `index`; raises DataError where the temporary folder is gone."""
        try:
            with self._path(index).open("rb") as file:
                sample = pickle.load(file)
        except OSError as error:
            raise DataError(
                f"{self._path(index)}: the temporary sample is gone ({error.strerror}); "
                "keep the sample set alive, and TMPDIR untouched, while it is used"
            ) from error
        assert isinstance(sample, Sample)
        return sample
