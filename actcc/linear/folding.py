"""A BatchNormalization behind a layer becomes part of the layer's weights and bias.

    γ · (W·x + b − μ) / √(σ² + ε) + β  =  s · (W·x + b) + t

What s and t are: `actcc.linear.batch_norm`; what they do to the weights and bias of each kind of
layer: `actcc.linear.linear_layer`.

Requires: inference mode with statistics per channel; constant statistics, weights and bias; the
layer's output is read by nothing else and is no output of the graph. Weights get new initializers,
so a layer that shares them is left as it is. Computed in double precision.
"""

from __future__ import annotations

import numpy as np

from actcc.graph import Graph, Node
from actcc.linear.batch_norm import statistics_as_scale, training_obstacle
from actcc.linear.convolution import Obstacle
from actcc.linear.linear_layer import linear_layer, only_read_by
from actcc.site import Site

_LAYERS = ("Conv", "ConvTranspose", "Gemm")


def fold_batch_norm(graph: Graph, batch_norm: Node) -> Node | Obstacle:
    """Fold one BatchNormalization into the layer before it, in place: that layer, or why not."""
    problem = training_obstacle(graph, batch_norm)
    if problem:
        return Obstacle(problem)
    between = batch_norm.inputs[0]
    node = graph.producer(between)
    layer = linear_layer(graph, node)
    if node is None or node.op not in _LAYERS or layer is None:
        return Obstacle("no Conv, ConvTranspose or Gemm before it")
    if not only_read_by(graph, between):
        return Obstacle("the layer's output is also read elsewhere")
    found = statistics_as_scale(graph, batch_norm)
    if found is None:
        return Obstacle("its statistics are not constant")
    if isinstance(layer, str):
        return Obstacle(layer)
    with np.errstate(all="ignore"):
        folded = layer.scaled_behind(*found)
    problem = layer.obstacle(folded)
    if problem:
        return Obstacle(problem)
    layer.store(graph, folded)
    graph.bypass(Site([batch_norm], between, batch_norm.outputs[0]), between)
    return node


def without_batch_norms(graph: Graph) -> Graph:
    """A copy in which all that can be folded is; the graph itself where it has none."""
    if next(graph.nodes("BatchNormalization"), None) is None:
        return graph
    folded = graph.copy()
    for batch_norm in list(folded.nodes("BatchNormalization")):
        fold_batch_norm(folded, batch_norm)
    return folded
