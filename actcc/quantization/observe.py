"""Which values the tensors of a network take on calibration samples.

The range of a tensor is the one of least error over what ONNX Runtime computes for it
(`distribution`).
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np
import onnx

from actcc.activations import Activation, Match, find_activations
from actcc.calibration import Sample
from actcc.errors import PricingError
from actcc.graph import Array, Graph
from actcc.quantization.channel_weights import (
    ChannelWeights,
    channel_weights,
    layer_outputs,
)
from actcc.quantization.distribution import Distribution, Range
from actcc.runtime import run, session

_SAMPLES_OF_VARIANCES = 8
# These change where values lie, and nothing else.
MOVERS = frozenset({"Flatten", "Reshape", "Squeeze", "Transpose", "Unsqueeze"})


def observed_ranges(
    graph: Graph, samples: Sequence[Sample], *, finite_only: bool = False
) -> dict[str, Range]:
    """The range of least error over some samples, by tensor; see `observed`.

    Raises:
        ModelError: ONNX Runtime cannot run the graph on them.
        PricingError: a value is not finite.
    """
    functions = _only_readers(graph, find_activations(graph))
    found = observed(graph, samples, finite_only=finite_only)
    return {name: values.best_range(functions.get(name)) for name, values in found.items()}


def observed(
    graph: Graph, samples: Sequence[Sample], *, finite_only: bool = False
) -> dict[str, Distribution]:
    """What values every float tensor of the main graph takes that int8 stands for, by name: all
    but those inside an activation. Values count by `channel_weights`.

    Args:
        finite_only: leave out tensors of which a value is not finite, instead of raising.

    Raises:
        ModelError: ONNX Runtime cannot run the graph on them.
        PricingError: a value is not finite.
    """
    matches = find_activations(graph)
    runner = session(_with_all_outputs(graph, matches), optimise=False)
    weights = channel_weights(graph, matches, _variances(graph, runner, samples))
    found: dict[str, Distribution] = {}
    unbounded: set[str] = set()
    written = [tensor.name for node in graph.nodes() for tensor in node.outputs]
    for sample in samples:
        values = {**sample.inputs, **run(runner, sample.inputs)}
        for name in (*sample.inputs, *written):  # the first that is not finite is to blame
            if name in values and values[name].dtype.kind == "f" and values[name].size:
                if finite_only and not np.isfinite(values[name]).all():
                    unbounded.add(name)
                    continue
                _require_finite(name, values[name], sample)
                counted = _along(weights.get(name), values[name])
                found.setdefault(name, Distribution()).add(values[name], counted)
    return {name: values for name, values in found.items() if name not in unbounded}


def observed_tensors(
    graph: Graph, samples: Sequence[Sample], names: Collection[str]
) -> dict[str, Distribution]:
    """What values some tensors take, by name; all channels count alike. Those of which a value is
    not finite are left out.

    Raises:
        ModelError: ONNX Runtime cannot run the graph on them.
    """
    found = {name: Distribution() for name in names}
    for values in tensor_values(graph, samples, names):
        for name in list(found):
            if np.isfinite(values[name]).all():
                found[name].add(values[name])
            else:
                del found[name]
    return found


def tensor_values(
    graph: Graph, samples: Sequence[Sample], names: Collection[str]
) -> Iterator[dict[str, Array]]:
    """What some tensors are in a run on each sample, by name.

    Raises:
        ModelError: ONNX Runtime cannot run the graph on it.
    """
    model = graph.to_proto()
    known = {tensor.name for tensor in (*model.graph.output, *model.graph.input)}
    wanted = [onnx.ValueInfoProto(name=name) for name in dict.fromkeys(names) if name not in known]
    model.graph.output.extend(wanted)
    runner = session(model, optimise=False)
    for sample in samples:
        values = {**sample.inputs, **run(runner, sample.inputs)}
        yield {name: values[name] for name in names}


def channel_values(
    graph: Graph, samples: Sequence[Sample], names: Collection[str]
) -> Iterator[dict[str, Array]]:
    """The same by channel, axis 1 of a tensor: [channels, values of one].

    Raises:
        ModelError: ONNX Runtime cannot run the graph on it.
    """
    for seen in tensor_values(graph, samples, names):
        yield {
            name: np.moveaxis(values, 1, 0).reshape(values.shape[1], -1)
            for name, values in seen.items()
        }


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
            if mover is None or mover.op not in MOVERS:
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
