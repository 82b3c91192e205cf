"""What an operation costs on an NPU, in cycles.

An operation takes as long as its slowest part: the multipliers, the table of its activation, or
either memory, all of which work side by side (the roofline of Williams, Waterman and Patterson
2009, with one roof for each part). A convolution is cut into blocks (`npu_convolution`), as Arm's
Vela compiler for Ethos-U does it, and its weights come in ahead of it (`npu_weights`).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from actcc.errors import PricingError
from actcc.graph import TensorType
from actcc.graph.macs import Contraction
from actcc.latency_models.npu_blocks import Block, Layer, choose_elementwise_block, round_up
from actcc.latency_models.npu_convolution import Convolution
from actcc.latency_models.npu_maps import (
    Access,
    FeatureMap,
    block_cycles,
    deepened,
    moved_bytes,
    plane,
)
from actcc.latency_models.npu_program import HOST, Operation
from actcc.latency_models.npu_settings import NpuSettings
from actcc.latency_models.npu_weights import weight_flow

# What they move is in their rates.
_COMPOUND = frozenset({"softmax", "transpose", "reduce"})


@dataclass(frozen=True)
class Cycles:
    """Cycles of one operation by the part that needs them.

    Attributes:
        compute, lookup, sram, dram: side by side; lookup is that of the multipliers too where the
            results go through a table.
        weights: until weights that come in ahead have arrived and are used, side by side with them.
        table: to load the activation's table, before the operation computes.
        host: on the host CPU, with transfers.
        slack: while which the weights and the table of the next operation can come in.
    """

    compute: float = 0.0
    lookup: float = 0.0
    sram: float = 0.0
    dram: float = 0.0
    weights: float = 0.0
    table: float = 0.0
    host: float = 0.0
    slack: float = 0.0

    @property
    def total(self) -> float:
        """From start to end."""
        computing = max(self.compute, self.lookup, self.weights) + self.table
        return max(computing, self.sram, self.dram) + self.host

    @property
    def bound(self) -> str:
        """The part that decides."""
        if self.host:
            return "host"
        parts = {
            "compute": self.compute,
            "lookup": self.lookup,
            "sram": self.sram,
            "dram": max(self.dram, self.weights),
        }
        return max(parts, key=lambda name: parts[name])


@dataclass(frozen=True)
class Placement:
    """Where the feature maps of a program lie.

    Attributes:
        types: by tensor name.
        outside: feature maps in the memory outside the chip.
        linear: feature maps in the host's layout.
        parts: feature maps that are parts of others.
        on_host: feature maps that only the host writes or reads.
        orders: the axes of each tensor as they lie in memory.
    """

    types: Mapping[str, TensorType]
    outside: Collection[str] = ()
    linear: Collection[str] = ()
    parts: Collection[str] = ()
    on_host: Collection[str] = ()
    orders: Mapping[str, tuple[int, ...]] = field(default_factory=dict)


def operation_cycles(
    operation: Operation, settings: NpuSettings, placement: Placement, slack: float = 0.0
) -> Cycles:
    """Cycles of one operation.

    Args:
        slack: cycles while which the operation before it computes, and weights and tables come in.

    Raises:
        PricingError: a shape is not static.
    """
    return _Costing(operation, settings, placement, slack).cycles()


class _Costing:
    def __init__(
        self, operation: Operation, settings: NpuSettings, placement: Placement, slack: float
    ) -> None:
        self._operation = operation
        self._settings = settings
        self._placement = placement
        self._slack = slack

    def cycles(self) -> Cycles:
        operation = self._operation
        if operation.kind == HOST:
            return Cycles(host=self._host())
        if not any(self._map(name).elements for name in operation.writes):
            return Cycles()
        if operation.work is not None:
            return self._convolving(operation.work)
        if operation.elementwise:
            return self._elementwise()
        settings = self._settings
        lookup = 0.0
        if operation.lookup:
            results = sum(self._map(name).elements for name in operation.writes)
            lookup = results / (settings.lookup.fused_elements_per_cycle * settings.cores)
        sram, dram = self._traffic()
        found = Cycles(
            compute=self._compute() / settings.cores,
            lookup=lookup,
            sram=sram / settings.sram.bytes_per_cycle,
            dram=dram / settings.dram.bytes_per_cycle,
            table=max(self._table() - self._slack, 0.0),
        )
        return replace(found, slack=max(found.compute, found.lookup))

    def _table(self) -> float:
        """Cycles to load the table."""
        settings = self._settings
        if not self._operation.lookup and self._operation.kind != "lookup":
            return 0.0
        table = settings.lookup.table_bytes / settings.dram.bytes_per_cycle
        return settings.dram.latency_cycles + table

    # ---------------------------------------------------------------- multipliers

    def _convolving(self, work: Contraction) -> Cycles:
        operation, settings = self._operation, self._settings
        layer = Layer.of(work)
        source, result = self._map(operation.reads[0]), self._map(operation.writes[0])
        convolution = Convolution(
            work=work,
            matrix=operation.kind == "matrix",
            lookup=operation.lookup,
            source=replace(
                source,
                rows=math.ceil(layer.rows * layer.stride[0] / layer.enlarged),
                columns=math.ceil(layer.columns * layer.stride[1] / layer.enlarged),
                channels=layer.inputs,
            ),
            result=replace(result, rows=layer.rows, columns=layer.columns, channels=layer.outputs),
            settings=settings,
        )
        repeats = convolution.repeats
        flow = weight_flow(convolution, self._slack)
        sram, dram = flow.sram_bytes, flow.outside_bytes
        for seen, moved in zip((source, result), convolution.transfers(), strict=True):
            if seen.outside:
                dram += moved * repeats
            else:
                sram += moved * repeats
        plain, through = (
            convolution.cycles(layer.outputs, staged=flow.staged, lookup=lookup) * repeats
            for lookup in (False, True)
        )
        table = self._table()
        return Cycles(
            compute=plain,
            lookup=through if operation.lookup and through > plain else 0.0,
            sram=sram / settings.sram.bytes_per_cycle,
            dram=dram / settings.dram.bytes_per_cycle,
            weights=flow.ready_cycles if flow.ready_cycles > through else 0.0,
            # Vela loads it after weights that come in ahead.
            table=table if flow.staged else max(table - self._slack, 0.0),
            slack=flow.slack_cycles,
        )

    # ---------------------------------------------------------------- element by element

    def _elementwise(self) -> Cycles:
        """Vela 5.2, ethos_u55_performance.cpp, EstimateElementwiseCycles.

        Operands that are broadcast count as large as the result.
        """
        operation, settings = self._operation, self._settings
        results = [self._map(name) for name in operation.writes]
        read = [self._map(name) for name in operation.reads]
        result = max([*results, *read], key=lambda each: each.elements)
        result = replace(
            results[0], rows=result.rows, columns=result.columns, channels=result.channels
        )
        order = self._placement.orders[operation.writes[0]]
        constants = [
            FeatureMap(*plane(shape, order), linear=True, outside=True)
            for shape in operation.constants
        ]
        operands = [each for each in (*read, *constants) if each.elements > 1] or read
        shapes = {(each.rows, each.columns, each.channels) for each in (*operands, result)}
        names = {*operation.reads, *operation.writes}
        if len(shapes) == 1 and names.isdisjoint(self._placement.parts):
            operands = [_deep(each) for each in operands]
            result = _deep(result)
        alone = not operation.binary or len(operands) > 1
        block = choose_elementwise_block(
            result.rows, result.columns, result.channels, 2 if alone else 1, settings.blocks
        )
        reading = Access(block.input_columns, block.input_channels, reading=True)
        writing = Access(block.columns, block.channels, reading=False)
        handled = result.stored(settings)
        fetched = replace(result, linear=operands[0].linear).stored(settings)
        moved = {True: 0.0, False: 0.0}
        for seen in operands:
            moved[seen.outside] += moved_bytes(seen, fetched, reading, settings)
        moved[result.outside] += moved_bytes(result, handled, writing, settings)
        waiting = max(
            *(block_cycles(each, _part(each, block), reading, settings) for each in operands),
            block_cycles(result, _part(result, block), writing, settings),
        )
        rate = settings.elements_per_cycle[operation.kind] * settings.cores
        size = block.rows * block.columns * block.channels
        plain = self._leaving(rate, waiting / size) * handled
        through = 0.0
        if operation.lookup:
            fused = settings.lookup.fused_elements_per_cycle * settings.cores
            through = self._leaving(min(rate, fused), waiting / size) * handled
        return Cycles(
            compute=plain,
            lookup=through if through > plain else 0.0,
            sram=moved[False] / settings.sram.bytes_per_cycle,
            dram=moved[True] / settings.dram.bytes_per_cycle,
            table=max(self._table() - self._slack, 0.0),
            slack=max(plain, through),
        )

    def _leaving(self, rate: float, waiting: float) -> float:
        """Cycles of an element: to compute it, or to command its block."""
        return max(1 / rate, (waiting + 1 / rate) / self._settings.blocks.in_flight)

    # ---------------------------------------------------------------- other classes

    def _compute(self) -> float:
        """Cycles of one core that did it alone."""
        operation, settings = self._operation, self._settings
        written = sum(self._in_steps(name) for name in operation.writes)
        if operation.kind == "pooling":
            window = max(operation.window, settings.pooling.least_window)
            return written * window / settings.pooling.elements_per_cycle
        if operation.kind in ("lookup", "clamp", "join"):
            if operation.kind == "join":
                written = sum(self._in_steps(name) for name in operation.reads)
            return written / settings.lookup.separate_elements_per_cycle
        if operation.kind == "softmax":
            elements = sum(self._stored(name) for name in operation.writes)
            rows = sum(self._map(name).elements for name in operation.writes) / operation.window
            return elements / settings.elements_per_cycle["softmax"] + (
                rows * settings.lookup.softmax_row_cycles
            )
        if operation.kind == "transpose":
            moved = sum(self._map(name).elements for name in operation.writes)
            return moved / settings.elements_per_cycle["transpose"]
        handled = max(self._stored(name) for name in (*operation.writes, *operation.reads))
        return handled / settings.elements_per_cycle[operation.kind]

    # ---------------------------------------------------------------- memory

    def _traffic(self) -> tuple[float, float]:
        """Bytes that the SRAM and the memory outside move, those of cut bursts with them."""
        operation = self._operation
        inside = outside = 0.0
        joined = sum(self._stored(name) for name in operation.reads)
        for name in (*operation.reads, *operation.writes):
            seen, reading = self._map(name), name in operation.reads
            elements = joined if operation.kind == "join" and not reading else self._stored(name)
            moved = float(elements * self._settings.bytes_per_element)
            if seen.linear and operation.kind not in _COMPOUND:
                channels = round_up(seen.channels, self._settings.blocks.output_channels)
                access = Access(seen.columns, channels, reading=reading)
                moved = moved_bytes(seen, elements, access, self._settings)
            if seen.outside:
                outside += moved
            else:
                inside += moved
        return inside, outside

    # ---------------------------------------------------------------- the host

    def _host(self) -> float:
        operation, host = self._operation, self._settings.host
        crossing = sum(
            self._map(name).elements
            for name in (*operation.reads, *operation.writes)
            if name not in self._placement.on_host
        )
        if operation.work is not None:
            computing = operation.work.macs / host.macs_per_cycle
        else:
            handled = max(
                self._map(name).elements for name in (*operation.reads, *operation.writes)
            )
            computing = handled / host.elements_per_cycle
        transfer = crossing * self._settings.bytes_per_element / host.bytes_per_cycle
        return host.cycles_per_call + transfer + computing

    # ---------------------------------------------------------------- sizes

    def _map(self, name: str) -> FeatureMap:
        """A tensor in memory."""
        placement = self._placement
        found = placement.types.get(name)
        if found is None or not found.is_static:
            given = None if found is None else found.shape
            raise PricingError(
                f"tensor '{name}' has no static shape ({given}), so its cost is not known; "
                "give --shape for symbolic inputs; where it depends on data, use a target that "
                "measures"
            )
        shape = [size for size in found.shape or () if isinstance(size, int)]
        return FeatureMap(
            *plane(shape, placement.orders[name]),
            linear=name in placement.linear,
            outside=name in placement.outside,
        )

    def _stored(self, name: str) -> int:
        """Elements with those that fill up the last brick of channels."""
        seen = self._map(name)
        # One channel lies as one row.
        return seen.elements if seen.channels == 1 else seen.stored(self._settings)

    def _in_steps(self, name: str) -> int:
        """Elements with those that fill up the last step over rows, columns and channels."""
        seen, blocks = self._map(name), self._settings.blocks
        if seen.channels in (1, seen.elements):
            return seen.elements
        return (
            round_up(seen.rows, blocks.rows)
            * round_up(seen.columns, blocks.columns)
            * round_up(seen.channels, blocks.output_channels)
        )


def _deep(seen: FeatureMap) -> FeatureMap:
    rows, columns, channels = deepened(seen.rows, seen.columns, seen.channels)
    return replace(seen, rows=rows, columns=columns, channels=channels)


def _part(seen: FeatureMap, block: Block) -> int:
    """Elements of a feature map in one block."""
    return (
        min(seen.rows, block.rows)
        * min(seen.columns, block.columns)
        * min(seen.channels, block.channels)
    )
