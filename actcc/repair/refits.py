"""What is to be re-fitted, and what for: which layers, and what stands behind each.

A layer is re-fitted where what it reads has changed, or where the activation behind it has. Behind
it may stand, in this order and each read by the next alone:

    p = layer(x)    y = p + e    h = g(y)    s = h + r

an Add whose other operand e comes from elsewhere, an activation (f in the original network, g in
the rewritten one), and another Add. The layer is fitted for what leaves the last of them, so that
it also makes up for what is wrong with e and r (a residual branch, for example).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from actcc.activations import Activation, cut_off_by_rounding, recognise, with_rounding
from actcc.graph import Graph, Node, Tensor
from actcc.graph.operators import CONTRACTIONS
from actcc.graph.shapes import other_shape, same_shape
from actcc.repair.factors import composed, first_factor, reference_of
from actcc.repair.layers import Layer, find_layers, same_geometry
from actcc.repair.narrowed import ALL_CHANNELS, Kept, Narrowing

# A constant that is added passes through these, and so does a positive factor a channel.
_MOVES_DATA = frozenset(
    {
        "AveragePool",
        "Concat",
        "DepthToSpace",
        "DequantizeLinear",
        "Dropout",
        "Flatten",
        "GlobalAveragePool",
        "Identity",
        "MaxPool",
        "QuantizeLinear",
        "ReduceMean",
        "Reshape",
        "Resize",
        "Slice",
        "SpaceToDepth",
        "Split",
        "Squeeze",
        "Transpose",
        "Unsqueeze",
        "Upsample",
    }
)


@dataclass(frozen=True)
class Sum:
    """An Add behind a layer or its activation.

    Attributes:
        other: what is added, computed in the rewritten network before the layer is fitted; it may
            be broadcast.
        writes: the sum, of the shape of what is added to.
    """

    other: str
    writes: str


@dataclass(frozen=True)
class Refit:
    """A layer to re-fit, and what it is fitted for.

    Attributes:
        layer: as the rewritten network has it.
        reference: the same layer of the original network, with the channels that the layer has;
            None for one that a rewrite made, which is fitted for the tensor that the original has
            under the name of its outputs.
        before: activation behind it in the original network; None where none is known.
        after: activation behind it in the rewritten network.
        added: Add before the activation, or before nothing.
        joined: Add behind the activation.
        offset_is_free: a constant that the activation's outputs are off by is absorbed by layers
            that are re-fitted later.
        gain_is_free: so is a factor.
        factors: the two layers that `layer` stands for, where a rewrite factorised it.
        kept: channels of the original's tensors that the layer reads and writes.
    """

    layer: Layer
    reference: Layer | None
    before: Activation | None
    after: Activation | None
    added: Sum | None
    joined: Sum | None
    offset_is_free: bool
    gain_is_free: bool
    factors: tuple[Layer, Layer] | None = None
    kept: Kept = ALL_CHANNELS

    @property
    def swapped(self) -> bool:
        """Whether another activation stands behind the layer than did."""
        return self.before is not None and self.before != self.after

    @property
    def at_outputs(self) -> bool:
        """Whether what it gives, or its activation makes of that, may be an output as it is."""
        return self.after is None or not self.offset_is_free

    @property
    def alone(self) -> Refit:
        """The same, but for what Adds behind the layer make of its outputs."""
        if self.added is None:
            return replace(self, joined=None)
        bare = replace(self, before=None, after=None, added=None, joined=None)
        return replace(bare, offset_is_free=False, gain_is_free=False)

    def on(self, layers: Mapping[str, Layer]) -> Refit:
        """The same of layers as they are now, by what they write."""
        if self.factors is None:
            return replace(self, layer=layers[self.layer.writes])
        first, second = (layers[layer.writes] for layer in self.factors)
        return replace(self, layer=composed(first, second), factors=(first, second))

    @property
    def pre_activation(self) -> str:
        """Tensor that the layer's outputs are compared with in the original network."""
        return self.layer.writes if self.added is None else self.added.writes


@dataclass(frozen=True)
class Refits:
    """The layers to re-fit in topological order, and why others are left alone.

    Attributes:
        same: tensors that are the same in both networks, whatever the refits do.
    """

    refits: tuple[Refit, ...]
    refused: Mapping[str, str]
    same: frozenset[str]


