"""What an operation costs on an NPU, in cycles.

An operation takes as long as its slowest part: the multipliers, the table of its activation, or
either memory, all of which work side by side (the roofline of Williams, Waterman and Patterson
2009, with one roof for each part). A convolution is cut into blocks (`npu_blocks`), as Arm's Vela
compiler for Ethos-U does it: how often its input is read, and what a block costs, follow from them.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from actcc.errors import PricingError
from actcc.graph import TensorType
from actcc.graph.macs import Contraction
from actcc.latency_models.npu_blocks import (
    Block,
    Layer,
    block_counts,
    choose_block,
    round_up,
    summed,
)
from actcc.latency_models.npu_operations import HOST, Operation
from actcc.latency_models.npu_settings import NpuSettings


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
        interface: inputs and outputs of the network, in the host's layout.
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
        table = 0.0
        lookup = 0.0
        if operation.lookup or operation.kind == "lookup":
            table = settings.dram.latency_cycles
            table += settings.lookup.table_bytes / settings.dram.bytes_per_cycle
        if operation.lookup:
            results = sum(self._elements(name) for name in operation.writes)
            lookup = results / (settings.lookup.fused_elements_per_cycle * settings.cores)
        sram, dram = self._traffic()
        return Cycles(
            compute=self._compute() / settings.cores,
            lookup=lookup,
            sram=sram / settings.sram.bytes_per_cycle,
            dram=dram / settings.dram.bytes_per_cycle,
            table=table,
        )

    # ---------------------------------------------------------------- compute

    def _compute(self) -> float:
        """Cycles of one core that did it alone."""
        operation, settings = self._operation, self._settings
        if operation.work is not None:
            return self._convolving(operation.work)
        written = sum(self._in_steps(name) for name in operation.writes)
        if operation.kind == "pooling":
            window = max(operation.window, settings.pooling.least_window)
            return written * window / settings.pooling.elements_per_cycle
        if operation.kind in ("lookup", "clamp", "join"):
            if operation.kind == "join":
                written = sum(self._in_steps(name) for name in operation.reads)
            return written / settings.lookup.separate_elements_per_cycle
        if operation.kind == "softmax":
            elements = sum(self._elements(name) for name in operation.writes)
            rows = elements / operation.window
            return elements / settings.elements_per_cycle["softmax"] + (
                rows * settings.lookup.softmax_row_cycles
            )
        if operation.kind == "transpose":
            moved = sum(self._elements(name) for name in operation.writes)
            return moved / settings.elements_per_cycle["transpose"]
        handled = max(self._stored(name) for name in (*operation.writes, *operation.reads))
        return handled / settings.elements_per_cycle[operation.kind]

    def _convolving(self, work: Contraction) -> float:
        """Blocks run one after the other; what a block computes overlaps with what leaves the last.

        Vela 5.2, npu_performance.py, _estimate_conv_cycles.
        """
        settings, layer = self._settings, Layer.of(work)
        blocks = settings.blocks
        block = choose_block(layer, blocks)
        rows, columns = min(block.rows, layer.rows), min(block.columns, layer.columns)
        channels = min(block.channels, layer.outputs)
        if layer.rows == 1 and layer.kernel[0] == 1:
            together = round_up(columns, blocks.rows * blocks.columns)
        else:
            together = round_up(rows, blocks.rows) * round_up(columns, blocks.columns)
        products = max(together, blocks.least_positions) * summed(layer, blocks)
        products *= round_up(channels, blocks.output_channels)
        multiplying = products / self._rate(work)
        leaving = rows * columns * channels / settings.output_elements_per_cycle
        moved = _first_input(layer, block) + rows * columns * channels
        commanding = 2 * settings.sram.latency_cycles
        commanding += moved * settings.bytes_per_element / settings.sram.bytes_per_cycle
        # The cores share what is moved.
        commanding *= settings.cores
        commanding = (commanding + leaving + multiplying) / settings.blocks.in_flight
        first, second = max(multiplying, commanding), max(leaving, commanding)
        return self._repeats(work) * (
            max(first, second) * math.prod(block_counts(layer, block)) + min(first, second)
        )

    def _rate(self, work: Contraction) -> float:
        rates = self._settings.macs_per_cycle
        if work.depthwise:
            return rates.depthwise
        return rates.matrix if self._operation.kind == "matrix" else rates.convolution

    @staticmethod
    def _repeats(work: Contraction) -> int:
        """How many layers it takes: one for each group, and the batch one after the other."""
        return work.batch * (1 if work.depthwise else work.groups)

    # ---------------------------------------------------------------- memory

    def _traffic(self) -> tuple[float, float]:
        """Bytes that the SRAM and the memory outside move, those of cut bursts with them."""
        operation, settings = self._operation, self._settings
        size = settings.bytes_per_element
        sram = dram = 0.0
        block = (
            None
            if operation.work is None
            else choose_block(Layer.of(operation.work), settings.blocks)
        )
        joined = sum(self._stored(name) for name in operation.reads)
        for name in operation.reads:
            moved = self._stored(name) * size
            if block is not None and operation.work is not None:
                moved = self._read(operation.work, block) * size
            inside, outside = self._moved(name, moved, self._burst(name, block, reading=True))
            sram, dram = sram + inside, dram + outside
        for name in operation.writes:
            moved = (joined if operation.kind == "join" else self._stored(name)) * size
            inside, outside = self._moved(name, moved, self._burst(name, block, reading=False))
            sram, dram = sram + inside, dram + outside
        if operation.work is None:
            # Constants lie outside as they are, in the host's layout.
            short = max(settings.dram.burst_bytes / settings.blocks.interface_bytes, 1.0)
            dram += operation.constants * size * short
        else:
            dram += weight_bytes(operation.work, settings)
        return sram, dram

    def _moved(self, name: str, moved: float, burst: float) -> tuple[float, float]:
        """Bytes at the SRAM and outside: what a burst leaves unused is moved too.

        Vela 5.2, npu_performance.py, _estimate_memory_transfer_efficiency.
        """
        settings = self._settings
        if name in self._placement.outside:
            return 0.0, moved * max(settings.dram.burst_bytes / burst, 1.0)
        return moved * max(settings.sram.burst_bytes / burst, 1.0), 0.0

    def _burst(self, name: str, block: Block | None, *, reading: bool) -> float:
        """Bytes that lie side by side: a row of bricks, or the channels in the host's layout."""
        blocks, size = self._settings.blocks, self._settings.bytes_per_element
        if name not in self._placement.interface:
            return (
                math.inf
                if block is None
                else blocks.stored_channels
                * size
                * (block.input_columns if reading else block.columns * self._settings.cores)
            )
        if block is None and self._operation.kind != "join":
            return math.inf  # of any shape that suits it
        if reading:
            channels = round_up(self._channels(name), blocks.output_channels)
            return (channels if block is None else block.input_channels) * size
        return blocks.interface_bytes * self._settings.cores

    def _read(self, work: Contraction, block: Block) -> float:
        """Elements that are read of the input: all that each block needs.

        Vela 5.2, npu_performance.py, measure_element_access.
        """
        layer = Layer.of(work)
        down, across, deep = block_counts(layer, block)
        rows = min(block.input_rows, layer.rows * layer.stride[0])
        columns = min(block.input_columns, layer.columns * layer.stride[1])
        bricks = (
            1
            if self._operation.reads[0] in self._placement.interface
            else (self._settings.blocks.stored_channels)
        )
        fetched = rows * columns * round_up(layer.inputs, bricks) * down * across
        return self._repeats(work) * fetched * (1 if layer.each else deep)

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
        elements, channels = self._elements(name), self._channels(name)
        if name in self._placement.interface or (
            channels == 1 and self._operation.work is None  # lies as one row
        ):
            return elements
        return elements // channels * round_up(channels, self._settings.blocks.stored_channels)

    def _in_steps(self, name: str) -> int:
        """Elements with those that fill up the last step over rows, columns and channels."""
        elements, channels = self._elements(name), self._channels(name)
        blocks = self._settings.blocks
        if channels == 1 or elements == channels:
            return elements
        shape = [x for x in self._placement.types[name].shape or () if isinstance(x, int)]
        shape.pop(-1 if name in self._placement.channels_last else 1)
        rows, columns = shape[-2:] if len(shape) > 2 else (1, shape[-1])
        planes = elements // (channels * rows * columns)
        return (
            planes
            * round_up(rows, blocks.rows)
            * round_up(columns, blocks.columns)
            * round_up(channels, blocks.output_channels)
        )

    def _channels(self, name: str) -> int:
        """Length of the axis that is innermost on the device, 1 where there is none."""
        self._elements(name)
        shape: Sequence[object] = self._placement.types[name].shape or ()
        axis = -1 if name in self._placement.channels_last else 1
        channels = shape[axis] if len(shape) > 1 else None
        return channels if isinstance(channels, int) and channels > 0 else 1


def weight_bytes(work: Contraction, settings: NpuSettings) -> float:
    """Bytes of weights, biases and scales in the memory outside."""
    layer, weights = Layer.of(work), settings.weights
    stored = work.weights * weights.bytes_per_weight
    if not layer.each:
        steps = summed(layer, settings.blocks) * round_up(
            layer.outputs, settings.blocks.output_channels
        )
        stored += (work.groups * steps - work.weights) * weights.bytes_per_filler
    return stored + work.groups * work.outputs * weights.bytes_per_channel


def _first_input(layer: Layer, block: Block) -> int:
    """Elements of the input that one step of a block reads."""
    rows = min(block.input_rows, layer.rows * layer.stride[0])
    columns = min(block.input_columns, layer.columns * layer.stride[1])
    return rows * columns * min(block.input_channels, layer.inputs)
