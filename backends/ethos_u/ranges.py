"""Which values a tensor takes, and the int8 quantization that follows from it.

With calibration samples the range of a tensor is the one of least error over what ONNX Runtime
computes for it (`distribution`). Without them it is [-6, 6], and behind an activation the image of
that: enough to price with, since an Ethos-U takes as long whatever the scales are, and never
written to a file that is to be run.

Operators that TFLite defines for one scale on both sides (MAX_POOL_2D, CONCATENATION, RESHAPE, …)
tie their tensors together: these share one quantization, that of their common range.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx

from actcc.activations import Activation, Match, find_activations
from actcc.backends.ethos_u.channel_weights import (
    ChannelWeights,
    channel_weights,
    layer_outputs,
)
from actcc.backends.ethos_u.distribution import Distribution, Range
from actcc.backends.ethos_u.network import Quantization, int8_range
from actcc.calibration import Sample
from actcc.errors import PricingError
from actcc.graph import Array, Graph, Node
from actcc.runtime import run, session

DEFAULT_RANGE: Range = (-6.0, 6.0)
_GRID = 513
_SAMPLES_OF_VARIANCES = 8

# TFLite's int8 specification fixes the output of these.
LOGISTIC = Quantization((1 / 256,), (-128,))
TANH = Quantization((1 / 128,), (0,))
_FIXED: Mapping[str, Quantization] = MappingProxyType({"Sigmoid": LOGISTIC, "Tanh": TANH})
FIXED_OPERATORS: Mapping[str, Quantization] = MappingProxyType({"Softmax": LOGISTIC})
# fmt: off
ONE_SCALE = frozenset({
    "AveragePool", "Cast", "Concat", "DepthToSpace", "Dropout", "Flatten", "Gather",
    "GlobalMaxPool", "Identity", "Max", "MaxPool", "Min", "Pad", "ReduceMax", "ReduceMin",
    "Reshape", "Resize", "Slice", "SpaceToDepth", "Split", "Squeeze", "Transpose", "Unsqueeze",
    "Upsample",
})
# fmt: on
# These change where values lie, and nothing else.
_MOVERS = frozenset({"Flatten", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})


def observed_ranges(graph: Graph, samples: Sequence[Sample]) -> dict[str, Range]:
    """The range of least error over some samples, by tensor; see `observed`.

    Raises:
        ModelError: ONNX Runtime cannot run the graph on them.
        PricingError: a value is not finite.
    """
    functions = _only_readers(graph, find_activations(graph))
    found = observed(graph, samples)
    return {name: values.best_range(functions.get(name)) for name, values in found.items()}


def observed(graph: Graph, samples: Sequence[Sample]) -> dict[str, Distribution]:
    """What values every float tensor of the main graph takes that int8 stands for, by name: all
    but those inside an activation. Values count by `channel_weights`.

    Raises:
        ModelError: ONNX Runtime cannot run the graph on them.
        PricingError: a value is not finite.
    """
    matches = find_activations(graph)
    runner = session(_with_all_outputs(graph, matches), optimise=False)
    weights = channel_weights(graph, matches, _variances(graph, runner, samples))
    found: dict[str, Distribution] = {}
    written = [tensor.name for node in graph.nodes() for tensor in node.outputs]
    for sample in samples:
        values = {**sample.inputs, **run(runner, sample.inputs)}
        for name in (*sample.inputs, *written):  # the first that is not finite is to blame
            if name in values and values[name].dtype.kind == "f" and values[name].size:
                _require_finite(name, values[name], sample)
                counted = _along(weights.get(name), values[name])
                found.setdefault(name, Distribution()).add(values[name], counted)
    return found


def _variances(graph: Graph, runner: Any, samples: Sequence[Sample]) -> dict[str, Array]:
    """The variance of each layer's output over a few samples, by channel."""
    names = layer_outputs(graph)
    found: dict[str, Array] = {}
    for sample in samples[:_SAMPLES_OF_VARIANCES]:
        values = run(runner, sample.inputs)
        for name in names:
            if name in values and values[name].ndim > 1:
                others = tuple(axis for axis in range(values[name].ndim) if axis != 1)
                with np.errstate(all="ignore"):  # what is not finite is said later
                    squares = values[name].astype(np.float64).var(axis=others)
                found[name] = found.get(name, 0.0) + np.nan_to_num(squares)
    return found


def _along(weights: ChannelWeights | None, values: Array) -> Array | None:
    """Weights of channels, to be broadcast to the values."""
    if weights is None or weights[0] >= values.ndim:
        return None
    axis, of_channels = weights
    if values.shape[axis] != len(of_channels):
        return None
    shape = [1] * values.ndim
    shape[axis] = -1
    return of_channels.reshape(shape)


def _with_all_outputs(graph: Graph, matches: Sequence[Match]) -> onnx.ModelProto:
    """The model with every float tensor as an output, but for those inside an activation."""
    model = graph.to_proto()
    known = {tensor.name for tensor in model.graph.output}
    inside = {
        tensor.name
        for match in matches
        for node in match.nodes
        for tensor in node.outputs
        if tensor is not match.writes
    }
    for node in graph.nodes():
        for tensor in node.outputs:
            wanted = tensor.name not in known | inside and not tensor.is_empty()
            if wanted and _is_float(graph, tensor.name):
                model.graph.output.append(onnx.ValueInfoProto(name=tensor.name))
    return model


