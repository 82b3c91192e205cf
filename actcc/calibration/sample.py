"""Samples, and ordered sets of them that load one at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, overload

import numpy as np

from actcc.errors import DataError
from actcc.graph import Array


@dataclass(frozen=True, eq=False)
class Sample:
    """One sample.

    Attributes:
        name: unique in its set: a path below the image folder, or `<source>#<number>`.
        inputs: what a session is fed, by input name, batch axis included.
        annotations: what a metric may want to know of it. Samples of an image folder have
            `image_size` [2] (height, width of the image in pixels) and `placement` [4] (top,
            left, height, width of the image inside the input, in input pixels).
    """

    name: str
    inputs: dict[str, Array]
    annotations: dict[str, Array]


class SampleSource(Protocol):
    """Where samples come from; pickled to worker processes, so it holds paths and not arrays."""

    def __len__(self) -> int:
        """Number of samples."""

    def name(self, index: int) -> str:
        """Name of sample `index`, without loading it."""

    def load(self, index: int) -> Sample:
        """Sample `index`; raises DataError where it cannot be read or does not fit."""


@dataclass(frozen=True, eq=False)
class SampleSet(Sequence[Sample]):
    """Samples in order, loaded when they are asked for.

    Attributes:
        source: what they are and where they come from, for reports.
        loader: loads them.
        indices: which of the loader's samples belong to the set.
    """

    source: str
    loader: SampleSource = field(repr=False)
    indices: tuple[int, ...] = field(repr=False)

    def __len__(self) -> int:
        return len(self.indices)

    @overload
    def __getitem__(self, index: int) -> Sample: ...
    @overload
    def __getitem__(self, index: slice) -> SampleSet: ...
    def __getitem__(self, index: int | slice) -> Sample | SampleSet:
        if isinstance(index, slice):
            return replace(self, indices=self.indices[index])
        return self.loader.load(self.indices[index])

    def __iter__(self) -> Iterator[Sample]:
        for index in self.indices:
            yield self.loader.load(index)

    @property
    def names(self) -> list[str]:
        """Names of the samples, in order; nothing is loaded."""
        return [self.loader.name(index) for index in self.indices]

    def take(self, count: int) -> SampleSet:
        """The first `count` samples, or all where there are fewer.

        Raises:
            DataError: `count` is below 1.
        """
        if count < 1:
            raise DataError(f"{self.source}: {count} samples asked for; ask for at least 1")
        return self[:count]

    def choose(self, count: int, seed: int) -> SampleSet:
        """`count` samples drawn without repetition, in their own order; all if there are fewer.

        Raises:
            DataError: `count` is below 1.
        """
        if count >= len(self):
            return self
        drawn = np.random.default_rng(seed).permutation(len(self))[:count]
        ordered = tuple(self.indices[position] for position in sorted(drawn))
        return replace(self.take(count), indices=ordered)

    def split(self, held_out_fraction: float, seed: int) -> tuple[SampleSet, SampleSet]:
        """Calibration and held-out samples, drawn by `seed`, each in their own order.

        At least one sample lands on each side, unless the fraction is 0.

        Raises:
            DataError: the fraction is not in [0, 1), or there is only one sample to split.
        """
        if not 0 <= held_out_fraction < 1:
            raise DataError(
                f"a held-out fraction of {held_out_fraction} is not in [0, 1); 0.5 holds out half"
            )
        if held_out_fraction == 0:
            return self, replace(self, indices=())
        if len(self) < 2:
            raise DataError(
                f"{self.source}: {len(self)} sample cannot be split into calibration and held-out "
                "samples; give at least 2, better a few dozen"
            )
        held = min(max(round(held_out_fraction * len(self)), 1), len(self) - 1)
        drawn = np.random.default_rng(seed).permutation(len(self))
        parts = (
            tuple(self.indices[position] for position in sorted(part))
            for part in (drawn[held:], drawn[:held])
        )
        calibration, held_out = (replace(self, indices=part) for part in parts)
        return calibration, held_out


class Remembered:
    """A source whose first loaded samples stay in memory, up to a limit, in this process.

    Samples are read in order again and again, where the first ones kept serve better than the
    last ones used. What is kept does not travel to other processes, and is read-only.
    """

    def __init__(self, source: SampleSource, limit_bytes: int) -> None:
        self._source = source
        self._limit_bytes = limit_bytes
        self._kept: dict[int, Sample] = {}
        self._kept_bytes = 0

    def __len__(self) -> int:
        return len(self._source)

    def __reduce__(self) -> tuple[Any, ...]:
        return Remembered, (self._source, self._limit_bytes)

    def name(self, index: int) -> str:
        """Name of sample `index`."""
        return self._source.name(index)

    def load(self, index: int) -> Sample:
        """Sample `index`."""
        if index not in self._kept:
            sample = self._source.load(index)
            size = sum(array.nbytes for array in sample.inputs.values())
            if self._kept_bytes + size > self._limit_bytes:
                return sample
            for array in sample.inputs.values():
                array.flags.writeable = False
            self._kept[index] = sample
            self._kept_bytes += size
        return self._kept[index]
