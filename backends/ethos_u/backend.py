"""The Ethos-U backend: what Arm's Vela compiler says of the network in int8.

Vela schedules a network as a whole, so candidates are priced in the whole network
(`actcc.prices.NetworkBackend`): one compilation for each candidate, at all of its sites.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

from actcc.backends.ethos_u.equalization import equalized
from actcc.backends.ethos_u.flatbuffer import write_flatbuffer
from actcc.backends.ethos_u.live_memory import live_memory
from actcc.backends.ethos_u.lowering import lower
from actcc.backends.ethos_u.network import FlatNetwork
from actcc.backends.ethos_u.settings import EthosUSettings, ethos_u_settings
from actcc.backends.ethos_u.vela import Compiled, compile_network, require_vela
from actcc.calibration import Sample
from actcc.errors import ModelError
from actcc.graph import Array, Graph
from actcc.latency_models import Profile
from actcc.linear import without_batch_norms
from actcc.memory import MemoryProfile
from actcc.prices import (
    LayerTime,
    NetworkTimes,
    Price,
    PriceQuery,
    Source,
    TaskMap,
    Timing,
    Unpriced,
)
from actcc.quantization import Range, observed_ranges
from actcc.site import KEEP
from actcc.tflite import TfliteModel


@dataclass(frozen=True)
class Lowered:
    """A graph on its way to the compiler.

    Attributes:
        origin: name of the ONNX node that each computed TFLite tensor belongs to.
        model: the .tflite file, with placeholder ranges.
    """

    origin: Mapping[str, str]
    model: bytes


@dataclass(frozen=True)
class CompileTask:
    """One .tflite file for one target; picklable."""

    model: bytes
    settings: EthosUSettings


@dataclass(frozen=True)
class EthosUBackend:
    """Prices and times with Vela; the same graph always costs the same.

    Attributes:
        settings: those of the profile, checked.

    Raises:
        TargetError: the profile's settings do not fit, or Vela is not installed.
    """

    profile: Profile
    settings: EthosUSettings = field(init=False, repr=False, compare=False)
    _compiled: dict[str, Compiled | Unpriced] = field(
        init=False, repr=False, compare=False, default_factory=dict
    )

    def __post_init__(self) -> None:
        require_vela(self.profile.name)
        object.__setattr__(self, "settings", ethos_u_settings(self.profile))

    @cached_property
    def tool(self) -> str:
        """Version of Vela, accelerator, and a hash of all settings."""
        version = require_vela(self.profile.name)
        return f"vela {version} {self.settings.accelerator} {self.settings.digest}"

    @property
    def source(self) -> Source:
        """Compiled: nothing ran on a device."""
        return "compiled"

    @property
    def cacheable(self) -> bool:
        """Yes: whole networks, by their content, since a compilation depends on the weights too."""
        return True

    def price(self, query: PriceQuery) -> dict[str, Price | Unpriced]:
        """A price for `keep` and for each candidate, by compiling the neighbourhood alone."""
        graphs = {KEEP: query.baseline, **query.candidates}
        found: dict[str, Compiled | Unpriced] = {}
        for name, graph in graphs.items():
            try:
                found[name] = self._compile(lowered(graph))
            except ModelError as error:
                found[name] = Unpriced(str(error))
        baseline = found[KEEP]
        if isinstance(baseline, Unpriced):
            reason = f"the neighbourhood cannot be priced: {baseline.reason}"
            return dict.fromkeys(graphs, Unpriced(reason))
        base = baseline.latency_ns
        return {
            name: result
            if isinstance(result, Unpriced)
            else Price(result.latency_ns, result.latency_ns - base, 0.0, self.source, self.tool)
            for name, result in found.items()
        }

    def network_times(
        self, models: Sequence[Graph], run_tasks: TaskMap
    ) -> list[NetworkTimes | Unpriced]:
        """Latency by node of whole networks; those that are equal in int8 are compiled once."""
        candidates = run_tasks(try_lowered, models)
        unique = {
            _key(found): found
            for found in candidates
            if isinstance(found, Lowered) and _key(found) not in self._compiled
        }
        tasks = [CompileTask(found.model, self.settings) for found in unique.values()]
        self._compiled.update(zip(unique, run_tasks(run_compile_task, tasks), strict=True))
        return [self._times(found) for found in candidates]

    def time_models(
        self, models: Sequence[Graph], feeds: Mapping[str, Array] | None = None
    ) -> list[Timing]:
        """Latency of whole models, and the SRAM and DRAM that they use.

        Where feature maps lie in DRAM, the SRAM holds those that are worth it.

        Args:
            feeds: of no account; nothing runs.

        Raises:
            PricingError: TFLite or Vela does not know an operator.
        """
        del feeds
        found = [self._compile(lowered(graph)) for graph in models]
        return [self._timing(compiled, found[0]) for compiled in found]

    def memory(self, model: Graph) -> MemoryProfile:
        """Live bytes at each node in int8, before Vela overlaps and spills.

        Raises:
            PricingError: TFLite has no int8 operator for a node.
        """
        folded = without_batch_norms(model)
        return live_memory(folded, lower(folded))

    def layers(self, model: Graph) -> list[LayerTime]:
        """Latency by row of Vela's table, under the name of the ONNX node that it comes from.

        Raises:
            PricingError: TFLite or Vela does not know an operator.
        """
        found = lowered(model)
        compiled = self._compile(found)
        return [
            LayerTime(name, layer.operator, layer.cycles * compiled.ns_per_cycle, layer.bound)
            for name, layer in zip(_owners(found, compiled), compiled.layers, strict=True)
            if layer.cycles
        ]

    def ready_for_int8(self, model: Graph, samples: Sequence[Sample]) -> Graph:
        """The model with channels of like range in front of depthwise convolutions.

        Raises:
            ModelError: ONNX Runtime cannot run the model on the samples.
            PricingError: a sample leads to a value that is not finite.
        """
        folded = without_batch_norms(model)
        return equalized(folded, observed_ranges(folded, samples), samples)

    def int8_ranges(self, model: Graph, samples: Sequence[Sample]) -> Mapping[str, Range]:
        """The range of least error over the samples, by tensor.

        Raises:
            ModelError: ONNX Runtime cannot run the model on the samples.
            PricingError: a sample leads to a value that is not finite.
        """
        return observed_ranges(without_batch_norms(model), samples)

    def int8_steps(self, model: Graph, ranges: Mapping[str, Range]) -> dict[str, tuple[float, int]]:
        """Scale and zero point of each tensor of the model that the device stores in int8.

        Raises:
            PricingError: TFLite does not know an operator.
        """
        network = lower(without_batch_norms(model), ranges)
        return {
            network.origin[tensor.name]: (tensor.quantization.scale, tensor.quantization.zero_point)
            for tensor in network.tensors
            if tensor.name in network.origin
            and tensor.quantization is not None
            and not tensor.quantization.wide
        }

    def tflite_model(self, model: Graph, ranges: Mapping[str, Range]) -> TfliteModel:
        """The model in int8 with these ranges, what Vela makes of it, and what it says of that.

        Raises:
            PricingError: TFLite or Vela does not know an operator.
        """
        network = lower(without_batch_norms(model), ranges)
        written = write_flatbuffer(network)
        compiled = compile_network(written, self.settings, keep=True)
        return TfliteModel(
            written,
            compiled.model,
            self._timing(compiled, compiled),
            tuple(tensor.name for tensor in model.inputs),
            tuple(tensor.name for tensor in model.outputs),
            network.orders,
        )

    def _timing(self, compiled: Compiled, first: Compiled) -> Timing:
        return Timing(
            latency_ns=compiled.latency_ns,
            noise_ns=0.0,
            source=self.source,
            tool=self.tool,
            peak_bytes=compiled.memory_bytes.get("sram", 0),
            ratio=compiled.cycles / first.cycles,
            dram_bytes=compiled.memory_bytes.get("dram", 0),
        )

    def _compile(self, found: Lowered) -> Compiled:
        key = _key(found)
        known = self._compiled.get(key)
        if not isinstance(known, Compiled):
            known = self._compiled[key] = compile_network(found.model, self.settings)
        return known

    def _times(self, found: Lowered | Unpriced) -> NetworkTimes | Unpriced:
        if isinstance(found, Unpriced):
            return found
        compiled = self._compiled[_key(found)]
        if isinstance(compiled, Unpriced):
            return compiled
        times: dict[str, float] = {}
        for name, layer in zip(_owners(found, compiled), compiled.layers, strict=True):
            times[name] = times.get(name, 0.0) + layer.cycles * compiled.ns_per_cycle
        return NetworkTimes(times, self.source, self.tool)


def lowered(graph: Graph) -> Lowered:
    """The graph as a .tflite file to be priced, not to be run: its ranges are placeholders.

    Raises:
        PricingError: TFLite has no int8 operator for a node.
    """
    folded = without_batch_norms(graph)  # as every converter to TFLite does
    network = lower(folded)
    return Lowered(_nodes_by_tensor(folded, network), write_flatbuffer(network))


def try_lowered(graph: Graph) -> Lowered | Unpriced:
    """`lowered`, or why it cannot be."""
    try:
        return lowered(graph)
    except ModelError as error:
        return Unpriced(str(error))


def run_compile_task(task: CompileTask) -> Compiled | Unpriced:
    """Compile one file, or say why it cannot be."""
    try:
        return compile_network(task.model, task.settings)
    except ModelError as error:
        return Unpriced(str(error))


def _nodes_by_tensor(graph: Graph, network: FlatNetwork) -> dict[str, str]:
    found: dict[str, str] = {}
    for name, tensor in network.origin.items():
        producer = graph.producer(tensor)
        if producer is None:  # an input that is moved or scaled: its first reader has it done
            readers = graph.consumers(tensor)
            producer = readers[0] if readers else None
        if producer is not None:
            found[name] = producer.name
    return found


def _owners(found: Lowered, compiled: Compiled) -> list[str]:
    """The ONNX node of each layer; one that Vela made up belongs to the layer after it."""
    known = [_owner(found, layer.tensor) for layer in compiled.layers]
    after = next((name for name in reversed(known) if name), "")
    owners: list[str] = []
    for name in reversed(known):
        after = name or after
        owners.append(after)
    return owners[::-1]


def _owner(found: Lowered, tensor: str) -> str:
    """The ONNX node that a tensor is computed for; empty for one that Vela made up."""
    if tensor in found.origin:
        return found.origin[tensor]
    # Of what Vela runs in two steps, the first writes to a tensor of this name.
    return found.origin.get(tensor.removesuffix("_intermediate"), "")


def _key(found: Lowered) -> str:
    return hashlib.sha256(found.model).hexdigest()
