"""Nodes that compute the same from the same inputs are computed once (common subexpressions).

    y = f(x, c), z = f(x, c)   →   y = f(x, c), readers of z read y

Two nodes are equal where operator, attributes and inputs are: the same tensor, a result of equal
nodes, or constants with equal values. Topological order makes whole equal branches fall together.

Left as they are: random operators, training, control flow and operators of other domains, which may
keep a state; Identity, which gives a tensor another name; QuantizeLinear and DequantizeLinear, of
which runtimes want one for each reader; and nodes whose both results need names of their own.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable

import numpy as np
import onnx_graphsurgeon as gs

from actcc.graph import Graph, Node
from actcc.graph.operators import ONNX_DOMAINS, PRECISION, RANDOM
from actcc.pass_api import NormalizingPass

_NEVER = RANDOM | PRECISION | {"Constant", "Identity", "If", "Loop", "Scan"}


class MergeEqualNodes(NormalizingPass):
    """Equal branches  →  one that all their readers read."""

    name = "merge-equal-nodes"

    def run(self, graph: Graph) -> tuple[Graph, list[str]]:
        """The graph itself, how many nodes went, and why equal ones stayed."""
        merged: Counter[str] = Counter()
        named: list[str] = []
        found: dict[Hashable, list[Node]] = {}
        sources: dict[str, str] = {}
        for node in list(graph.nodes()):
            key = _key(graph, node, sources)
            if key is None:
                continue
            alike = found.setdefault(key, [])
            twin = next((other for other in alike if _same_constants(graph, other, node)), None)
            if twin is None:
                alike.append(node)
                continue
            stays = _merge(graph, twin, node)
            if stays is None:
                named.append(node.name)
                continue
            merged[node.op] += 1
            alike[alike.index(twin)] = stays
            for one, other in zip(twin.outputs, node.outputs, strict=True):
                sources[other.name] = sources.get(one.name, one.name)
        notes = [f"merged {count} {op} with equal ones" for op, count in sorted(merged.items())]
        if named:
            reason = "results that are outputs of the graph need a node each"
            notes.append(f"kept {len(named)}: {reason} ('{named[0]}')")
        if merged:
            graph.prune()
        return graph, notes


def _key(graph: Graph, node: Node, sources: dict[str, str]) -> Hashable | None:
    """Equal for nodes that compute the same if their constants are equal; None for those to keep.

    Args:
        sources: of tensors that hold the same, the name that stands for all of them.
    """
    if node.domain not in ONNX_DOMAINS or node.op in _NEVER or not node.inputs:
        return None
    if node.attrs.get("training_mode", 0) or any(
        isinstance(value, gs.Graph) for value in node.attrs.values()
    ):
        return None
    attributes = tuple(sorted((name, _value(value)) for name, value in node.attrs.items()))
    present = tuple(not tensor.is_empty() for tensor in node.outputs)
    constant = [not t.is_empty() and graph.constant(t) is not None for t in node.inputs]
    pairs = zip(node.inputs, constant, strict=True)
    reads = tuple(None if fixed else sources.get(t.name, t.name) for t, fixed in pairs)
    return node.op, attributes, present, reads


def _same_constants(graph: Graph, node: Node, other: Node) -> bool:
    for one, two in zip(node.inputs, other.inputs, strict=True):
        first, second = (None if t.is_empty() else graph.constant(t) for t in (one, two))
        if one is two or first is None or second is None:
            continue
        if (first.dtype, first.shape) != (second.dtype, second.shape):
            return False
        if first.tobytes() != second.tobytes():  # 0 and -0 are equal, what is divided by them not
            return False
    return True


def _value(value: object) -> str:
    array = np.asarray(value.values) if isinstance(value, gs.Constant) else value
    if isinstance(array, np.ndarray):
        return f"{array.dtype}{array.shape}{array.tolist()}"
    return repr(array)


def _merge(graph: Graph, twin: Node, node: Node) -> Node | None:
    """Let readers of both read the one whose names are needed; None where both are."""
    stays, goes = (node, twin) if _is_named(graph, node) else (twin, node)
    if _is_named(graph, goes):
        return None
    for kept, gone in zip(stays.outputs, goes.outputs, strict=True):
        graph.redirect(graph.consumers(gone), gone, kept)
    return stays


def _is_named(graph: Graph, node: Node) -> bool:
    return any(graph.is_output(t) or graph.is_read_in_subgraph(t) for t in node.outputs)
