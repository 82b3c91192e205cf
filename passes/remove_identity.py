"""Nodes that pass their input through are removed.

1. Identity(x) = x.
2. Dropout(x) = x in inference: `training_mode` absent or false (opset 12 and later), always (7 to
   11), `is_test` set (before 7); its mask must not be read.
3. Cast(x) = x where x has that type already.
4. Transpose(x) = x where the permutation is the identity.
5. Reshape, Flatten, Squeeze, Unsqueeze, Expand and Tile keep the order of elements; where the
   static shape stays the same too, they give x.
6. Concat, Sum, Max, Min and Mean of a single input give that input.

Requires: the value needs no name of its own: an Identity from an input, a constant or an output to
an output of the graph stays.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from actcc.graph import Graph, Node
from actcc.graph.operators import ONNX_DOMAINS
from actcc.pass_api import NormalizingPass
from actcc.site import Site

_ORDER_KEEPING = ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Expand", "Tile")
_OF_SEVERAL = ("Concat", "Sum", "Max", "Min", "Mean")


class RemoveIdentity(NormalizingPass):
    """Node that gives its first input  →  nothing."""

    name = "remove-identity"

    def run(self, graph: Graph) -> tuple[Graph, list[str]]:
        """The graph itself, and how many nodes of each operator were removed."""
        # Types are asked once: removing a node changes the type of no tensor that stays.
        found = [node for node in graph.nodes() if _passes_through(graph, node)]
        removed: Counter[str] = Counter()
        for node in found:
            if _removable(graph, node):
                site = Site([node], node.inputs[0], node.outputs[0])
                with graph.marking(self.name, site.writes, "removed"):
                    graph.bypass(site, site.reads)
                removed[node.op] += 1
        return graph, [f"removed {count} {op}" for op, count in sorted(removed.items())]


def _passes_through(graph: Graph, node: Node) -> bool:
    if node.domain not in ONNX_DOMAINS or not node.inputs or node.inputs[0].is_empty():
        return False
    source, result = node.inputs[0], node.outputs[0]
    if node.op == "Identity":
        return True
    if node.op == "Dropout":
        return _is_inference_dropout(graph, node)
    if node.op == "Cast":
        before = graph.types.get(source.name)
        return before is not None and before.element == node.attrs.get("to")
    if node.op == "Transpose":
        order = node.attrs.get("perm")
        return order is not None and list(order) == sorted(order)
    if node.op in _ORDER_KEEPING:
        known = graph.types.get(source.name), graph.types.get(result.name)
        return known[0] is not None and known[0].is_static and known[0] == known[1]
    return node.op in _OF_SEVERAL and len(node.inputs) == 1


def _is_inference_dropout(graph: Graph, node: Node) -> bool:
    if any(mask.outputs or graph.is_output(mask) for mask in node.outputs[1:]):
        return False
    if graph.opset < 7:
        return bool(node.attrs.get("is_test", 0))
    if len(node.inputs) < 3 or node.inputs[2].is_empty():
        return True
    training = graph.constant(node.inputs[2])
    return training is not None and not np.any(training)


def _removable(graph: Graph, node: Node) -> bool:
    """Whether something is won: bypassing leaves an Identity where both names are needed."""
    source, result = node.inputs[0], node.outputs[0]
    needed = graph.is_output(result) or graph.is_read_in_subgraph(result)
    if not needed or node.op != "Identity":
        return True
    return bool(source.inputs) and not (
        graph.is_output(source) or graph.is_read_in_subgraph(source)
    )
