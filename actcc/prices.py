"""Prices, and the protocol that every backend fulfils."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeAlias, runtime_checkable

from actcc.graph import Array, Graph
from actcc.memory import MemoryProfile
from actcc.runtime import ModelRun, SessionSource

Source = Literal["measured", "compiled", "estimated"]
TaskMap: TypeAlias = Callable[[Callable[[Any], Any], Sequence[Any]], list[Any]]
"""Results of a picklable function for picklable tasks, in their order."""


@dataclass(frozen=True)
class Price:
    """Latency of a candidate in its fused context.

    Attributes:
        latency_ns: of the whole neighbourhood with the candidate in it.
        difference_ns: against `keep` in the same neighbourhood; 0 where it is within the noise.
        noise_ns: half width of the interval in which the difference lies; 0 if deterministic.
        source: how the figure came about.
        tool: name, version and settings of what gave it.
    """

    latency_ns: float
    difference_ns: float
    noise_ns: float
    source: Source
    tool: str


@dataclass(frozen=True)
class Unpriced:
    """A candidate that the backend cannot price; it is not offered, and never costs 0."""

    reason: str


@dataclass(frozen=True)
class PriceQuery:
    """A site's neighbourhood, as it is and with each candidate; all shapes are static.

    Attributes:
        baseline: the neighbourhood with the candidate `keep`.
        candidates: the same neighbourhood by candidate name.
    """

    baseline: Graph
    candidates: Mapping[str, Graph]


@dataclass(frozen=True)
class Timing:
    """Latency of a whole model on a target.

    Attributes:
        latency_ns: median.
        noise_ns: half width of the interval in which the median lies; 0 if deterministic.
        peak_bytes: peak memory of activations, by the target's own rules; None where a tensor's
            size depends on data.
        ratio: latency relative to the first model of the same interleaved run.
        ratio_noise: half width of the interval in which the ratio lies.
        dram_bytes: peak use of the memory outside the chip; None where the backend does not know.
    """

    latency_ns: float
    noise_ns: float
    source: Source
    tool: str
    peak_bytes: int | None
    ratio: float = 1.0
    ratio_noise: float = 0.0
    dram_bytes: int | None = None


@dataclass(frozen=True)
class LayerTime:
    """Where the latency goes: one row of `actcc inspect`."""

    name: str
    op: str
    latency_ns: float
    bound: str = ""


class Backend(Protocol):
    """Prices candidates and times whole models on one target."""

    @property
    def tool(self) -> str:
        """Name, version and settings of what gives the figures; part of every cache key."""

    @property
    def source(self) -> Source:
        """How its figures come about."""

    @property
    def cacheable(self) -> bool:
        """Whether a price, or what a `NetworkBackend` says of a network, is kept between runs."""

    def price(self, query: PriceQuery) -> dict[str, Price | Unpriced]:
        """A price for `keep` and for each candidate of the query."""

    def time_models(
        self, models: Sequence[Graph], feeds: Mapping[str, Array] | None = None
    ) -> list[Timing]:
        """Whole-model latency of each model, measured interleaved where it is measured.

        Args:
            feeds: what they are run on; random values where it is left out.

        Raises:
            PricingError: the target cannot price or time a model, whatever it is worth otherwise.
        """

    def memory(self, model: Graph) -> MemoryProfile:
        """Live bytes of activations, by the target's own rules of fusion and element size."""

    def layers(self, model: Graph) -> list[LayerTime]:
        """Latency by layer, in the order of execution."""


@dataclass(frozen=True)
class NetworkTimes:
    """Where the latency of a whole network goes.

    Attributes:
        node_ns: by name of the ONNX node that the time is spent for; the sum is the network's
            latency. What runs as one may stand under any of its nodes.
    """

    node_ns: Mapping[str, float]
    source: Source
    tool: str


@runtime_checkable
class NetworkBackend(Backend, Protocol):
    """A backend whose prices are those in the whole network, not in a neighbourhood.

    For a compiler that schedules a network as a whole and says what each part of it costs.
    """

    def network_times(
        self, models: Sequence[Graph], run_tasks: TaskMap
    ) -> list[NetworkTimes | Unpriced]:
        """Latency by node of each model, or why it cannot be priced.

        Args:
            run_tasks: maps a function over tasks on as many workers as the run has.
        """


@runtime_checkable
class RuntimeBackend(Backend, Protocol):
    """A backend whose target runs models on this machine, in another runtime than ONNX Runtime.

    Accuracy is observed in that runtime, so that what it computes otherwise is seen.
    """

    def open(self, source: SessionSource) -> ModelRun:
        """A model as the target runs it; its inputs may have another shape in every run.

        Args:
            source: from `actcc.runtime.session_source`; not needed any more afterwards.

        Raises:
            ModelError: the runtime cannot load the model.
        """
