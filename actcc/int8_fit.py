"""Weights fitted to feature maps in int8, before they are rounded themselves.

What int8 loses of a feature map is lost, but the layer behind can be fitted to what is left of it.
The network with its feature maps rounded is one that an approximate rewrite has changed, and the
repair (`actcc.repair`) makes good what it can, in topological order, on calibration samples without
labels, as Hubara et al. 2021 ("Accurate post training quantization with small calibration sets")
do layer by layer.

    rounded:  x → QuantizeLinear → DequantizeLinear → layer      original:  x → Identity → layer
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from actcc.calibration import SampleSet
from actcc.graph import Graph, Tensor
from actcc.graph.operators import CONTRACTIONS
from actcc.repair import RepairMethod
from actcc.repair.layers import find_layers

Steps = Mapping[str, tuple[float, int]]
"""Scale and zero point by name of a tensor: real = scale · (int8 − zero point)."""

_OPSET_WITH_ROUNDING = 10


def fit_to_int8(graph: Graph, steps: Steps, samples: SampleSet, method: RepairMethod) -> Graph:
    """A copy of a network whose weights are fitted to feature maps that are rounded to int8.

    Nodes and names stay. A network comes back as it is where nothing can be fitted without a new
    node (a MatMul without a bias), or where its operator set knows no rounding (before 10).

    Raises:
        ActccError: the network cannot be run, or there are no samples.
    """
    layers, _ = find_layers(graph)
    needs_a_node = any(found.op == "MatMul" and found.bias is None for found in layers.values())
    if not layers or needs_a_node or graph.opset < _OPSET_WITH_ROUNDING:
        return graph
    original, rounded = graph.copy(), graph.copy()
    for name in _rounded_tensors(graph, steps):
        scale, zero_point = steps[name]
        parameters = [np.float32(scale).reshape(()), np.int8(zero_point).reshape(())]
        with rounded.marking("int8", name, "rounded"), original.marking("int8", name, "rounded"):
            stored = rounded.insert("QuantizeLinear", [name, *parameters], name=f"{name}_int8")
            read = rounded.insert(
                "DequantizeLinear", [stored, *parameters], like=name, name=f"{name}_rounded"
            )
            _redirect(rounded, name, read, stored)
            same = original.insert("Identity", [name], like=name, name=f"{name}_rounded")
            _redirect(original, name, same, same)
    fitted, _ = find_layers(method.run(original, rounded, samples).graph)
    by_node = {found.node: found for found in fitted.values()}
    result = graph.copy()
    for layer in layers.values():
        found = by_node.get(layer.node)
        if found is None or found.biases is None:
            continue
        node = result.node(layer.node)
        result.set_input(node, 1, found.weights.copy())
        if layer.adds is not None:
            node = result.node(layer.adds)
            index = [tensor.name for tensor in node.inputs].index(str(layer.bias))
            result.set_input(node, index, found.biases.copy())
        elif len(node.inputs) > 2:
            result.set_input(node, 2, found.biases.copy())
        else:
            result.append_input(node, found.biases.copy())
    return result


def _rounded_tensors(graph: Graph, steps: Steps) -> list[str]:
    """The feature maps to round: not what a layer writes for its activation or an Add alone, which
    the fit is to see behind it, nor what leaves the graph or enters a subgraph.
    """
    activated = _read_by_an_activation(graph)
    written = [tensor for node in graph.nodes() for tensor in node.outputs]
    return [
        tensor.name
        for tensor in (*graph.inputs, *written)
        if tensor.name in steps
        and graph.consumers(tensor)
        and not graph.is_output(tensor)
        and not graph.is_read_in_subgraph(tensor)
        and not _is_seen_behind(graph, tensor, activated)
    ]


def _read_by_an_activation(graph: Graph) -> frozenset[str]:
    from actcc.activations import find_activations

    return frozenset(
        match.reads.name
        for match in find_activations(graph)
        if {n.name for n in graph.consumers(match.reads)} <= {n.name for n in match.nodes}
    )


def _is_seen_behind(graph: Graph, tensor: Tensor, activated: frozenset[str]) -> bool:
    writer, readers = graph.producer(tensor), graph.consumers(tensor)
    if writer is None or writer.op not in CONTRACTIONS:
        return False
    return tensor.name in activated or [reader.op for reader in readers] == ["Add"]


def _redirect(graph: Graph, name: str, read: Tensor, but: Tensor) -> None:
    """Let all that read a tensor read another one, but for the node that writes `but`."""
    writer = graph.producer(but)
    tensor = graph.tensor(name)
    for node in graph.consumers(tensor):
        if writer is not None and node.name == writer.name:
            continue
        for index, operand in enumerate(list(node.inputs)):
            if operand is tensor:
                graph.set_input(node, index, read)