def plan_refits(original: Graph, rewritten: Graph) -> Refits:
    """What the repair of a rewritten network does."""
    layers, refused = find_layers(rewritten)
    references, _ = find_layers(original)
    before, after = _activations(original), _activations(rewritten)
    same = _same_tensors(original, rewritten, ())
    passed_on = {name: entry[1] for name, entry in after.items() if before.get(name) == entry}
    narrowing = Narrowing(same, passed_on)
    chosen: list[_Chosen] = []
    for name, layer in layers.items():
        swapped = _function(before, name) != _function(after, name) and name in after
        if layer.writes in same and not swapped:
            continue
        made = _counterpart(original, rewritten, layer, layers, references, narrowing)
        if made is not None:
            if made.kept is ALL_CHANNELS or swapped or not narrowing.is_unchanged(name):
                chosen.append(made)
        elif layer.reads not in same:
            refused[layer.node] = "the original has nothing of that name and shape to fit it to"
    for parts in (made.factors for made in chosen if made.factors):
        refused.pop(parts[0].node, None)
    refused = {name: why for name, why in refused.items() if _has_changed(rewritten, name, same)}
    surroundings = _Surroundings(original, rewritten, before, after, chosen)
    refits = tuple(surroundings.refit(made) for made in chosen)
    # The bias of a MatMul stands behind it: with its weights, what the node itself writes changes.
    fitted = [layer for made in chosen for layer in made.factors or (made.layer,)]
    touched = {t.name for layer in fitted for t in rewritten.node(layer.node).outputs}
    return Refits(refits, refused, _same_tensors(original, rewritten, touched))


@dataclass(frozen=True)
class _Chosen:
    """A layer to re-fit: see `Refit`."""

    layer: Layer
    reference: Layer | None
    factors: tuple[Layer, Layer] | None = None
    kept: Kept = ALL_CHANNELS


def _counterpart(
    original: Graph,
    rewritten: Graph,
    layer: Layer,
    layers: Mapping[str, Layer],
    references: Mapping[str, Layer],
    narrowing: Narrowing,
) -> _Chosen | None:
    """A layer with what the original has in its place, or None where it has nothing."""
    shapes = [graph.shape(layer.writes) for graph in (original, rewritten)]
    is_there = _is_computed(original, layer.writes) and same_shape(*shapes)
    first = first_factor(rewritten, original, layer, layers)
    if first is not None and is_there:
        whole = composed(first, layer)
        return _Chosen(whole, reference_of(original, whole, references), (first, layer))
    reference = references.get(layer.writes)
    if reference is not None and same_geometry(layer, reference):
        # Layers of other tools' models may map other positions with the same weights.
        return None if other_shape(*shapes) else _Chosen(layer, reference)
    if reference is not None and (part := narrowing.counterpart(layer, reference)):
        return _Chosen(layer, part[0], kept=part[1])
    return _Chosen(layer, None) if is_there else None


Behind = Mapping[str, tuple[Activation, str, frozenset[str]]]


def _activations(graph: Graph) -> Behind:
    """By what they read: activations, what they write, and their nodes; roundings included."""
    whole = (with_rounding(graph, match) for match in recognise(graph).matches)
    return {
        match.reads.name: (
            match.activation,
            match.writes.name,
            frozenset(node.name for node in match.nodes),
        )
        for match in (*cut_off_by_rounding(graph), *whole)
    }


def _function(behind: Behind, name: str) -> Activation | None:
    return behind[name][0] if name in behind else None


def _differs_by_channel(activation: Activation) -> bool:
    """Whether it is no function of the value alone, as the fits of what comes out of it need it."""
    return len([name for name, _ in activation.parameters if name == "slope"]) > 1


def _has_changed(rewritten: Graph, node: str, same: Collection[str]) -> bool:
    return any(t.name not in same for t in rewritten.node(node).outputs)


def _same_tensors(original: Graph, rewritten: Graph, touched: Collection[str]) -> frozenset[str]:
    """Tensors that nodes compute alike in both networks, from tensors of which that is true.

    Args:
        touched: tensors whose layers will be re-fitted.
    """
    theirs = {node.outputs[0].name: node for node in original.nodes() if node.outputs}
    same = {tensor.name for tensor in original.inputs}
    for node in rewritten.nodes():
        names = [tensor.name for tensor in node.outputs]
        other = theirs.get(names[0]) if names else None
        if other is None or not _same_node(node, other) or names[0] in touched:
            continue
        pairs = zip(node.inputs, other.inputs, strict=True)
        if all(_same_operand(rewritten, original, a, b, same) for a, b in pairs):
            same.update(names)
    return frozenset(same)


def _same_node(node: Node, other: Node) -> bool:
    return (
        node.op == other.op
        and node.domain == other.domain
        and len(node.inputs) == len(other.inputs)
        and [t.name for t in node.outputs] == [t.name for t in other.outputs]
        and str(node.attrs) == str(other.attrs)
    )


def _same_operand(
    rewritten: Graph, original: Graph, ours: Tensor, theirs: Tensor, same: Collection[str]
) -> bool:
    if ours.is_empty() or theirs.is_empty():
        return bool(ours.is_empty() and theirs.is_empty())
    mine, other = rewritten.constant(ours), original.constant(theirs)
    if mine is None or other is None:
        return mine is other and ours.name == theirs.name and ours.name in same
    return mine is other or (mine.dtype == other.dtype and np.array_equal(mine, other))


