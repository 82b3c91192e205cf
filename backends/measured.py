"""What all measured backends share: prices and timings of graphs that run on this machine.

A candidate is priced in its fused context, because its whole neighbourhood runs as the runtime
optimises it, which decides what fuses. The candidates of a neighbourhood and `keep` are timed
interleaved. What runs is made anew several times on the way: two makings of the same graph differ
by a per cent or more, because their tensors lie elsewhere in memory.
"""

from __future__ import annotations

import contextlib
import math
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from actcc.backends.measure import Clocks, Limits, Measurement, Run, interleaved_anew
from actcc.errors import ActccError, ModelError, TargetError
from actcc.graph import Array, Graph, structure_hash
from actcc.memory import MemoryProfile, peak_memory
from actcc.prices import Price, PriceQuery, Source, Timing, Unpriced
from actcc.runtime import SessionSource, random_feeds, session_source
from actcc.site import KEEP

FEEDS_SEED = 0
_BLOCKS = 4
# Calls of two sessions of the same, very small graph differ by this much.
_CALL_NOISE_NS = 100.0
_COARSEST_CLOCK_S = 1e-6


class MeasuringSettings(BaseModel):
    """How a measured backend measures: part of the section `[settings]` of its profiles.

    Attributes:
        threads: that one operator may use; operators run one after another.
        neighbourhood_seconds: time for one neighbourhood with all its candidates, by the clock
            that the samples are taken with.
        model_seconds: time for one comparison of whole models, likewise.
        clock: "thread" counts the processor time of the thread that runs the model, which other
            work on the machine does not lengthen. It is used where that thread does everything;
            elsewhere, and with "wall", time is what passes.
        precision: share of the latency at which a half width is small enough to stop.
        int8_weight_bits: that layers in int8 get: 7 where a processor adds two products of 8 bits
            in 16 bits, which saturate; "auto" finds out whether this one does. None where the
            runtime does not fuse QuantizeLinear.
        placement_noise: share of the latency by which two makings of the same graph still differ
            after several were made of each, because their tensors lie elsewhere in memory.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    threads: int = Field(default=1, ge=1)
    neighbourhood_seconds: float = Field(default=0.5, gt=0)
    model_seconds: float = Field(default=6.0, gt=0)
    clock: Literal["thread", "wall"] = "thread"
    precision: float = Field(default=0.005, gt=0, lt=1)
    int8_weight_bits: Literal[7, 8, "auto"] | None = None
    placement_noise: float = Field(default=0.005, ge=0, lt=1)

    @property
    def clocks(self) -> Clocks:
        """What samples and limits are timed with.

        Where processor time is counted the limits are of that too: on a busy machine the user
        waits longer, for figures that are as good.
        """
        if self.counts_processor_time:
            return Clocks(samples=time.thread_time_ns, waiting=time.thread_time_ns)
        return Clocks()

    @property
    def runs_in_one_thread(self) -> bool:
        """Whether the thread that asks for a run does all of its work."""
        return self.threads == 1

    @property
    def counts_processor_time(self) -> bool:
        """Whether the clock "thread" is asked for, true to the work, and fine enough here."""
        return (
            self.clock == "thread"
            and self.runs_in_one_thread
            and time.get_clock_info("thread_time").resolution <= _COARSEST_CLOCK_S
        )

    @property
    def text(self) -> str:
        """Threads and clock, for the tool's name."""
        threads = f"{self.threads} thread{'' if self.threads == 1 else 's'}"
        return f"{threads}, {'thread' if self.counts_processor_time else 'wall'} time"


@dataclass(frozen=True)
class TimedGraph:
    """One graph to time: what its runs are made from, and what they are fed."""

    source: Any
    values: Mapping[str, Any]


