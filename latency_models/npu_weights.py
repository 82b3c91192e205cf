"""Weights on their way from the memory outside to the multipliers.

They are read once for each piece of the plane. Where that would take longer from outside, they go
into the SRAM first, in slices of output channels: the first while the operation before still
computes, each other while the slice before it does. Vela 5.2, scheduler.cpp,
ProposeSlicedWeightBuffering and EstimateSlicedOpPerformance, with enough SRAM for them.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

from actcc.graph.macs import Contraction
from actcc.latency_models.npu_blocks import Layer, round_up, summed
from actcc.latency_models.npu_convolution import Convolution
from actcc.latency_models.npu_settings import Dram, NpuSettings, Sram

_SPLIT = 16  # output channels
_STARTUP = 1000  # cycles that are taken for noise
_LITTLE_USE = 0.3  # of a block
_MANY_SLICES = 2


@dataclass(frozen=True)
class WeightFlow:
    """What the weights of an operation cost.

    Attributes:
        sram_bytes, outside_bytes: that the memories move.
        ready_cycles: until they have arrived and the operation has run; 0 where they are not
            brought ahead.
        staged: whether they are brought into the SRAM.
        slack_cycles: while which the weights of the next operation can be brought.
    """

    sram_bytes: float
    outside_bytes: float
    ready_cycles: float
    staged: bool
    slack_cycles: float


def weight_bytes(work: Contraction, settings: NpuSettings) -> tuple[float, float]:
    """Bytes of weights, and of biases and scales, in the memory outside."""
    layer, weights = Layer.of(work), settings.weights
    stored = work.weights * weights.bytes_per_weight
    if not layer.each:
        steps = summed(layer, settings.blocks) * round_up(
            layer.outputs, settings.blocks.output_channels
        )
        stored += (work.groups * steps - work.weights) * weights.bytes_per_filler
    return stored, work.groups * work.outputs * weights.bytes_per_channel


def weight_flow(convolution: Convolution, slack_cycles: float) -> WeightFlow:
    """How the weights of a convolution come in.

    Args:
        slack_cycles: while which the operation before it computes; 0 if there is none.
    """
    weights, scales = weight_bytes(convolution.work, convolution.settings)
    repeats, refetches = convolution.repeats, convolution.refetches
    single = _Weights(convolution, weights / repeats, scales / repeats, slack_cycles)
    slices = single.slices()
    if slices is None:
        computing = convolution.cycles(convolution.layer.outputs) * repeats
        return WeightFlow(0.0, (weights + scales) * refetches, 0.0, False, computing)
    timing = single.timing(slices)
    first = single.bytes * slices.shares[0]
    waiting = single.transfer(first) - slack_cycles
    computing = convolution.cycles(convolution.layer.outputs, staged=True)
    ready = max(
        single.transfer(single.bytes) - slack_cycles + timing.last, computing + max(waiting, 0.0)
    )
    later = max(weights - first * repeats, 0.0) if slack_cycles else weights
    return WeightFlow(
        sram_bytes=later + weights * refetches,
        outside_bytes=later + scales * refetches,
        ready_cycles=ready + computing * (repeats - 1),
        staged=True,
        slack_cycles=timing.last,
    )


@dataclass(frozen=True)
class _Slices:
    """Output channels that are computed one after the other."""

    channels: tuple[int, ...]

    @property
    def shares(self) -> list[float]:
        return [each / sum(self.channels) for each in self.channels]


@dataclass(frozen=True)
class _Timing:
    """Cycles of a convolution in slices.

    Attributes:
        run: of all slices.
        visible: that they wait for weights.
        reading: of the weights, as often as they are needed.
        last: of the last slice.
    """

    run: float
    visible: float
    reading: float
    last: float


@dataclass(frozen=True)
class _Weights:
    convolution: Convolution
    weights: float
    scales: float
    slack: float

    @property
    def bytes(self) -> float:
        return self.weights + self.scales

    @property
    def _depth(self) -> int:
        return self.convolution.layer.outputs

    def transfer(self, size: float) -> float:
        """Cycles to bring so many bytes into the SRAM."""
        sram, dram = self.convolution.settings.sram, self.convolution.settings.dram
        return max(
            size / dram.bytes_per_cycle + dram.latency_cycles,
            size / sram.bytes_per_cycle + sram.write_latency_cycles,
        )

    def slices(self) -> _Slices | None:
        """The slices in which the weights are brought into the SRAM, None for not at all."""
        settings, refetches = self.convolution.settings, self.convolution.refetches
        outside = _reading(settings.dram, self.bytes) * refetches
        inside = _reading(settings.sram, self.bytes) * refetches
        if inside >= outside:
            return None
        computing = self.convolution.cycles(self._depth)
        dominated = computing > outside
        whole = self.transfer(self.bytes)
        smallest = whole * min(self._depth, _SPLIT) / self._depth
        promising = (
            not self.slack and refetches > 1 and (smallest < outside / 10 or smallest <= _STARTUP)
        )
        if not (
            promising
            or inside + max(whole - self.slack, 0.0) < outside
            or self._depth // self.convolution.block.channels > _MANY_SLICES
            or (self.slack and smallest < self.slack and refetches > 1)
        ):
            return None
        found = self._cut(whole, dominated=dominated)
        if found is None or not self._pays(found, promising=promising, dominated=dominated):
            return None
        return found

    def _cut(self, whole: float, *, dominated: bool) -> _Slices | None:
        depth, block = self._depth, self.convolution.block.channels
        least = min(_SPLIT / depth, 1.0)
        ahead = min(self.slack / whole, 1.0)
        aligned = math.floor(ahead / least) * least
        ratio = 1.0 if 1.0 - aligned < least / 2 else ahead
        if dominated and 0.5 < ratio < 1.0:
            ratio = min(max(round_up(depth // 2, _SPLIT) / depth, 0.5), 1.0)
        ratio = max(ratio, least)
        first = max(int(depth * ratio) // _SPLIT * _SPLIT, _SPLIT)
        if ratio >= 1.0 or first >= depth:
            return _Slices((depth,))
        computing = self.convolution.cycles(first, staged=True, lookup=False, last=False)
        each = round_up(max(int(depth * computing / whole), _SPLIT), block)
        if each < block:
            each = max(each // _SPLIT * _SPLIT, _SPLIT)
        starts = [0, *range(first, depth, each), depth]
        if len(starts) > 3 and each / round_up(each, block) < _LITTLE_USE and dominated:
            return None
        return _Slices(tuple(b - a for a, b in itertools.pairwise(starts)))

    def timing(self, slices: _Slices, slack: float | None = None) -> _Timing:
        """Cycles of the convolution in slices, all of them staged."""
        slack = self.slack if slack is None else slack
        down = self.convolution.refetches
        run = visible = last = 0.0
        count = len(slices.channels)
        for position, (channels, share) in enumerate(
            zip(slices.channels, slices.shares, strict=True)
        ):
            last = self.convolution.cycles(
                channels, staged=True, first=position == 0, last=position == count - 1
            )
            visible += max(self.transfer(self.bytes * share) - slack, 0.0)
            run += last
            slack = last if count > 1 else 0.0
        reading = _reading(self.convolution.settings.sram, self.bytes / count) * down * count
        return _Timing(run, visible, reading, last)

    def _pays(self, slices: _Slices, *, promising: bool, dominated: bool) -> bool:
        """Whether it is no slower than to leave the weights outside."""
        convolution, settings = self.convolution, self.convolution.settings
        slack = self.slack or (float(_STARTUP) if promising else 0.0)
        timing = self.timing(slices, slack)
        # The input is guessed to lie where it will be, in both cases.
        moved = sum(convolution.read_elements(channels) for channels in slices.channels)
        moved *= settings.bytes_per_element
        input_cycles = _reading(convolution.source.memory(settings), moved)
        outside = _reading(settings.dram, self.bytes) * convolution.refetches
        before = max(convolution.cycles(self._depth), outside, input_cycles)
        after = max(timing.run + timing.visible, timing.reading, input_cycles)
        count = len(slices.channels)
        if dominated:
            ruled = timing.run + timing.visible == after
            if timing.visible / count < _STARTUP:
                after -= timing.visible
            if count > 1 and ruled and promising:
                after -= count * _STARTUP / 2
        if before < after:
            return False
        whole = self.transfer(self.bytes)
        return convolution.refetches > 1 or whole + timing.reading <= before


def _reading(memory: Sram | Dram, size: float) -> float:
    return size / memory.bytes_per_cycle + memory.latency_cycles
