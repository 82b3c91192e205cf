"""Weights fitted to feature maps in int8, before they are rounded themselves.

What int8 loses of a feature map is lost, but the layer behind can be fitted to what is left of it.
The network with its feature maps rounded is one that an approximate rewrite has changed, and the
repair (`actcc.repair`) makes good what it can, in topological order, on calibration samples without
labels, as Hubara et al. 2021 ("Accurate post training quantization with small calibration sets")
do layer by layer.

    rounded:  x → QuantizeLinear → DequantizeLinear → layer      original:  x → Identity → layer

Whether that helps is seen on samples that the fit has not seen: the fitted weights stay only where
the outputs of the rounded network, its weights rounded too, come nearer to those of the original.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx

from actcc.calibration import SampleSet
from actcc.graph import Array, Graph, Tensor
from actcc.graph.operators import CONTRACTIONS
from actcc.repair import RepairMethod
from actcc.repair.layers import Layer, find_layers
from actcc.runtime import run, session

Steps = Mapping[str, tuple[float, int]]
"""Scale and zero point by name of a tensor: real = scale · (int8 − zero point)."""

_OPSET_WITH_ROUNDING = 10
_LARGEST_WEIGHT = 127
_HELD_OUT_SHARE = 0.25
# Of a detector it takes seconds a sample; what more of them gain is little.
_MOST_SAMPLES = 24


def fit_to_int8(graph: Graph, steps: Steps, samples: SampleSet, method: RepairMethod) -> Graph:
    """A copy of a network whose weights are fitted to feature maps that are rounded to int8.

    Nodes and names stay. A network comes back as it is where nothing can be fitted without a new
    node (a MatMul without a bias), where its operator set knows no rounding (before 10, or of what
    is not float32), and where samples that are held out of the fit gain nothing by it, or there is
    only one sample.

    Raises:
        ActccError: the network cannot be run, or there are no samples.
    """
    layers, _ = find_layers(graph)
    needs_a_node = any(found.op == "MatMul" and found.bias is None for found in layers.values())
    if not layers or needs_a_node or graph.opset < _OPSET_WITH_ROUNDING or len(samples) < 2:
        return graph
    names = _rounded_tensors(graph, steps)
    if not names:
        return graph
    original, rounded = graph.copy(), graph.copy()
    for name in names:
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
    seen, held_out = samples.take(_MOST_SAMPLES).split(_HELD_OUT_SHARE, seed=0)
    refitted = method.run(original, rounded, seen).graph
    before, after = _errors(graph, (rounded, refitted), held_out)
    return _with_weights_of(refitted, graph, layers) if after < before else graph


def _errors(original: Graph, rounded: tuple[Graph, ...], samples: SampleSet) -> list[float]:
    """What each network's outputs are off, in parts of the energy of the original's, when its
    weights are rounded to int8 too.
    """
    runner = session(original, optimise=False)
    others = [session(_with_rounded_weights(graph), optimise=False) for graph in rounded]
    found = np.zeros(len(others))
    for sample in samples:
        wanted = run(runner, sample.inputs)
        for index, other in enumerate(others):
            values = run(other, sample.inputs)
            found[index] += sum(_relative(values[name], wanted[name]) for name in wanted)
    return [float(error) for error in found]


def _relative(values: Array, wanted: Array) -> float:
    exact = wanted.astype(np.float64)
    if wanted.dtype.kind != "f" or values.shape != wanted.shape or not np.any(exact):
        return 0.0
    return float(np.square(values - exact).mean() / np.square(exact).mean())


def _with_rounded_weights(graph: Graph) -> Graph:
    result = graph.copy()
    layers, _ = find_layers(graph)
    for layer in layers.values():
        result.set_input(result.node(layer.node), 1, _rounded_weights(layer))
    return result


def _rounded_weights(layer: Layer) -> Array:
    """Weights in int8 with one step for each output, as real values."""
    matrix = layer.matrix
    step = np.abs(matrix).max(axis=1, keepdims=True) / _LARGEST_WEIGHT
    return layer.tensor(np.round(matrix / np.where(step > 0, step, 1.0)) * step)


def _with_weights_of(fitted_graph: Graph, graph: Graph, layers: Mapping[str, Layer]) -> Graph:
    fitted, _ = find_layers(fitted_graph)
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
    the fit is to see behind it, nor what leaves the graph, enters a subgraph or is not float32.
    """
    activated = _read_by_an_activation(graph)
    written = [tensor for node in graph.nodes() for tensor in node.outputs]
    return [
        tensor.name
        for tensor in (*graph.inputs, *written)
        if tensor.name in steps
        and tensor.name in graph.types
        and graph.types[tensor.name].element == onnx.TensorProto.FLOAT
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
    tensor, writer = graph.tensor(name), graph.producer(but)
    readers = [node for node in graph.consumers(tensor) if node is not writer]
    graph.redirect(readers, tensor, read)
