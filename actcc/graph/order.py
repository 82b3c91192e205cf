"""Topological order and names of a graphsurgeon graph."""

from __future__ import annotations

import heapq
from collections.abc import Iterator

import onnx_graphsurgeon as gs

from actcc.errors import ModelError


def sort_nodes(surgeon: gs.Graph) -> None:
    """Sort nodes topologically in place; nodes that are in order already stay where they are.

    (Kahn 1962, with the old position as priority. A tensor read by a subgraph counts as read by
    the node that holds the subgraph.)

    Raises:
        ModelError: the graph has a cycle.
    """
    nodes = list(surgeon.nodes)
    position = {id(node): index for index, node in enumerate(nodes)}
    readers: list[list[int]] = [[] for _ in nodes]
    missing = [0] * len(nodes)
    for index, node in enumerate(nodes):
        for tensor in reads(node):
            for writer in tensor.inputs:
                source = position.get(id(writer))
                if source is not None and source != index:
                    readers[source].append(index)
                    missing[index] += 1
    if all(reader > index for index, found in enumerate(readers) for reader in found):
        return
    ready = [index for index, count in enumerate(missing) if count == 0]
    heapq.heapify(ready)
    ordered = []
    while ready:
        index = heapq.heappop(ready)
        ordered.append(nodes[index])
        for reader in readers[index]:
            missing[reader] -= 1
            if missing[reader] == 0:
                heapq.heappush(ready, reader)
    if len(ordered) != len(nodes):
        stuck = next(node.name for node, count in zip(nodes, missing, strict=True) if count > 0)
        raise ModelError(f"node '{stuck}' lies on a cycle; the graph is not valid ONNX")
    surgeon.nodes = ordered


def reads(node: gs.Node) -> list[gs.Tensor]:
    """Tensors that a node and the nodes of its subgraphs read, the subgraphs' own included."""
    tensors = list(node.inputs)
    for attribute in node.attrs.values():
        if isinstance(attribute, gs.Graph):
            for inner in attribute.nodes:
                tensors += reads(inner)
            tensors += attribute.outputs
    return tensors


def inner_nodes(node: gs.Node) -> Iterator[gs.Node]:
    """Nodes of its subgraphs, at any depth."""
    for attribute in node.attrs.values():
        if isinstance(attribute, gs.Graph):
            for inner in attribute.nodes:
                yield inner
                yield from inner_nodes(inner)


def all_names(surgeon: gs.Graph) -> set[str]:
    """Names of all nodes and tensors, those inside subgraphs included."""
    names = {tensor.name for tensor in (*surgeon.inputs, *surgeon.outputs)}
    for node in surgeon.nodes:
        names.add(node.name)
        names.update(tensor.name for tensor in (*node.inputs, *node.outputs))
        for attribute in node.attrs.values():
            if isinstance(attribute, gs.Graph):
                names |= all_names(attribute)
    return names
