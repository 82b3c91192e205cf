"""A BatchNormalization behind a layer becomes part of the layer's weights and bias.

    γ · (W·x + b − μ) / √(σ² + ε) + β  =  s · (W·x + b) + t
    s = γ / √(σ² + ε),   t = β − μ·s

What s and t do to the weights and bias of each kind of layer: `actcc.graph.linear_layer`.

Requires: inference mode with statistics per channel; constant statistics, weights and bias; the
layer's output is read by nothing else and is no output of the graph. Weights get new initializers,
so a layer that shares them is left as it is. Computed in double precision.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from actcc.graph import Graph, Node
from actcc.graph.linear_layer import linear_layer, only_read_by
from actcc.pass_api import NormalizingPass
from actcc.site import Site

_LAYERS = ("Conv", "ConvTranspose", "Gemm")


class FoldBatchNorm(NormalizingPass):
    """Conv, ConvTranspose or Gemm, then BatchNormalization  →  the layer with other weights."""

    name = "fold-batch-norm"

    def run(self, graph: Graph) -> tuple[Graph, list[str]]:
        """The graph itself, how many were folded, and why the others were not."""
        folded: Counter[str] = Counter()
        kept: dict[str, list[str]] = {}
        for batch_norm in list(graph.nodes("BatchNormalization")):
            outcome = _fold(graph, batch_norm)
            if isinstance(outcome, _Refused):
                kept.setdefault(outcome.reason, []).append(batch_norm.name)
            else:
                folded[outcome.op] += 1
        notes = [f"folded {n} BatchNormalization into {op}" for op, n in sorted(folded.items())]
        for reason, names in kept.items():
            notes.append(f"kept {len(names)} BatchNormalization: {reason} ('{names[0]}')")
        return graph, notes


@dataclass(frozen=True)
class _Refused:
    reason: str


def _fold(graph: Graph, batch_norm: Node) -> Node | _Refused:
    problem = _not_in_inference(graph, batch_norm)
    if problem:
        return _Refused(problem)
    between = batch_norm.inputs[0]
    node = graph.producer(between)
    layer = linear_layer(graph, node)
    if node is None or node.op not in _LAYERS or layer is None:
        return _Refused("no Conv, ConvTranspose or Gemm before it")
    if not only_read_by(graph, between):
        return _Refused("the layer's output is also read elsewhere")
    statistics = [graph.constant(tensor) for tensor in batch_norm.inputs[1:5]]
    if any(value is None for value in statistics):
        return _Refused("its statistics are not constant")
    if isinstance(layer, str):
        return _Refused(layer)
    gamma, beta, mean, variance = (np.asarray(value, np.float64) for value in statistics)
    with np.errstate(all="ignore"):
        scale = gamma / np.sqrt(variance + batch_norm.attrs.get("epsilon", 1e-5))
        folded = layer.scaled_behind(scale, beta - mean * scale)
    problem = layer.obstacle(folded)
    if problem:
        return _Refused(problem)
    layer.store(graph, folded)
    graph.bypass(Site([batch_norm], between, batch_norm.outputs[0]), between)
    return node


def _not_in_inference(graph: Graph, node: Node) -> str:
    if node.attrs.get("training_mode", 0) or any(
        tensor.outputs or graph.is_output(tensor) for tensor in node.outputs[1:]
    ):
        return "it is in training mode"
    if graph.opset < 7 and not node.attrs.get("is_test", 0):
        return "it is in training mode (is_test is not set)"
    if graph.opset < 9 and not node.attrs.get("spatial", 1):
        return "its statistics are not per channel (spatial is 0)"
    return ""
