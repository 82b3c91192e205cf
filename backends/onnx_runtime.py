"""ONNX Runtime: what a model really takes on this machine, with any execution provider."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from actcc.backends.measure import Run
from actcc.backends.measured import FEEDS_SEED, MeasuredBackend, TimedGraph
from actcc.backends.onnx_folding import structure_of_run
from actcc.backends.onnx_layers import profiled_layers
from actcc.backends.onnx_session import (
    Settings,
    bound_run,
    host_values,
    open_session,
    read_settings,
    tool_text,
)
from actcc.graph import Array, Graph, structure_hash
from actcc.latency_models import Profile
from actcc.prices import LayerTime
from actcc.runtime import random_feeds, session_source


class OnnxRuntimeBackend(MeasuredBackend):
    """Prices and times with ONNX Runtime on this machine.

    Raises:
        TargetError: the profile's settings do not fit, or name a provider that is not installed.
    """

    def __init__(self, profile: Profile) -> None:
        self.settings: Settings = read_settings(profile)
        super().__init__(self.settings, tool_text(self.settings))

    def values(self, feeds: Mapping[str, Array]) -> Mapping[str, Any]:
        """See `MeasuredBackend`."""
        return host_values(feeds)

    def structure(self, graph: Graph) -> str:
        """See `MeasuredBackend`; what is computed when the model is loaded takes no time."""
        folds = self.settings.optimization != "disabled"
        return structure_hash(structure_of_run(graph) if folds else graph)

    def prepare(self, timed: TimedGraph) -> Run:
        """See `MeasuredBackend`."""
        return bound_run(open_session(timed.source, self.settings), timed.values)

    def layers(self, model: Graph) -> list[LayerTime]:
        """Latency by node of the optimised graph, in the order of execution.

        From the runtime's own profiler. Writing the profile costs time too, so its figures only
        say how the latency is shared out; the rows add up to the latency without it.

        Raises:
            ModelError: the runtime cannot load or run the model, or a shape is not static.
            TargetError: an execution provider does not start on this machine.
        """
        values = self.values(random_feeds(model, FEEDS_SEED))
        with session_source(model) as source:
            (found,) = self.measure([TimedGraph(source, values)], self.settings.model_seconds)
            return profiled_layers(model, source, values, self.settings, found.latency_ns)
