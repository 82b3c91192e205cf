"""Prices from a model of the device: arithmetic on a profile, without the device.

The graph is lowered to the operations that the device runs (`npu_operations`), feature maps are
given a place in memory, and each operation costs what `npu_cycles` says. Operations run one after
the other; weights are fetched while the operation before them computes.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from actcc.errors import ModelError, PricingError
from actcc.graph import Array, Graph
from actcc.latency_models import Profile
from actcc.latency_models.npu_cycles import Cycles, Placement, operation_cycles
from actcc.latency_models.npu_operations import lower
from actcc.latency_models.npu_program import HOST, Operation, Program
from actcc.latency_models.npu_settings import NpuSettings, npu_settings
from actcc.memory import LiveStep, MemoryProfile, live_steps, memory_profile
from actcc.prices import LayerTime, Price, PriceQuery, Source, Timing, Unpriced
from actcc.site import KEEP


@dataclass(frozen=True)
class AnalyticBackend:
    """Estimates for an NPU that a profile describes; the same graph always costs the same.

    Attributes:
        settings: those of the profile, checked.

    Raises:
        TargetError: the profile's settings do not fit.
    """

    profile: Profile
    settings: NpuSettings = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        # A profile that does not fit is refused here and not in the middle of a run.
        object.__setattr__(self, "settings", npu_settings(self.profile))

    @cached_property
    def tool(self) -> str:
        """Name of the profile, and a hash of its settings."""
        text = json.dumps(self.profile.settings, sort_keys=True, default=str)
        return (
            f"actcc analytic {self.profile.name} {hashlib.sha256(text.encode()).hexdigest()[:12]}"
        )

    @property
    def source(self) -> Source:
        """Estimated: nothing ran."""
        return "estimated"

    @property
    def cacheable(self) -> bool:
        """No: computing a price is faster than looking it up."""
        return False

    def price(self, query: PriceQuery) -> dict[str, Price | Unpriced]:
        """A price for `keep` and for each candidate, without noise.

        The neighbourhood's outputs are feature maps inside the network, not its interface.
        """
        try:
            baseline = self._neighbourhood_ns(query.baseline)
        except ModelError as error:
            reason = Unpriced(f"the neighbourhood cannot be priced: {error}")
            return dict.fromkeys((KEEP, *query.candidates), reason)
        prices: dict[str, Price | Unpriced] = {KEEP: self._price(baseline, baseline)}
        for name, graph in query.candidates.items():
            try:
                prices[name] = self._price(self._neighbourhood_ns(graph), baseline)
            except ModelError as error:
                prices[name] = Unpriced(str(error))
        return prices

    def time_models(
        self, models: Sequence[Graph], feeds: Mapping[str, Array] | None = None
    ) -> list[Timing]:
        """Latency and peak memory of whole models.

        Peak memory is that of feature maps in the device's format, with fused operations.

        Args:
            feeds: of no account; nothing runs.

        Raises:
            PricingError: a shape is not static, or the device cannot run a node.
        """
        del feeds
        found: list[tuple[float, int]] = []
        for graph in models:
            run = self._run(graph, interface=True)
            if not run.cycles:
                raise PricingError(
                    "nothing is left to run on it: what the network computes is constant or free"
                )
            found.append((self._nanoseconds(run.cycles), run.memory.peak_bytes))
        return [
            Timing(
                latency_ns=latency,
                noise_ns=0.0,
                source=self.source,
                tool=self.tool,
                peak_bytes=peak,
                ratio=latency / found[0][0],
            )
            for latency, peak in found
        ]

    def layers(self, model: Graph) -> list[LayerTime]:
        """Latency by operation, in the order of execution; what is free is left out.

        `bound` is "compute", "lookup", "sram", "dram" or "host".

        Raises:
            ModelError: a shape is not static, or the device cannot run a node.
        """
        return [
            LayerTime(operation.name, operation.op, self._nanoseconds(cycles.total), cycles.bound)
            for operation, cycles in self._run(model, interface=True).rows
        ]

    def memory(self, graph: Graph) -> MemoryProfile:
        """Live bytes at each node as the device runs the graph.

        Raises:
            ModelError: a shape is not static, or the device cannot run a node.
        """
        return self._run(graph, interface=True).memory

    def operations(self, graph: Graph) -> tuple[tuple[Operation, Cycles], ...]:
        """What a part of a network is run as, in order, and what each operation costs.

        Raises:
            ModelError: a shape is not static, or the device cannot run a node.
        """
        return self._run(graph, interface=False).rows

    def _run(self, graph: Graph, *, interface: bool) -> _Run:
        """One inference; `interface`: the graph's outputs are the network's."""
        size = self.settings.bytes_per_element
        program = lower(graph, self.settings)
        steps = list(live_steps(graph, size, program.fused))
        scratch = {name: elements * size for name, elements in program.scratch.items()}
        outer = set(_interface(graph, program)) if interface else set()
        sram = self.settings.sram
        outside = _spilled(steps, sram.bytes) if sram.spills else set()
        if not sram.holds_interface:
            outside |= outer
        for names in (outer, outside):
            for part, whole in reversed(list(program.parts.items())):  # the outermost whole first
                if whole in names:
                    names.add(part)
        placement = Placement(
            types=graph.types,
            outside=outside,
            linear=program.linear | outer,
            parts=program.parts,
            on_host=_between_host_operations(graph, program),
            orders=program.orders,
        )
        rows: list[tuple[Operation, Cycles]] = []
        # Within a network, an operation that is long enough runs before it.
        slack = 0.0 if interface else math.inf
        for operation in program.operations:
            cycles = operation_cycles(operation, self.settings, placement, slack)
            slack = cycles.slack
            rows.append((operation, cycles))
        return _Run(tuple(rows), memory_profile(steps, scratch))

    def _neighbourhood_ns(self, graph: Graph) -> float:
        return self._nanoseconds(self._run(graph, interface=False).cycles)

    def _price(self, latency: float, baseline: float) -> Price:
        return Price(latency, latency - baseline, 0.0, self.source, self.tool)

    def _nanoseconds(self, cycles: float) -> float:
        return cycles * 1e3 / self.settings.clock_mhz


@dataclass(frozen=True)
class _Run:
    rows: tuple[tuple[Operation, Cycles], ...]
    memory: MemoryProfile

    @property
    def cycles(self) -> float:
        return sum(cycles.total for _, cycles in self.rows)


def _interface(graph: Graph, program: Program) -> frozenset[str]:
    """Inputs and outputs of the network."""
    return program.outputs | {tensor.name for tensor in graph.inputs}


def _spilled(steps: Sequence[LiveStep], capacity: int) -> set[str]:
    """Feature maps that the SRAM does not hold: the largest ones, where too many are alive."""
    spilled: set[str] = set()
    for step in steps:
        inside = {name: size for name, size in step.live.items() if name not in spilled}
        while sum(inside.values()) > capacity:
            largest = max(inside, key=lambda name: inside[name])
            spilled.add(largest)
            del inside[largest]
    return spilled


def _between_host_operations(graph: Graph, program: Program) -> set[str]:
    """Feature maps that stay with the host: it writes them, and it alone reads them."""
    hosted = [operation for operation in program.operations if operation.kind == HOST]
    if not hosted:
        return set()
    leaving = {tensor.name for tensor in graph.outputs}
    elsewhere = {
        name
        for operation in program.operations
        if operation.kind != HOST
        for name in operation.reads
    }
    written = {name for operation in hosted for name in operation.writes}
    read = {name for operation in hosted for name in operation.reads}
    return (written & read) - elsewhere - leaving
