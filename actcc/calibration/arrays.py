"""Arrays of samples: `.npz`, `.npy`, or in memory; the first axis counts the samples."""

from __future__ import annotations

import shutil
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from actcc.calibration.model_input import ModelInput, describe_array, format_shape
from actcc.calibration.sample import Sample
from actcc.calibration.spool import Spool
from actcc.errors import DataError
from actcc.graph import Array


@dataclass(frozen=True)
class _Column:
    """One array of the file.

    Attributes:
        file: `.npy`, mapped into memory when a sample is read.
        keeps_axis: a sample is [1, ...], not [...].
        shared: a single value that every sample has.
    """

    file: Path
    keeps_axis: bool
    shared: bool = False

    def rows(self) -> Array:
        """The array, mapped and not read."""
        array: Array = np.load(self.file, mmap_mode="r", allow_pickle=False)
        return array

    def sample(self, index: int) -> Array:
        """What belongs to one sample, as an array of its own."""
        rows = self.rows()
        if self.shared:
            return np.array(rows)
        return np.array(rows[index : index + 1] if self.keeps_axis else rows[index])


class ArraySamples:
    """A source of samples: row `index` of every array."""

    def __init__(
        self,
        name: str,
        files: Mapping[str, Path],
        inputs: Mapping[str, ModelInput],
        spool: Spool | None = None,
    ) -> None:
        """Match arrays to inputs and check them all.

        Args:
            name: of the source, for messages and sample names.
            files: `.npy` files by array name.
            spool: the temporary folder that holds them, to keep it.

        Raises:
            DataError: an array is missing, does not fit its input, or holds NaN or infinity.
        """
        self._name = name
        self._spool = spool
        self._inputs = dict(inputs)
        bound = _bind(name, files, inputs)
        self._columns = {
            key: _column(name, array, files[array], inputs[key]) for key, array in bound.items()
        }
        self._count = _count(name, self._columns)
        self._annotations = {
            key: _annotation(name, key, path, self._count)
            for key, path in files.items()
            if key not in bound.values()
        }
        for key, entry in self._inputs.items():
            for index in range(self._count):
                entry.check_values(self._columns[key].sample(index), f"{name}#{index}")

    def __len__(self) -> int:
        return self._count

    def name(self, index: int) -> str:
        """`<source>#<row>`."""
        return f"{self._name}#{index}"

    def load(self, index: int) -> Sample:
        """Row `index`; raises DataError where the file is gone."""
        where = self.name(index)
        try:
            inputs = {
                key: entry.check_values(self._columns[key].sample(index), where)
                for key, entry in self._inputs.items()
            }
            annotations = {key: found.sample(index) for key, found in self._annotations.items()}
        except (OSError, ValueError, IndexError) as error:
            raise DataError(
                f"{where}: cannot be read any more ({error}); leave the file as it is during a run"
            ) from error
        return Sample(where, inputs, annotations)


def _bind(name: str, files: Mapping[str, Path], inputs: Mapping[str, ModelInput]) -> dict[str, str]:
    """Name of the array for each input."""
    if len(files) == 1 and len(inputs) == 1:
        return {next(iter(inputs)): next(iter(files))}
    missing = [key for key in inputs if key not in files]
    if missing:
        held = ", ".join(f"'{key}'" for key in files) or "nothing"
        raise DataError(
            f"{name}: no array is named like the model's input '{missing[0]}' "
            f"({inputs[missing[0]]} per sample); it holds {held}; name the arrays like the inputs"
        )
    return {key: key for key in inputs}


def _column(name: str, array_name: str, file: Path, entry: ModelInput) -> _Column:
    rows = _Column(file, keeps_axis=True).rows()
    if entry.accepts_type(rows.dtype):
        if entry.takes_one and rows.ndim and entry.accepts(rows.shape[1:], skip=1):
            return _Column(file, keeps_axis=True)
        if rows.ndim and entry.accepts(rows.shape[1:]):
            return _Column(file, keeps_axis=False)
        if rows.ndim == 0 and not entry.shape:
            return _Column(file, keeps_axis=False, shared=True)
    wanted = ("N", *entry.shape[1:]) if entry.takes_one else ("N", *entry.shape)
    raise DataError(
        f"{name}: '{array_name}' is {describe_array(rows)}, the model expects {entry} per sample; "
        f"{entry.remedy(rows.dtype)}, all samples as {format_shape(wanted)}"
    )


