"""The measured backend: what ONNX Runtime really takes on this machine.

A candidate is priced in its fused context, because its whole neighbourhood runs at the runtime's
full graph optimisation, which decides what fuses. The candidates of a neighbourhood and `keep` are
timed interleaved. Sessions are made anew several times on the way: two sessions of the same graph
differ by a per cent or more, because their tensors lie elsewhere in memory.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from actcc.backends.measure import Limits, Measurement, Run, interleaved_anew
from actcc.backends.onnx_layers import profiled_layers
from actcc.backends.onnx_session import (
    Settings,
    bound_run,
    host_values,
    open_session,
    read_settings,
    tool_text,
)
from actcc.errors import ActccError, ModelError, TargetError
from actcc.graph import Array, Graph, structure_hash
from actcc.latency_models import Profile
from actcc.memory import MemoryProfile, peak_memory
from actcc.prices import LayerTime, Price, PriceQuery, Source, Timing, Unpriced
from actcc.runtime import SessionSource, random_feeds, session_source
from actcc.site import KEEP

_BLOCKS = 4
# Calls of two sessions of the same, very small graph differ by this much.
_CALL_NOISE_NS = 100.0
_FEEDS_SEED = 0


@dataclass(frozen=True)
class _Job:
    """One graph to time: what its sessions are made from, and what they are fed."""

    source: SessionSource
    values: Mapping[str, Any]


class OnnxRuntimeBackend:
    """Prices and times with ONNX Runtime on this machine.

    Raises:
        TargetError: the profile's settings do not fit, or name a provider that is not installed.
    """

    def __init__(self, profile: Profile) -> None:
        self.settings: Settings = read_settings(profile)
        self._tool = tool_text(self.settings)

    @property
    def tool(self) -> str:
        """Runtime version, providers with their options, threads, level, and the processor."""
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
            TargetError: an execution provider does not start on this machine.
        """
        graphs = {KEEP: query.baseline, **query.candidates}
        with contextlib.ExitStack() as files:
            structures, jobs, unpriced = self._jobs(graphs, files)
            if KEEP in unpriced:
                reason = f"the neighbourhood as it is cannot be timed: {unpriced[KEEP].reason}"
                return dict.fromkeys(graphs, Unpriced(reason))
            found = self._measure(list(jobs.values()), self.settings.neighbourhood_seconds)
        by_structure = dict(zip(jobs, found, strict=True))
        prices = {name: self._price(by_structure[key]) for name, key in structures.items()}
        return {name: prices.get(name) or unpriced[name] for name in graphs}

    def _jobs(
        self, graphs: Mapping[str, Graph], files: contextlib.ExitStack
    ) -> tuple[dict[str, str], dict[str, _Job], dict[str, Unpriced]]:
        """Structure by candidate, job by structure, and what cannot be run; `keep` comes first."""
        structures: dict[str, str] = {}
        jobs: dict[str, _Job] = {}
        unpriced: dict[str, Unpriced] = {}
        fed: dict[object, Mapping[str, Any]] = {}
        for name, graph in graphs.items():
            try:
                structure = structure_hash(graph)
                if structure not in jobs:
                    # Shared between the candidates: making random values can outlast a session.
                    inputs = tuple((t.name, graph.types.get(t.name)) for t in graph.inputs)
                    if inputs not in fed:
                        fed[inputs] = host_values(random_feeds(graph, _FEEDS_SEED))
                    job = _Job(files.enter_context(session_source(graph)), fed[inputs])
                    self._prepare([job])
                    jobs[structure] = job
                structures[name] = structure
            except TargetError:
                raise
            except ActccError as error:
                unpriced[name] = Unpriced(str(error))
        return structures, jobs, unpriced

    def _prepare(self, jobs: Sequence[_Job]) -> list[Run]:
        return [bound_run(open_session(job.source, self.settings), job.values) for job in jobs]

    def _measure(self, jobs: Sequence[_Job], time_limit_s: float) -> list[Measurement]:
        def prepare(block: int) -> list[Run]:
            order = _creation_order(len(jobs), block)
            runs = self._prepare([jobs[index] for index in order])
            return [runs[order.index(index)] for index in range(len(jobs))]

        blocks = _BLOCKS if len(jobs) > 1 else 1  # alone, it has no difference to be found
        limits = Limits(time_limit_s * blocks / _BLOCKS, self.settings.precision)
        return interleaved_anew(prepare, limits, blocks=blocks, clocks=self.settings.clocks)

    def _price(self, found: Measurement) -> Price:
        # Zero only for `keep` itself and graphs of its structure.
        if found.difference_ns == 0 and found.difference_noise_ns == 0:
            return Price(found.latency_ns, 0.0, 0.0, self.source, self.tool)
        placement = self.settings.placement_noise * found.latency_ns + _CALL_NOISE_NS
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
            TargetError: an execution provider does not start on this machine.
        """
        with contextlib.ExitStack() as files:
            jobs = [
                _Job(
                    files.enter_context(session_source(model)),
                    host_values(random_feeds(model, _FEEDS_SEED) if feeds is None else feeds),
                )
                for model in models
            ]
            peaks = [self._peak_bytes(model) for model in models]
            found = self._measure(jobs, self.settings.model_seconds)
        return [self._timing(one, peak) for one, peak in zip(found, peaks, strict=True)]

    def _timing(self, found: Measurement, peak_bytes: int | None) -> Timing:
        own = found.ratio == 1.0 and found.ratio_noise == 0.0
        placement = 0.0 if own else self.settings.placement_noise * found.ratio
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

    def layers(self, model: Graph) -> list[LayerTime]:
        """Latency by node of the optimised graph, in the order of execution.

        From the runtime's own profiler. Writing the profile costs time too, so its figures only
        say how the latency is shared out; the rows add up to the latency without it.

        Raises:
            ModelError: the runtime cannot load or run the model, or a shape is not static.
            TargetError: an execution provider does not start on this machine.
        """
        values = host_values(random_feeds(model, _FEEDS_SEED))
        with session_source(model) as source:
            (found,) = self._measure([_Job(source, values)], self.settings.model_seconds)
            return profiled_layers(model, source, values, self.settings, found.latency_ns)


def _creation_order(count: int, block: int) -> list[int]:
    """Where a session's tensors lie depends on what was made before it, so no one is always last:
    in turn forwards, backwards, and both again from the middle."""
    order = list(range(count))
    if block % 4 >= 2:
        order = order[count // 2 :] + order[: count // 2]
    return order[::-1] if block % 2 else order
