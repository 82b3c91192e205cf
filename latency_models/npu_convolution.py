"""How long a convolution takes on an NPU, and what it reads.

Vela 5.2, ethos_u55_performance.cpp: EstimateMacOpCycles and MeasureElementAccess.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

from actcc.graph.macs import Contraction
from actcc.latency_models.npu_blocks import (
    Block,
    Layer,
    block_counts,
    choose_block,
    round_up,
    summed,
)
from actcc.latency_models.npu_maps import Access, FeatureMap, block_cycles, moved_bytes
from actcc.latency_models.npu_settings import NpuSettings

_SCALES_AT_ONCE = 256  # bytes


@dataclass(frozen=True)
class Convolution:
    """A convolution or matrix product, for one group.

    Attributes:
        work: of all groups.
        matrix: whether it is a matrix product.
        lookup: whether its results go through a table.
        source, result: the feature maps.
    """

    work: Contraction
    matrix: bool
    lookup: bool
    source: FeatureMap
    result: FeatureMap
    settings: NpuSettings

    @cached_property
    def layer(self) -> Layer:
        """The layer as the device sees it."""
        return Layer.of(self.work)

    @cached_property
    def block(self) -> Block:
        """A piece of the output."""
        return choose_block(self.layer, self.settings.blocks)

    @property
    def repeats(self) -> int:
        """How many layers it takes: one for each group, and the batch one after the other."""
        return self.work.batch * (1 if self.work.depthwise else self.work.groups)

    @property
    def refetches(self) -> int:
        """How often the weights are read: once for each piece of the plane."""
        down, across, _ = block_counts(self.layer, self.block)
        return down * across

    def read_elements(self, channels: int) -> float:
        """Elements that are read of the input for so many channels of the output."""
        layer, block = self.layer, self.block
        rows, columns = self._input_block
        fetched = rows * columns * self.source.stored_channels(self.settings) * self.refetches
        fetched *= layer.layings
        return fetched * (1 if layer.each else math.ceil(channels / block.channels))

    def transfers(self) -> tuple[float, float]:
        """Bytes that are moved for the input and for the output."""
        channels = self.layer.outputs
        read = moved_bytes(self.source, self.read_elements(channels), self._reading, self.settings)
        written = self.result.stored(self.settings)
        return read, moved_bytes(self.result, written, self._writing, self.settings)

    def cycles(
        self,
        channels: int,
        *,
        staged: bool = False,
        lookup: bool = True,
        first: bool = True,
        last: bool = True,
    ) -> float:
        """Cycles for so many channels of the output.

        Args:
            staged: whether scales and weights come from the SRAM.
            lookup: whether the results go through the table, if they do at all.
            first, last: whether no other channels were computed before, or will be after.
        """
        layer, block, blocks = self.layer, self.block, self.settings.blocks
        rows, columns = min(block.rows, layer.rows), min(block.columns, layer.columns)
        depth = min(block.channels, channels)
        together = self._positions(rows, columns)
        share = together * round_up(depth, blocks.output_channels)
        count = self._positions(layer.rows, layer.columns)
        count *= round_up(channels, blocks.output_channels)
        blocks_run = count / share
        products = max(together, blocks.least_positions) * summed(layer, blocks)
        products *= round_up(depth, blocks.output_channels)
        multiplying = products / (self._rate * self.settings.cores)
        leaving = max(
            self._leaving(rows * columns * depth, lookup=lookup), self._scaling(depth, staged)
        )
        reading = block_cycles(self.source, self._first_input, self._reading, self.settings)
        writing = block_cycles(self.result, rows * columns * depth, self._writing, self.settings)
        waiting = abs(writing - reading) if blocks_run > 1 else 0.0
        commanding = (waiting + multiplying + leaving) / blocks.in_flight
        multiplying, leaving = max(multiplying, commanding), max(leaving, commanding)
        if multiplying > leaving:
            total = multiplying * blocks_run + (leaving if last else 0.0)
        else:
            total = leaving * blocks_run + multiplying
        return total + (reading if first else 0.0) + (writing if last else 0.0)

    def _positions(self, rows: int, columns: int) -> int:
        blocks = self.settings.blocks
        layer = self.layer
        if layer.rows == 1 and layer.kernel[0] == 1 and layer.columns % 2 == 0 and not layer.each:
            return round_up(columns, blocks.rows * blocks.columns)
        return round_up(rows, blocks.rows) * round_up(columns, blocks.columns)

    @property
    def _rate(self) -> float:
        rates = self.settings.macs_per_cycle
        if self.work.depthwise:
            return rates.depthwise
        return rates.matrix if self.matrix else rates.convolution

    def _leaving(self, elements: int, *, lookup: bool) -> float:
        rate = self.settings.output_elements_per_cycle
        if lookup and self.lookup:
            rate = min(rate, self.settings.lookup.fused_elements_per_cycle)
        return elements / (rate * self.settings.cores)

    def _scaling(self, channels: int, staged: bool) -> float:
        settings = self.settings
        latency = settings.sram.latency_cycles if staged else settings.dram.latency_cycles
        return settings.weights.bytes_per_channel * channels * latency / _SCALES_AT_ONCE

    @property
    def _input_block(self) -> tuple[int, int]:
        block = self.block
        return min(block.input_rows, self.source.rows), min(
            block.input_columns, self.source.columns
        )

    @property
    def _first_input(self) -> int:
        """Elements of the input that one step of a block reads."""
        return math.prod(self._input_block) * min(self.block.input_channels, self.layer.inputs)

    @property
    def _reading(self) -> Access:
        return Access(self.block.input_columns, self.block.input_channels, reading=True)

    @property
    def _writing(self) -> Access:
        return Access(self.block.columns, self.block.channels, reading=False)
