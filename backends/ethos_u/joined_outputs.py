"""Outputs that join what has a scale of its own: they are int16.

A detector writes boxes and scores as one output. In int8 both have one step, that of the boxes, and
scores are told apart in that step alone. What is only joined and moved on its way out is int16,
whose steps are small enough for both; what computes it stays int8.

    box  int8, own scale ────→ QUANTIZE ─┐
    score int8, 1/256 ───────→ QUANTIZE ─┴→ CONCATENATION int16 → RESHAPE, TRANSPOSE → output
"""

from __future__ import annotations

from collections.abc import Collection

from actcc.graph import Graph, Tensor
from actcc.quantization import MOVERS


def joined_outputs(graph: Graph, fixed: Collection[str]) -> frozenset[str]:
    """Names of the tensors between the parts of such outputs and the outputs themselves.

    An output counts as joined where some of its parts have a scale that TFLite fixes, as scores
    behind a Sigmoid have, and others have not.

    Args:
        fixed: tensors whose scale is fixed.
    """
    found: set[str] = set()
    for output in graph.outputs:
        path: set[str] = set()
        parts: list[str] = []
        _walk(graph, output, path, parts)
        scales = {name in fixed for name in parts}
        if len(scales) > 1 and all(_is_read_inside(graph, name, path) for name in path):
            found |= path
    return frozenset(found)


def _walk(graph: Graph, tensor: Tensor, path: set[str], parts: list[str]) -> None:
    """From an output up to what it is made of."""
    node = graph.producer(tensor)
    if node is None or node.op not in MOVERS | {"Concat"}:
        parts.append(tensor.name)
        return
    path.add(tensor.name)
    sources = node.inputs if node.op == "Concat" else node.inputs[:1]
    for source in sources:
        if graph.constant(source) is None:
            _walk(graph, source, path, parts)


def _is_read_inside(graph: Graph, name: str, path: Collection[str]) -> bool:
    written = [tensor.name for reader in graph.consumers(name) for tensor in reader.outputs]
    return all(other in path for other in written)
