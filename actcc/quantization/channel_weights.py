"""How much an error in each channel of a tensor counts: by what the layers that read it make of it.

An int8 tensor has one step for all of its channels. A channel of small values that the next layer
multiplies by large weights needs that step to be small, whatever the values of the others are. The
error of layer z = W·x in output o, against the spread of that output, is

    Σ_c W[o, c]² · error_c² / var(z_o)        hence      weight_c = Σ_o W[o, c]² / var(z_o)

Activations, transpositions, padding and pooling pass the weights on to what they read. A reader
that is no layer counts all channels alike.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from actcc.activations import Match
from actcc.graph import Array, Graph, Node, Tensor

_SAME_CHANNELS = frozenset({"MaxPool", "AveragePool", "Pad", "Resize"})
_LAYERS = frozenset({"Conv", "Gemm"})
ChannelWeights = tuple[int, Array]
"""Axis of the channels, and the weight of each; their mean is 1."""


def layer_outputs(graph: Graph) -> list[str]:
    """Names of the tensors whose spread by channel (axis 1) `channel_weights` needs."""
    return [node.outputs[0].name for node in graph.nodes() if node.op in _LAYERS]


def channel_weights(
    graph: Graph, matches: Sequence[Match], variances: Mapping[str, Array]
) -> dict[str, ChannelWeights]:
    """The weights of each tensor's channels, by name; a tensor that is left out has equal ones.

    Args:
        variances: of each layer's output, by channel.
    """
    found: dict[str, ChannelWeights] = {}
    last = {match.nodes[-1].name: match for match in matches}
    inside = {node.name: match for match in matches for node in match.nodes}
    for node in reversed(list(graph.nodes())):
        for tensor in node.outputs:
            weights = _of_tensor(graph, tensor, last, inside, variances, found)
            if weights is not None:
                found[tensor.name] = weights
    for tensor in graph.inputs:
        weights = _of_tensor(graph, tensor, last, inside, variances, found)
        if weights is not None:
            found[tensor.name] = weights
    return found


def _of_tensor(
    graph: Graph,
    tensor: Tensor,
    last: Mapping[str, Match],
    inside: Mapping[str, Match],
    variances: Mapping[str, Array],
    known: Mapping[str, ChannelWeights],
) -> ChannelWeights | None:
    readers = graph.consumers(tensor)
    parts: list[ChannelWeights] = []
    alike = graph.is_output(tensor)
    for reader in readers:
        match = inside.get(reader.name)
        if match is not None:
            part = known.get(match.writes.name) if match.reads is tensor else None
        else:
            part = _through(graph, reader, tensor, variances, known)
        if part is None:
            alike = True
        else:
            parts.append(part)
    if not parts or len({axis for axis, _ in parts}) > 1:
        return None
    total = np.sum([weights for _, weights in parts], axis=0) + (1.0 if alike else 0.0)
    return parts[0][0], total / total.mean()


def _through(
    graph: Graph,
    node: Node,
    tensor: Tensor,
    variances: Mapping[str, Array],
    known: Mapping[str, ChannelWeights],
) -> ChannelWeights | None:
    """What a reader says of the channels of its first operand."""
    if node.inputs[0] is not tensor:
        return None
    if node.op in _LAYERS:
        weights = _of_layer(graph, node, variances)
        return None if weights is None else (1, weights)
    behind = known.get(node.outputs[0].name)
    if behind is None:
        return None
    axis, weights = behind
    shape = graph.types[tensor.name].shape or ()
    if node.op == "Transpose":
        order = node.attrs.get("perm") or range(len(shape))[::-1]
        return list(order)[axis], weights
    # Pad and Resize may make channels of their own.
    same = node.op in _SAME_CHANNELS and axis < len(shape) and shape[axis] == len(weights)
    return behind if same else None


def _of_layer(graph: Graph, node: Node, variances: Mapping[str, Array]) -> Array | None:
    weights, spread = graph.constant(node.inputs[1]), variances.get(node.outputs[0].name)
    if weights is None or spread is None or node.attrs.get("transA", 0):
        return None
    if node.op == "Gemm" and not node.attrs.get("transB", 0):
        weights = weights.T
    groups = int(node.attrs.get("group", 1))
    energy = np.square(weights.astype(np.float64)).reshape(*weights.shape[:2], -1).sum(axis=2)
    share = energy / np.maximum(spread, spread.mean() * 1e-4 + 1e-12)[:, None]
    by_input: Array = share.reshape(groups, -1, weights.shape[1]).sum(axis=1).reshape(-1)
    mean = float(by_input.mean())
    return by_input / mean if mean > 0 else None