def _only_readers(graph: Graph, matches: Sequence[Match]) -> dict[str, Activation]:
    """The activation that alone reads a tensor, by the tensor's name."""
    found: dict[str, Activation] = {}
    for match in matches:
        if match.activation.name == "PRelu":
            continue  # a slope for each channel is no function of the value
        tensor, readers = match.reads, {node.name for node in match.nodes}
        while {reader.name for reader in graph.consumers(tensor)} <= readers:
            if graph.is_output(tensor):
                break
            found[tensor.name] = match.activation
            mover = graph.producer(tensor)
            if mover is None or mover.op not in _MOVERS:
                break
            tensor, readers = mover.inputs[0], {mover.name}
    return found


def _require_finite(name: str, values: Array, sample: Sample) -> None:
    low, high = float(values.min()), float(values.max())
    if not math.isfinite(low + high):
        raise PricingError(
            f"tensor '{name}' takes the values {low:g} to {high:g} on sample '{sample.name}', for "
            "which int8 has no range; leave that sample out, or clamp the tensor in the model"
        )


def _is_float(graph: Graph, name: str) -> bool:
    dtype = graph.dtype(name)
    return dtype is not None and dtype.kind == "f"


def image(function: Activation, values: Range) -> Range:
    """The range of a function over an interval, from a grid of points."""
    grid = np.linspace(*values, _GRID)
    if function.name == "PRelu":
        slopes = [slope for name, slope in function.parameters if name == "slope"]
        found = np.concatenate([grid, *(grid * slope for slope in slopes)])
        low = float(found.min()) if values[0] < 0 else values[0]
        return low, float(max(values[1], found.max() if min(slopes) < 0 else values[1]))
    mapped = function(grid)
    return float(mapped.min()), float(mapped.max())


def tensor_quantizations(
    graph: Graph, matches: Sequence[Match], observed: Mapping[str, Range]
) -> dict[str, Quantization]:
    """The quantization of every tensor that a run computes, by name.

    Args:
        matches: the activations of the graph.
        observed: ranges that are known; the others are `DEFAULT_RANGE` and what follows from it.
    """
    inner = {node.name for match in matches for node in match.nodes}
    nodes = [node for node in graph.nodes() if node.name not in inner]
    ranges = _all_ranges(graph, matches, observed)
    fixed = {
        m.writes.name: _FIXED[m.activation.name] for m in matches if m.activation.name in _FIXED
    }
    for node in nodes:
        if node.op in FIXED_OPERATORS:
            fixed[node.outputs[0].name] = FIXED_OPERATORS[node.op]
    groups = _Groups()
    tied: set[str] = set()  # written by an operator that keeps the scale
    for node in nodes:
        if node.op in ONE_SCALE:
            names = _tied(graph, node)
            tied.update(tensor.name for tensor in node.outputs)
            for name in names[1:]:
                groups.join(names[0], name)
    found: dict[str, Quantization] = {}
    for members in groups.of(ranges):
        # Where every value of a group comes from the same fixed scale, nothing has to be rescaled.
        sources = {fixed.get(name) for name in members if name not in tied}
        (only,) = sources if len(sources) == 1 else (None,)
        low = min(ranges[name][0] for name in members)
        high = max(ranges[name][1] for name in members)
        found.update(dict.fromkeys(members, only or int8_range(low, high)))
    return found


def _all_ranges(
    graph: Graph, matches: Sequence[Match], observed: Mapping[str, Range]
) -> dict[str, Range]:
    ranges = {t.name: observed.get(t.name, DEFAULT_RANGE) for t in graph.inputs}
    last = {match.nodes[-1].name: match for match in matches}
    for node in graph.nodes():
        match = last.get(node.name)
        for tensor in node.outputs:
            known = observed.get(tensor.name)
            if known is None and match is not None and tensor.name == match.writes.name:
                known = image(match.activation, ranges.get(match.reads.name, DEFAULT_RANGE))
            ranges[tensor.name] = known or DEFAULT_RANGE
    return ranges


def _tied(graph: Graph, node: Node) -> list[str]:
    first_only = node.op not in ("Concat", "Max", "Min")
    inputs = node.inputs[:1] if first_only else node.inputs
    computed = [t.name for t in inputs if not t.is_empty() and graph.constant(t) is None]
    return [*computed, *(t.name for t in node.outputs if not t.is_empty())]


class _Groups:
    """Disjoint sets of names."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}

    def join(self, one: str, other: str) -> None:
        """Put two names, and all that are with either, in one set."""
        self._parent[self._root(one)] = self._root(other)

    def of(self, names: Iterable[str]) -> list[list[str]]:
        """The names by set, in the order in which sets are met."""
        found: dict[str, list[str]] = {}
        for name in names:
            found.setdefault(self._root(name), []).append(name)
        return list(found.values())

    def _root(self, name: str) -> str:
        while (above := self._parent.get(name, name)) != name:
            name = above
        return name