def _is_computed(graph: Graph, name: str) -> bool:
    """Whether a node of the graph writes a tensor of that name."""
    return name in graph.types and graph.producer(name) is not None


class _Surroundings:
    """What stands behind layers, in both networks alike."""

    def __init__(
        self,
        original: Graph,
        rewritten: Graph,
        before: Behind,
        after: Behind,
        chosen: Sequence[_Chosen],
    ) -> None:
        self._original, self._rewritten = original, rewritten
        self._before, self._after = before, after
        self._order = {
            layer.writes: index
            for index, made in enumerate(chosen)
            for layer in made.factors or (made.layer,)
        }
        self._latest = self._latest_refits()

    def refit(self, made: _Chosen) -> Refit:
        """The layer with what stands behind it."""
        layer = made.layer
        tensor = layer.writes
        added = self._sum(tensor, layer)
        tensor = tensor if added is None else added.writes
        before, after = self._before.get(tensor), self._after.get(tensor)
        known = (
            before is not None
            and after is not None
            and self._alone(self._original, tensor, before[2])
            and self._alone(self._rewritten, tensor, after[2])
            and before[1] == after[1]
            and not any(_differs_by_channel(found[0]) for found in (before, after))
        )
        if before is None or after is None or not known:
            none_behind = (None, None, added, None, False, False)
            return Refit(layer, made.reference, *none_behind, made.factors, made.kept)
        joined = self._sum(after[1], layer)
        end = after[1] if joined is None else joined.writes
        return Refit(
            layer,
            made.reference,
            before[0],
            after[0],
            added,
            joined,
            offset_is_free=self._is_absorbed(end, _MOVES_DATA | {"Add", "Sub"}),
            gain_is_free=joined is None and self._is_absorbed(end, _MOVES_DATA | {"Mul"}),
            factors=made.factors,
            kept=made.kept,
        )

    def _sum(self, tensor: str, layer: Layer) -> Sum | None:
        """The Add that alone reads a tensor, if its other operand is settled by then."""
        ours, theirs = (self._reader(g, tensor) for g in (self._rewritten, self._original))
        if ours is None or theirs is None or ours.op != "Add" or theirs.op != "Add":
            return None
        if ours.outputs[0].name != theirs.outputs[0].name:
            return None
        # What is added may be broadcast; where the layer's outputs are, a row is none of its own.
        shapes = [self._original.shape(name) for name in (tensor, theirs.outputs[0].name)]
        if not same_shape(*shapes):
            return None
        names = [[t.name for t in node.inputs if t.name != tensor] for node in (ours, theirs)]
        if len(names[0]) != 1 or names[0] != names[1]:
            return None
        other = names[0][0]
        settled = self._latest.get(other, -1) < self._order[layer.writes]
        given = any(tensor.name == other for tensor in self._rewritten.inputs)
        constant = self._rewritten.producer(other) is None and not given
        return Sum(other, ours.outputs[0].name) if settled and not constant else None

    def _reader(self, graph: Graph, tensor: str) -> Node | None:
        readers = graph.consumers(tensor)
        if len(readers) != 1 or graph.is_output(tensor) or graph.is_read_in_subgraph(tensor):
            return None
        return readers[0]

    def _alone(self, graph: Graph, tensor: str, nodes: Collection[str]) -> bool:
        inside = all(reader.name in nodes for reader in graph.consumers(tensor))
        return inside and not graph.is_output(tensor)

    def _latest_refits(self) -> dict[str, int]:
        """By tensor, the last layer in order that it depends on."""
        latest: dict[str, int] = {}
        for node in self._rewritten.nodes():
            reads = [latest.get(t.name, -1) for t in self._rewritten.reads(node)]
            for tensor in node.outputs:
                latest[tensor.name] = max([*reads, self._order.get(tensor.name, -1)])
        return latest

    def _is_absorbed(self, tensor: str, passing: Collection[str]) -> bool:
        """Whether all that reads a tensor, through nodes that pass it on, is re-fitted."""
        frontier, seen = [tensor], {tensor}
        while frontier:
            name = frontier.pop()
            if self._rewritten.is_output(name) or self._rewritten.is_read_in_subgraph(name):
                return False
            for reader in self._rewritten.consumers(name):
                written = [t.name for t in reader.outputs if not t.is_empty()]
                if reader.op in CONTRACTIONS and self._is_refitted(reader, name):
                    continue
                if reader.op not in passing:
                    return False
                frontier += [other for other in written if other not in seen]
                seen.update(written)
        return True

    def _is_refitted(self, reader: Node, name: str) -> bool:
        if reader.inputs[0].name != name:
            return False
        written = reader.outputs[0].name
        behind = {t.name for node in self._rewritten.consumers(written) for t in node.outputs}
        return bool(({written} | behind) & self._order.keys())
