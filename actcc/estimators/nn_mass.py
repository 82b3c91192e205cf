"""`nn-mass`: width · depth · density of skip connections (Bhardwaj et al. 2021, section 3.2).

    m = Σ over cells  w_c · d_c · ρ_c
    ρ_c = channels that arrive over skip connections / channels that could

A cell is a run of layers with weights on feature maps of one size; w_c is the mean number of its
channels, d_c the number of layers on its longest path. Layer i could be reached by the channels of
every layer that is two or more steps of the longest path before it, in the cell; it is reached by
those that lie before it without another layer in between, be it through Concat or Add. Weights and
activations do not count, so that a swapped activation leaves the mass as it is; a pass that merges
or removes layers does not.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from actcc.accuracy.estimate import Estimates
from actcc.estimators.estimator import Needs, Subject
from actcc.estimators.structural import StructuralShift, structural_losses
from actcc.graph import Graph, Node
from actcc.graph.operators import HEAVY


class NnMassEstimator:
    """NN-Mass of the graph."""

    name = "nn-mass"
    needs: Needs = "nothing"

    def losses(self, subject: Subject) -> Estimates:
        """See `Estimator`."""
        return structural_losses(subject, self.network_loss(subject), self.name)

    def network_loss(self, subject: Subject) -> StructuralShift:
        """See `Estimator`."""
        return StructuralShift(nn_mass, nn_mass(subject.graph))


@dataclass(frozen=True)
class _Layer:
    """A layer with weights.

    Attributes:
        depth: number of layers on the longest path that ends in it.
        channels: that it writes.
        size: of the feature map that it writes, without batch and channels.
        reads: layers whose channels reach it without another layer in between.
    """

    depth: int
    channels: int
    size: tuple[object, ...]
    reads: tuple[_Layer, ...]


def nn_mass(graph: Graph) -> float:
    """The mass of a network; 0 where no connection skips a layer."""
    cells: dict[tuple[object, ...], list[_Layer]] = {}
    for layer in _layers(graph):
        cells.setdefault(layer.size, []).append(layer)
    return sum(_cell_mass(layers) for layers in cells.values())


def _cell_mass(layers: list[_Layer]) -> float:
    actual = possible = 0
    members = {id(layer) for layer in layers}
    for layer in layers:
        before = [other for other in layers if layer.depth - other.depth >= 2]
        possible += sum(other.channels for other in before)
        actual += sum(
            other.channels
            for other in layer.reads
            if layer.depth - other.depth >= 2 and id(other) in members
        )
    width = sum(layer.channels for layer in layers) / len(layers)
    depth = len({layer.depth for layer in layers})
    return width * depth * actual / possible if possible else 0.0


def _layers(graph: Graph) -> Iterable[_Layer]:
    """Layers with weights, in topological order."""
    reaching: dict[str, tuple[_Layer, ...]] = {}
    for node in graph.nodes():
        sources = _union(reaching.get(tensor.name, ()) for tensor in node.inputs)
        if node.op in HEAVY:
            layer = _layer(graph, node, sources)
            yield layer
            sources = (layer,)
        reaching.update((tensor.name, sources) for tensor in node.outputs)


def _layer(graph: Graph, node: Node, sources: tuple[_Layer, ...]) -> _Layer:
    shape = graph.shape(node.outputs[0]) or ()
    spatial = len(shape) > 2 and node.op != "MatMul"
    channels = shape[1] if spatial else shape[-1] if shape else 1
    size = tuple(shape[2:]) if spatial else ()
    depth = 1 + max((source.depth for source in sources), default=0)
    return _Layer(depth, channels if isinstance(channels, int) else 1, size, sources)


def _union(groups: Iterable[tuple[_Layer, ...]]) -> tuple[_Layer, ...]:
    return tuple({id(layer): layer for group in groups for layer in group}.values())
