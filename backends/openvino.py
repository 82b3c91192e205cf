"""OpenVINO: what a model really takes on this machine, compiled from the ONNX file itself."""

from __future__ import annotations

from collections.abc import Mapping
from statistics import median
from typing import Any

import numpy as np

from actcc.backends.measure import Run
from actcc.backends.measured import FEEDS_SEED, MeasuredBackend, TimedGraph
from actcc.backends.openvino_model import (
    OpenVinoSettings,
    compile_model,
    import_model,
    import_openvino,
    open_model,
    request_for,
    runner,
    tool_text,
)
from actcc.errors import ModelError, PricingError
from actcc.graph import Array, Graph
from actcc.graph.operators import HEAVY
from actcc.latency_models import Profile, checked_settings
from actcc.prices import LayerTime
from actcc.runtime import ModelRun, SessionSource, random_feeds, session_source

_PROFILED_RUNS = 20
# What OpenVINO calls a convolution after it has taken the bias out of it.
_SPLIT_OFF = "/WithoutBiases"


class OpenVinoBackend(MeasuredBackend):
    """Prices and times with OpenVINO on this machine.

    Raises:
        TargetError: the profile's settings do not fit, OpenVINO is not installed, or it has no
            such device here.
    """

    def __init__(self, profile: Profile) -> None:
        self.settings = checked_settings(OpenVinoSettings, profile)
        super().__init__(self.settings, tool_text(self.settings))

    def values(self, feeds: Mapping[str, Array]) -> Mapping[str, Any]:
        """See `MeasuredBackend`."""
        openvino = import_openvino()
        found = {}
        for name, array in feeds.items():
            try:
                # Copied: memory that OpenVINO allocates is aligned as its kernels like it.
                found[name] = openvino.Tensor(np.ascontiguousarray(array), shared_memory=False)
            except Exception as error:  # pybind's, of element types that OpenVINO does not have
                raise PricingError(
                    f"input '{name}' is {array.dtype}, which OpenVINO cannot be fed; "
                    "choose a target with another backend"
                ) from error
        return found

    def loaded(self, source: SessionSource, values: Mapping[str, Any]) -> TimedGraph:
        """The model as OpenVINO exports it: from that, a run is made in a quarter of the time."""
        return TimedGraph(self._compiled(source, values).export_model(), values)

    def prepare(self, timed: TimedGraph) -> Run:
        """See `MeasuredBackend`."""
        return runner(request_for(import_model(timed.source, self.settings), timed.values))

    def open(self, source: SessionSource) -> ModelRun:
        """See `RuntimeBackend`; on one thread, since samples go to several processes."""
        return open_model(source, self.settings.model_copy(update={"threads": 1}))

    def _compiled(self, source: SessionSource, values: Mapping[str, Any], **properties: Any) -> Any:
        shapes = {name: tuple(value.get_shape()) for name, value in values.items()}
        return compile_model(source, shapes, self.settings, **properties)

    def layers(self, model: Graph) -> list[LayerTime]:
        """Latency by node of the compiled model, in the order of execution.

        From OpenVINO's own counters, in microseconds, which only share out the latency that is
        measured without them. A row has the name of the heaviest of the model's nodes that went
        into it; its operator is OpenVINO's, followed by the kernel that runs it.

        Raises:
            ModelError: OpenVINO cannot load or run the model, or a shape is not static.
        """
        with session_source(model) as source:
            values = self.values(random_feeds(model, FEEDS_SEED))
            (found,) = self.measure([self.loaded(source, values)], self.settings.model_seconds)
            request = request_for(self._compiled(source, values, PERF_COUNT=True), values)
        rows = _median_rows(request)
        total = sum(microseconds for _, microseconds in rows.values())
        if total <= 0:
            raise ModelError("OpenVINO's counters show no time in any node; the model is too small")
        names = _original_names(request.get_compiled_model(), model)
        return [
            LayerTime(names.get(name, name), operator, found.latency_ns * own / total)
            for name, (operator, own) in rows.items()
        ]


def _median_rows(request: Any) -> dict[str, tuple[str, float]]:
    """Operator with kernel, and microseconds a run, by name of an executed node."""
    samples: dict[tuple[str, str], list[float]] = {}
    run = runner(request)
    for _ in range(_PROFILED_RUNS):
        run()
        for row in request.profiling_info:
            if row.status.name == "EXECUTED":
                key = row.node_name, f"{row.node_type} {row.exec_type}"
                samples.setdefault(key, []).append(row.real_time.total_seconds() * 1e6)
    # Of each node by itself: one that was interrupted once would take the share of the others.
    return {name: (operator, median(own)) for (name, operator), own in samples.items()}


def _original_names(compiled: Any, model: Graph) -> dict[str, str]:
    """By name of a compiled node, the heaviest of the model's nodes that it was made of."""
    operators = {str(node.name): node.op for node in model.nodes()}
    found: dict[str, str] = {}
    for node in compiled.get_runtime_model().get_ordered_ops():
        listed = node.get_rt_info()["originalLayersNames"].astype(str).split(",")
        stems = [name.removesuffix(_SPLIT_OFF) for name in listed]
        own = [name for name in stems if name in operators]
        if own:
            heavy = [name for name in own if operators[name] in HEAVY]
            found[node.get_friendly_name()] = (heavy or own)[0]
    return found