class MeasuredBackend(ABC):
    """Prices and times by running; a backend says how a run is made, and where its time goes."""

    def __init__(self, measuring: MeasuringSettings, tool: str) -> None:
        self._measuring = measuring
        self._tool = tool

    @abstractmethod
    def values(self, feeds: Mapping[str, Array]) -> Mapping[str, Any]:
        """Feeds as the runtime keeps them, so that runs do not copy them."""

    def loaded(self, source: SessionSource, values: Mapping[str, Any]) -> TimedGraph:
        """What is done once a graph, however often its runs are made anew."""
        return TimedGraph(source, values)

    def structure(self, graph: Graph) -> str:
        """A hash that is equal for graphs that take the same time."""
        return structure_hash(graph)

    @abstractmethod
    def prepare(self, timed: TimedGraph) -> Run:
        """Load a graph and run it once.

        Raises:
            ModelError: the runtime cannot load the graph.
            PricingError: it does not run on the values.
            TargetError: the runtime does not start on this machine.
        """

    @property
    def tool(self) -> str:
        """Runtime with its version, all settings that decide a latency, and the processor."""
        return self._tool

    @property
    def source(self) -> Source:
        """Every figure is measured."""
        return "measured"

    @property
    def cacheable(self) -> bool:
        """A measurement takes half a second, so it is kept."""
        return True

    def price(self, query: PriceQuery) -> dict[str, Price | Unpriced]:
        """A price for `keep` and each candidate; graphs of equal structure share one.

        A candidate that the runtime cannot load or run is unpriced, and so is everything where
        it cannot run the neighbourhood as it is.

        Raises:
            TargetError: the runtime does not start on this machine.
        """
        graphs = {KEEP: query.baseline, **query.candidates}
        with contextlib.ExitStack() as files:
            structures, jobs, unpriced = self._jobs(graphs, files)
            if KEEP in unpriced:
                reason = f"the neighbourhood as it is cannot be timed: {unpriced[KEEP].reason}"
                return dict.fromkeys(graphs, Unpriced(reason))
            found = self.measure(list(jobs.values()), self._measuring.neighbourhood_seconds)
        by_structure = dict(zip(jobs, found, strict=True))
        prices = {name: self._price(by_structure[key]) for name, key in structures.items()}
        return {name: prices.get(name) or unpriced[name] for name in graphs}

    def _jobs(
        self, graphs: Mapping[str, Graph], files: contextlib.ExitStack
    ) -> tuple[dict[str, str], dict[str, TimedGraph], dict[str, Unpriced]]:
        """Structure by candidate, job by structure, and what cannot be run; `keep` comes first."""
        structures: dict[str, str] = {}
        jobs: dict[str, TimedGraph] = {}
        unpriced: dict[str, Unpriced] = {}
        fed: dict[object, Mapping[str, Any]] = {}
        for name, graph in graphs.items():
            try:
                structure = self.structure(graph)
                if structure not in jobs:
                    # Shared between the candidates: making random values can outlast a session.
                    inputs = tuple((t.name, graph.types.get(t.name)) for t in graph.inputs)
                    if inputs not in fed:
                        fed[inputs] = self.values(random_feeds(graph, FEEDS_SEED))
                    job = self.loaded(files.enter_context(session_source(graph)), fed[inputs])
                    self.prepare(job)
                    jobs[structure] = job
                structures[name] = structure
            except TargetError:
                raise
            except ActccError as error:
                unpriced[name] = Unpriced(str(error))
        return structures, jobs, unpriced

    def measure(self, jobs: Sequence[TimedGraph], time_limit_s: float) -> list[Measurement]:
        """All jobs, interleaved, against the first; each is made anew in every block."""

        def prepare(block: int) -> list[Run]:
            order = _creation_order(len(jobs), block)
            runs = [self.prepare(jobs[index]) for index in order]
            return [runs[order.index(index)] for index in range(len(jobs))]

        blocks = _BLOCKS if len(jobs) > 1 else 1  # alone, it has no difference to be found
        limits = Limits(time_limit_s * blocks / _BLOCKS, self._measuring.precision)
        return interleaved_anew(prepare, limits, blocks=blocks, clocks=self._measuring.clocks)

    def _price(self, found: Measurement) -> Price:
        # Zero only for `keep` itself and graphs of its structure.
        if found.difference_ns == 0 and found.difference_noise_ns == 0:
            return Price(found.latency_ns, 0.0, 0.0, self.source, self.tool)
        placement = self._measuring.placement_noise * found.latency_ns + _CALL_NOISE_NS
        noise = math.hypot(found.difference_noise_ns, placement)
        difference = found.difference_ns if abs(found.difference_ns) > noise else 0.0
        return Price(found.latency_ns, difference, noise, self.source, self.tool)

    def time_models(
        self, models: Sequence[Graph], feeds: Mapping[str, Array] | None = None
    ) -> list[Timing]:
        """Whole models, interleaved, on `feeds` or random values.

        Raises:
            ModelError: the runtime cannot load a model, or a shape is not static.
            PricingError: no values can be made up for an input, or a model does not run on them.
            TargetError: the runtime does not start on this machine.
        """
        with contextlib.ExitStack() as files:
            jobs = [
                self.loaded(
                    files.enter_context(session_source(model)),
                    self.values(random_feeds(model, FEEDS_SEED) if feeds is None else feeds),
                )
                for model in models
            ]
            peaks = [self._peak_bytes(model) for model in models]
            found = self.measure(jobs, self._measuring.model_seconds)
        return [self.timing(one, peak) for one, peak in zip(found, peaks, strict=True)]

    def timing(self, found: Measurement, peak_bytes: int | None = None) -> Timing:
        """What a measurement of a whole model amounts to, with the noise of its placement."""
        own = found.ratio == 1.0 and found.ratio_noise == 0.0
        placement = 0.0 if own else self._measuring.placement_noise * found.ratio
        return Timing(
            latency_ns=found.latency_ns,
            noise_ns=found.latency_noise_ns,
            source=self.source,
            tool=self.tool,
            peak_bytes=peak_bytes,
            ratio=found.ratio,
            ratio_noise=math.hypot(found.ratio_noise, placement),
        )

    def _peak_bytes(self, model: Graph) -> int | None:
        """None for a network whose sizes depend on data: it can be timed all the same."""
        try:
            return self.memory(model).peak_bytes
        except ModelError:
            return None

    def memory(self, model: Graph) -> MemoryProfile:
        """Live bytes of activations; the runtime writes every tensor in its own type."""
        return peak_memory(model)


def _creation_order(count: int, block: int) -> list[int]:
    """Where a session's tensors lie depends on what was made before it, so no one is always last:
    in turn forwards, backwards, and both again from the middle."""
    order = list(range(count))
    if block % 4 >= 2:
        order = order[count // 2 :] + order[: count // 2]
    return order[::-1] if block % 2 else order
