"""What an operation costs on an NPU, in cycles.

An operation takes as long as its slowest part: the multipliers, the table of its activation, or
either memory, all of which work side by side (the roofline of Williams, Waterman and Patterson
2009, with one roof for each part). How often a feature map is read follows from how the work is cut
into blocks, as in the performance estimate of Arm's Vela compiler for Ethos-U.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from actcc.errors import PricingError
from actcc.graph import TensorType
from actcc.graph.macs import Contraction
from actcc.latency_models.npu_operations import HOST, Operation
from actcc.latency_models.npu_settings import NpuSettings

# Of block shapes that hold the same number of sums, a compiler takes the one that moves least.
_BLOCK_CHANNELS = (16, 32, 64, 128)


@dataclass(frozen=True)
class Cycles:
    """Cycles of one operation by the part that needs them.

    Attributes:
        compute, lookup, sram, dram: side by side.
        table: to load the activation's table, before the rest.
        host: on the host CPU, with transfers.
    """

    compute: float = 0.0
    lookup: float = 0.0
    sram: float = 0.0
    dram: float = 0.0
    table: float = 0.0
    host: float = 0.0

    @property
    def total(self) -> float:
        """From start to end."""
        return max(self.compute, self.lookup, self.sram, self.dram) + self.table + self.host

    @property
    def bound(self) -> str:
        """The part that decides."""
        if self.host:
            return "host"
        parts = {
            "compute": self.compute,
            "lookup": self.lookup,
            "sram": self.sram,
            "dram": self.dram,
        }
        return max(parts, key=lambda name: parts[name])


@dataclass(frozen=True)
class Placement:
    """Where the feature maps of a program lie.

    Attributes:
        types: by tensor name.
        outside: feature maps in the memory outside the chip.
        interface: outputs of the network, in the host's layout.
        on_host: feature maps that only the host writes or reads.
        channels_last: feature maps whose last axis is that of the channels.
    """

    types: Mapping[str, TensorType]
    outside: Collection[str] = ()
    interface: Collection[str] = ()
    on_host: Collection[str] = ()
    channels_last: Collection[str] = ()


def operation_cycles(operation: Operation, settings: NpuSettings, placement: Placement) -> Cycles:
    """Cycles of one operation.

    Raises:
        PricingError: a shape is not static.
    """
    return _Costing(operation, settings, placement).cycles()


class _Costing:
    def __init__(self, operation: Operation, settings: NpuSettings, placement: Placement) -> None:
        self._operation = operation
        self._settings = settings
        self._placement = placement

    def cycles(self) -> Cycles:
        operation, settings = self._operation, self._settings
        if operation.kind == HOST:
            return Cycles(host=self._host())
        written = sum(self._stored(name) for name in operation.writes)
        table = 0.0
        lookup = 0.0
        if operation.lookup or operation.kind == "lookup":
            table = settings.dram.latency_cycles
            table += settings.lookup.table_bytes / settings.dram.bytes_per_cycle
        if operation.lookup:
            lookup = written / (settings.lookup.fused_elements_per_cycle * settings.cores)
        sram, dram = self._traffic()
        return Cycles(
            compute=self._compute(written) / settings.cores,
            lookup=lookup,
            sram=sram / settings.sram.bytes_per_cycle,
            dram=dram / settings.dram.bytes_per_cycle,
            table=table,
        )

    # ---------------------------------------------------------------- compute

    def _compute(self, written: float) -> float:
        """Cycles of one core that did it alone."""
        operation, settings = self._operation, self._settings
        if operation.work is not None:
            leaving = written / settings.output_elements_per_cycle
            return max(_multiplying(operation.work, operation.kind, settings), leaving)
        if operation.kind == "pooling":
            window = max(operation.window, settings.pooling.least_window)
            return written * window / settings.pooling.elements_per_cycle
        if operation.kind in ("lookup", "clamp", "join"):
            handled = written
            if operation.kind == "join":
                handled = sum(self._stored(name) for name in operation.reads)
            return handled / settings.lookup.separate_elements_per_cycle
        handled = max([written, *(self._stored(name) for name in operation.reads)])
        return handled / settings.elements_per_cycle[operation.kind]

    # ---------------------------------------------------------------- memory

    def _traffic(self) -> tuple[float, float]:
        """Bytes that the SRAM and the memory outside move."""
        operation, settings, outside = self._operation, self._settings, self._placement.outside
        size = settings.bytes_per_element
        reads = {name: self._stored(name) * size for name in operation.reads}
        writes = {name: self._stored(name) * size for name in operation.writes}
        if operation.kind == "join":
            writes = {name: sum(reads.values()) for name in operation.writes}
        dram = sum(moved for name, moved in (*reads.items(), *writes.items()) if name in outside)
        # What lies outside passes through the SRAM piece by piece.
        leaving = sum(
            moved * (settings.sram.interface_factor if name in self._placement.interface else 1)
            for name, moved in writes.items()
        )
        if operation.work is None:
            arriving = sum(reads.values())
            dram += operation.constants * size
        else:
            weights = weight_bytes(operation.work, settings)
            dram += weights
            arriving = _block_traffic(operation.work, sum(reads.values()), weights, settings)
        return arriving + leaving, dram

    # ---------------------------------------------------------------- the host

    def _host(self) -> float:
        operation, host = self._operation, self._settings.host
        crossing = sum(
            self._elements(name)
            for name in (*operation.reads, *operation.writes)
            if name not in self._placement.on_host
        )
        if operation.work is not None:
            computing = operation.work.macs / host.macs_per_cycle
        else:
            handled = max(self._elements(name) for name in (*operation.reads, *operation.writes))
            computing = handled / host.elements_per_cycle
        transfer = crossing * self._settings.bytes_per_element / host.bytes_per_cycle
        return host.cycles_per_call + transfer + computing

    # ---------------------------------------------------------------- sizes

    def _elements(self, name: str) -> int:
        found = self._placement.types.get(name)
        if found is None or not found.is_static:
            shape = None if found is None else found.shape
            raise PricingError(
                f"tensor '{name}' has no static shape ({shape}), so its cost is not known; "
                "give --shape for symbolic inputs; where it depends on data, use a target that "
                "measures"
            )
        return found.elements

    def _stored(self, name: str) -> int:
        """Elements with those that fill up the last brick of channels."""
        elements = self._elements(name)
        shape: Sequence[object] = self._placement.types[name].shape or ()
        axis = -1 if name in self._placement.channels_last else 1
        channels = shape[axis] if len(shape) > 1 else None
        if not isinstance(channels, int) or channels < 1:
            return elements
        return elements // channels * _round_up(channels, self._settings.blocks.stored_channels)


def weight_bytes(work: Contraction, settings: NpuSettings) -> float:
    """Bytes of weights, biases and scales in the memory outside."""
    channels = work.groups * work.outputs
    weights = settings.weights
    return work.weights * weights.bytes_per_weight + channels * weights.bytes_per_channel


def _multiplying(work: Contraction, kind: str, settings: NpuSettings) -> float:
    """Cycles of the multipliers of one core."""
    blocks, rates = settings.blocks, settings.macs_per_cycle
    rows, columns = work.rows, work.columns
    if work.transposed:
        # The zeros between the inputs are multiplied too.
        rows, columns = rows * work.stride[0], columns * work.stride[1]
    if rows == 1:
        together = _round_up(columns, blocks.rows * blocks.columns)
    else:
        together = _round_up(rows, blocks.rows) * _round_up(columns, blocks.columns)
    positions = work.batch * max(together, blocks.least_positions)
    kernel = work.kernel[0] * work.kernel[1]
    # The cores share the output channels.
    shared = blocks.output_channels * settings.cores
    if work.depthwise:
        channels = _round_up(work.groups * work.outputs, shared)
        steps = _round_up(kernel, blocks.depthwise_kernel)
        return positions * channels * steps / rates.depthwise
    wide = _round_up(work.inputs, blocks.input_channels) * kernel
    narrow = _round_up(work.inputs, blocks.narrow_input_channels)
    narrow *= _round_up(kernel, blocks.narrow_kernel)
    channels = work.groups * _round_up(work.outputs, shared)
    rate = rates.matrix if kind == "matrix" else rates.convolution
    return positions * channels * min(wide, narrow) / rate


def _block_traffic(
    work: Contraction, arriving: float, weights: float, settings: NpuSettings
) -> float:
    """Bytes that are read from SRAM: the input once for each block of output channels, with the
    overlap of neighbouring blocks, and the weights once for each block of the plane.
    """
    best = math.inf
    positions = work.positions
    for channels in _BLOCK_CHANNELS:
        plane = max(settings.blocks.accumulators * settings.cores // channels, 1)
        pieces = math.ceil(positions / plane)
        repeats = 1 if work.depthwise else math.ceil(work.outputs / channels)
        side = math.sqrt(min(plane, positions))
        overlap = 1.0
        if pieces > 1 and not work.transposed:
            for kernel, stride in zip(work.kernel, work.stride, strict=True):
                overlap *= max(((side - 1) * stride + kernel) / (side * stride), 1.0)
        # Weights that are used once come straight from outside.
        again = weights * pieces if pieces > 1 else 0.0
        best = min(best, arriving * repeats * overlap + again)
    return best


def _round_up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple
