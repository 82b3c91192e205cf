"""How a feature map lies in memory, and what moving it costs.

Inside a network it is made of bricks of 16 channels (NHCWB16), so that a row of a block lies side
by side. Where the host, a constant or another shape meets it, it lies as it is (NHWC), and only the
channels of a block lie side by side. Both memories move whole bursts: Vela 5.2,
ethos_u55_performance.cpp, EstimateMemoryTransfer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from actcc.latency_models.npu_settings import Dram, NpuSettings, Sram

_LARGEST_WRITE = 4  # bricks of one core's burst
_LEAST_DEPTH, _SHALLOW, _FEW = 16, 8, 16


@dataclass(frozen=True)
class FeatureMap:
    """A tensor as an operation sees it.

    Attributes:
        rows, columns, channels: the batch counts as rows.
        linear: it lies in the host's layout, without bricks.
        outside: it lies outside the chip.
    """

    rows: int
    columns: int
    channels: int
    linear: bool = False
    outside: bool = False

    @property
    def elements(self) -> int:
        """Numbers in it."""
        return self.rows * self.columns * self.channels

    def stored(self, settings: NpuSettings) -> int:
        """Elements with those that fill up the last brick."""
        return self.rows * self.columns * self.stored_channels(settings)

    def stored_channels(self, settings: NpuSettings) -> int:
        """Channels with those that fill up the last brick."""
        return self.channels if self.linear else _up(self.channels, settings.blocks.stored_channels)

    def memory(self, settings: NpuSettings) -> Sram | Dram:
        """The memory that holds it."""
        return settings.dram if self.outside else settings.sram


@dataclass(frozen=True)
class Access:
    """A block of a feature map that is read or written at once."""

    columns: int
    channels: int
    reading: bool


def plane(shape: Sequence[int], order: Sequence[int]) -> tuple[int, int, int]:
    """Rows, columns and channels of a tensor whose axes lie in that order."""
    dims = [1, 1, 1, *(shape[axis] for axis in order)]
    return math.prod(dims[:-2]), dims[-2], dims[-1]


def deepened(rows: int, columns: int, channels: int) -> tuple[int, int, int]:
    """The shape in which a tensor of few channels goes through an element-wise operation.

    Vela 5.2, scheduler_packing.cpp and ReshapeToIncreaseDepth: the smallest prime factors make
    channels, the rest columns and rows.
    """
    elements = rows * columns * channels
    if channels >= _SHALLOW or elements <= _FEW:
        return rows, columns, channels
    depth, width, height = 1, 1, 1
    for factor in _prime_factors(elements):
        if depth < _LEAST_DEPTH:
            depth *= factor
        elif width < height:
            width *= factor
        else:
            height *= factor
    return max(height, width), min(height, width), depth


def moved_bytes(seen: FeatureMap, elements: float, access: Access, settings: NpuSettings) -> float:
    """Bytes that a memory moves for so many elements, those of cut bursts with them."""
    memory, size = seen.memory(settings), settings.bytes_per_element
    return elements * size * max(memory.burst_bytes / _run(seen, access, settings), 1.0)


def block_cycles(seen: FeatureMap, elements: float, access: Access, settings: NpuSettings) -> float:
    """Cycles from the request of a block to its last byte."""
    memory = seen.memory(settings)
    latency = memory.latency_cycles if access.reading else memory.write_latency_cycles
    return latency + moved_bytes(seen, elements, access, settings) / memory.bytes_per_cycle


def _run(seen: FeatureMap, access: Access, settings: NpuSettings) -> float:
    """Bytes that lie side by side."""
    blocks, size = settings.blocks, settings.bytes_per_element
    cores = 1 if access.reading else settings.cores
    if not seen.linear:
        return blocks.stored_channels * size * access.columns * cores
    whole = access.channels == seen.channels
    if whole and (access.reading or access.channels <= blocks.stored_channels):
        return access.channels * access.columns * size
    if access.reading:
        return access.channels * size
    largest = min(_LARGEST_WRITE * blocks.interface_bytes, blocks.interface_bytes * cores)
    return min(largest, access.channels * size)


def _prime_factors(value: int) -> list[int]:
    found, factor = [], 2
    while factor * factor <= value:
        while value % factor == 0:
            found.append(factor)
            value //= factor
        factor += 1
    return [*found, value] if value > 1 else found


def _up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
