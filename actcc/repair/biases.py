"""Biases that only their layer reads, so that a fit may set them.

Exporters leave out biases that batch normalisation made superfluous, and let layers with equal
biases share one. Both are made good before anything is fitted, without changing a number:

    Conv, ConvTranspose, Gemm:  a third input, zero or a copy
    MatMul:                     an Add of zero behind it, or a copy in the Add that is there
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np

from actcc.graph import Graph
from actcc.repair.layer import Layer
from actcc.repair.layers import find_layers
from actcc.site import Site

_PASS = "repair"
_CANDIDATE = "bias"


def with_own_biases(graph: Graph, writes: Collection[str]) -> Graph:
    """A copy of a graph in which each of these layers has a bias that is its own.

    Their names stay, but that of a MatMul that had no bias; so does what each of them writes.

    Args:
        writes: names of what the layers write, as `find_layers` has them.
    """
    twin = graph.copy()
    found, _ = find_layers(twin)
    for name in writes:
        layer = found[name]
        with twin.marking(_PASS, name, _CANDIDATE):
            if layer.bias is None:
                _add(twin, layer)
            elif len(twin.readers(layer.bias)) > 1 or twin.is_output(layer.bias):
                _copy(twin, layer)
    return twin


def _add(graph: Graph, layer: Layer) -> None:
    """Give a layer a bias of zero."""
    node = graph.node(layer.node)
    zeros = np.zeros(layer.groups * layer.outputs, layer.dtype)
    if layer.op != "MatMul":
        if len(node.inputs) < 3:
            graph.append_input(node, zeros)
        else:
            graph.set_input(node, 2, zeros)
        return
    product = graph.insert("MatMul", node.inputs, like=layer.writes, name=f"{layer.node}_product")
    graph.replace(Site(nodes=[node], reads=product, writes=layer.writes), "Add", [product, zeros])


def _copy(graph: Graph, layer: Layer) -> None:
    """Give a layer a copy of the bias that others read as well."""
    assert layer.biases is not None
    node = graph.node(layer.adds or layer.node)
    index = next(i for i, tensor in enumerate(node.inputs) if tensor.name == layer.bias)
    graph.set_input(node, index, layer.biases.copy())
