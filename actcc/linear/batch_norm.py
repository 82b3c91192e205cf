"""BatchNormalization in inference: one scale and shift for each channel.

γ · (x − μ) / √(σ² + ε) + β  =  s · x + t,    s = γ / √(σ² + ε),   t = β − μ·s
"""

from __future__ import annotations

import numpy as np

from actcc.graph.graph import Graph
from actcc.graph.view import Array, Node


def training_obstacle(graph: Graph, node: Node) -> str:
    """Why a BatchNormalization is not one scale and shift for each channel; empty where it is."""
    if node.attrs.get("training_mode", 0) or any(
        tensor.outputs or graph.is_output(tensor) for tensor in node.outputs[1:]
    ):
        return "it is in training mode"
    if graph.opset < 7 and not node.attrs.get("is_test", 0):
        return "it is in training mode (is_test is not set)"
    if graph.opset < 9 and not node.attrs.get("spatial", 1):
        return "its statistics are not per channel (spatial is 0)"
    return ""


def statistics_as_scale(graph: Graph, node: Node) -> tuple[Array, Array] | None:
    """s and t, float64 [channels], which may not be finite; None where they are not constant."""
    constants = [graph.constant(tensor) for tensor in node.inputs[1:5]]
    found = [value.astype(np.float64) for value in constants if value is not None]
    if len(found) < 4:
        return None
    gamma, beta, mean, variance = found
    with np.errstate(all="ignore"):
        scale = gamma / np.sqrt(variance + node.attrs.get("epsilon", 1e-5))
        return scale, beta - mean * scale
