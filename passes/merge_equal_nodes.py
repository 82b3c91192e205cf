"""Nodes that compute the same from the same inputs are computed once (common subexpressions).

    y = f(x, c), z = f(x, c)   →   y = f(x, c), readers of z read y

Two nodes are equal where operator, attributes and inputs are: the same tensor, a result of equal
nodes, or constants with equal values. Topological order makes whole equal branches fall together.

Left as they are: random operators, training, control flow and operators of other domains, which may
keep a state; Identity, which gives a tensor another name; QuantizeLinear and DequantizeLinear, of
which runtimes want one for each reader; and nodes whose both results need names of their own.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Hashable

import numpy as np
import onnx_graphsurgeon as gs

from actcc.graph import Array, Graph, Node, Tensor
from actcc.graph.operators import PRECISION, RANDOM
from actcc.pass_api import NormalizingPass

_NEVER = RANDOM | PRECISION | {"Constant", "Identity", "If", "Loop", "Scan"}


class MergeEqualNodes(NormalizingPass):
    """Equal branches  →  one that all their readers read."""

    name = "merge-equal-nodes"

    def run(self, graph: Graph) -> tuple[Graph, list[str]]:
        """The graph itself, how many nodes went, and why equal ones stayed."""
        merged: Counter[str] = Counter()
        named: list[str] = []
        found: dict[Hashable, Node] = {}
        sources: dict[int, Hashable] = {}
        for node in list(graph.nodes()):
            key = _key(graph, node, sources)
            if key is None:
                continue
            twin = found.setdefault(key, node)
            if twin is node:
                continue
            stays = _merge(graph, twin, node)
            if stays is None:
                named.append(node.name)
                continue
            merged[node.op] += 1
            found[key] = stays
            for one, other in zip(twin.outputs, node.outputs, strict=True):
                sources[id(other)] = _source(graph, one, sources)
        notes = [f"merged {count} {op} with equal ones" for op, count in sorted(merged.items())]
        if named:
            reason = "results that are outputs of the graph need a node each"
            notes.append(f"kept {len(named)}: {reason} ('{named[0]}')")
        if merged:
            graph.prune()
        return graph, notes


def _key(graph: Graph, node: Node, sources: dict[int, Hashable]) -> Hashable | None:
    """Equal for nodes that compute the same; None where a node stays as it is."""
    if node.domain not in (None, "", "ai.onnx") or node.op in _NEVER or not node.inputs:
        return None
    if node.attrs.get("training_mode", 0) or any(
        isinstance(value, gs.Graph) for value in node.attrs.values()
    ):
        return None
    attributes = tuple(sorted((name, _value(value)) for name, value in node.attrs.items()))
    present = tuple(not tensor.is_empty() for tensor in node.outputs)
    return (
        node.op,
        attributes,
        present,
        tuple(_source(graph, tensor, sources) for tensor in node.inputs),
    )


def _source(graph: Graph, tensor: Tensor, sources: dict[int, Hashable]) -> Hashable:
    if tensor.is_empty():
        return ""
    if id(tensor) not in sources:
        values = graph.constant(tensor)
        sources[id(tensor)] = id(tensor) if values is None else _digest(values)
    return sources[id(tensor)]


def _value(value: object) -> str:
    if isinstance(value, gs.Constant):
        return repr(_digest(np.asarray(value.values)))
    return repr(_digest(value)) if isinstance(value, np.ndarray) else repr(value)


def _digest(values: Array) -> Hashable:
    data = np.ascontiguousarray(values)
    if data.dtype == object:
        return repr(data.tolist())
    return str(data.dtype), data.shape, hashlib.sha256(data.tobytes()).hexdigest()


def _merge(graph: Graph, twin: Node, node: Node) -> Node | None:
    """Let readers of both read the one whose names are needed; None where both are."""
    stays, goes = (node, twin) if _is_named(graph, node) else (twin, node)
    if _is_named(graph, goes):
        return None
    for kept, gone in zip(stays.outputs, goes.outputs, strict=True):
        for reader in graph.consumers(gone):
            for index, read in enumerate(reader.inputs):
                if read is gone:
                    graph.set_input(reader, index, kept)
    return stays


def _is_named(graph: Graph, node: Node) -> bool:
    return any(graph.is_output(t) or graph.is_read_in_subgraph(t) for t in node.outputs)
