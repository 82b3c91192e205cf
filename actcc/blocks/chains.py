"""Chains: layers of which each is read by the next alone, whatever stands in between.

    layer → activation, squeeze-and-excitation, or nothing → layer → …

Found by structure and not by names. Activations may be spelled in any way; a MatMul has its bias in
the Add behind it; a quantize/dequantize pair is passed over. Chains are what blocks are made of (an
inverted residual is one of three), and what collapses.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from actcc.activations import Activation, find_activations
from actcc.blocks.gates import find_gates
from actcc.graph import Graph, Node, Tensor
from actcc.graph.operators import CONTRACTIONS, ONNX_DOMAINS


@dataclass(frozen=True)
class Link:
    """A layer of a chain, with what stands behind it.

    Attributes:
        layer: name of its node.
        op: the node's operator.
        nodes: names of the layer, of the Add that holds its bias, and of what stands behind it.
        own: how many of `nodes` are the layer itself.
        reads: the tensor that it maps.
        gives: the tensor with its outputs, bias included.
        writes: the tensor behind activation and gate.
        activation: behind it; None where there is none.
        gated: whether a squeeze-and-excitation stands behind it.
    """

    layer: str
    op: str
    nodes: tuple[str, ...]
    own: int
    reads: str
    gives: str
    writes: str
    activation: Activation | None
    gated: bool

    @property
    def is_bare(self) -> bool:
        """Whether nothing stands behind the layer."""
        return self.activation is None and not self.gated


Chain = tuple[Link, ...]


def find_chains(graph: Graph) -> list[Chain]:
    """Every layer in exactly one chain, the longest there are, in topological order."""
    walk = _Walk(graph)
    links = {node.name: walk.link(node) for node in graph.nodes() if _is_layer(node)}
    next_of = {name: walk.next_layer(link) for name, link in links.items()}
    followers = {name for name in next_of.values() if name is not None}
    chains: list[Chain] = []
    for name in links:
        if name in followers:
            continue
        chain, at = [], name
        while at is not None:
            chain.append(links[at])
            at = next_of[at]
        chains.append(tuple(chain))
    return chains


def _is_layer(node: Node) -> bool:
    return node.op in CONTRACTIONS and node.domain in ONNX_DOMAINS


class _Walk:
    """Follows tensors that one thing alone reads."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._activations = {match.reads.name: match for match in find_activations(graph)}
        self._gates = {gate.reads: gate for gate in find_gates(graph)}

    def link(self, layer: Node) -> Link:
        """The layer with what stands behind it."""
        nodes, tensor = [layer.name], layer.outputs[0]
        bias = self._bias(layer)
        if bias is not None:
            nodes.append(bias.name)
            tensor = bias.outputs[0]
        own, gives = len(nodes), tensor.name
        activation, gated = None, False
        while True:
            match, gate = self._activations.get(tensor.name), self._gates.get(tensor.name)
            if match is not None and activation is None:
                inside = [node.name for node in match.nodes]
                if not self._read_by(tensor, inside):
                    break
                activation, tensor = match.activation, match.writes
            elif gate is not None and not gated:
                inside = list(gate.nodes)
                if not self._read_by(tensor, inside):
                    break
                gated, tensor = True, self._graph.tensor(gate.writes)
            elif pair := self._quantization(tensor):
                inside = [node.name for node in pair]
                tensor = pair[-1].outputs[0]
            else:
                break
            nodes += inside
        reads = layer.inputs[0].name
        return Link(
            layer.name, layer.op, tuple(nodes), own, reads, gives, tensor.name, activation, gated
        )

    def next_layer(self, link: Link) -> str | None:
        """The layer that alone reads what a link writes, as what it maps."""
        tensor = self._graph.tensor(link.writes)
        readers = self._graph.consumers(tensor)
        if len(readers) != 1 or not self._read_by(tensor, [readers[0].name]):
            return None
        reader = readers[0]
        mapped = _is_layer(reader) and reader.inputs[0].name == link.writes
        return reader.name if mapped and link.writes not in _names(reader.inputs[1:]) else None

    def _bias(self, layer: Node) -> Node | None:
        """The Add of a constant behind a MatMul."""
        written = layer.outputs[0]
        readers = self._graph.consumers(written)
        if layer.op != "MatMul" or len(readers) != 1 or readers[0].op != "Add":
            return None
        others = [t for t in readers[0].inputs if t is not written]
        alone = self._read_by(written, [readers[0].name])
        constant = len(others) == 1 and self._graph.constant(others[0]) is not None
        return readers[0] if alone and constant else None

    def _quantization(self, tensor: Tensor) -> list[Node]:
        """The QuantizeLinear and DequantizeLinear that a tensor alone passes through."""
        pair: list[Node] = []
        for op in ("QuantizeLinear", "DequantizeLinear"):
            readers = self._graph.consumers(tensor)
            if len(readers) != 1 or readers[0].op != op or self._graph.is_output(tensor):
                return []
            pair.append(readers[0])
            tensor = readers[0].outputs[0]
        return pair

    def _read_by(self, tensor: Tensor, names: Collection[str]) -> bool:
        """Whether these nodes alone read a tensor."""
        graph = self._graph
        if graph.is_output(tensor) or graph.is_read_in_subgraph(tensor):
            return False
        return all(reader.name in names for reader in graph.consumers(tensor))


def _names(tensors: Collection[Tensor]) -> list[str]:
    return [tensor.name for tensor in tensors]