def _count(name: str, columns: Mapping[str, _Column]) -> int:
    counts = {key: len(c.rows()) for key, c in columns.items() if not c.shared}
    if not counts:
        raise DataError(f"{name}: no array counts the samples; give at least one with a first axis")
    if len(set(counts.values())) > 1:
        said = ", ".join(f"'{key}' {count}" for key, count in counts.items())
        raise DataError(f"{name}: the inputs have different numbers of samples: {said}; make equal")
    count = next(iter(counts.values()))
    if count == 0:
        raise DataError(f"{name}: the arrays hold 0 samples; give at least one")
    return count


def _annotation(name: str, key: str, file: Path, count: int) -> _Column:
    rows = _Column(file, keeps_axis=False).rows()
    if rows.ndim == 0 or len(rows) != count:
        raise DataError(
            f"{name}: '{key}' is no input of the model, and as an annotation it is "
            f"{describe_array(rows)}, not a row for each of {count} samples; rename or remove it"
        )
    return _Column(file, keeps_axis=False)


def from_npz(path: Path, inputs: Mapping[str, ModelInput]) -> ArraySamples:
    """The samples of an `.npz`, unpacked to a temporary folder, from where rows are mapped.

    Raises:
        DataError: the file cannot be read, or its arrays do not fit.
    """
    spool = Spool()
    files: dict[str, Path] = {}
    try:
        with zipfile.ZipFile(path) as archive:
            for number, member in enumerate(archive.infolist()):
                unpacked = spool.path / f"{number}.npy"
                with archive.open(member) as packed, unpacked.open("wb") as copy:
                    shutil.copyfileobj(packed, copy, 1 << 20)
                files[member.filename.removesuffix(".npy")] = unpacked
    except (OSError, EOFError, ValueError, zipfile.BadZipFile, zlib.error, RuntimeError) as error:
        raise DataError(f"{path}: not a readable .npz ({error}); write it with np.savez") from error
    for key, file in files.items():
        _check_readable(f"{path}: '{key}'", file)
    return ArraySamples(path.name, files, inputs, spool)


def from_npy(path: Path, inputs: Mapping[str, ModelInput]) -> ArraySamples:
    """The samples of an `.npy`, for a model with one input.

    Raises:
        DataError: the file cannot be read, does not fit, or the model has several inputs.
    """
    _check_readable(f"{path}:", path)
    if len(inputs) != 1:
        names = ", ".join(inputs)
        raise DataError(
            f"{path}: one array, and the model has {len(inputs)} inputs ({names}); give an .npz "
            "with an array for each"
        )
    return ArraySamples(path.name, {path.stem: path.resolve()}, inputs)


def from_memory(arrays: Mapping[str, Any], inputs: Mapping[str, ModelInput]) -> ArraySamples:
    """Samples from arrays by name, written to a temporary folder.

    Raises:
        DataError: something is no array of numbers or strings, or does not fit.
    """
    spool = Spool()
    files: dict[str, Path] = {}
    for number, (key, value) in enumerate(arrays.items()):
        if not isinstance(value, np.ndarray):
            kind = type(value).__name__
            raise DataError(f"arrays: '{key}' is a {kind}; give numpy arrays by input name")
        files[key] = spool.path / f"{number}.npy"
        try:
            np.save(files[key], value, allow_pickle=False)
        except (ValueError, OSError) as error:
            raise DataError(f"arrays: '{key}' cannot be kept ({error}); give numbers") from error
    return ArraySamples("arrays", files, inputs, spool)


def _check_readable(subject: str, file: Path) -> None:
    try:
        np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, EOFError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise DataError(
            f"{subject} cannot be read ({reason}); write plain arrays of numbers with numpy"
        ) from error
