"""Two layers of low rank, fitted as the one that they stand for.

    x → [columns, rank] → [rank, outputs] → y

A rewrite that made two linear layers of one leaves nothing in the original that the first of them
could be fitted to. So both are fitted together, as one layer that reads what the first reads and
writes what the second writes, and that layer is then cut back to their rank, where on the rows that
it was fitted to its outputs lose least.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from actcc.graph import Array, Graph
from actcc.linear import factors
from actcc.repair.layer import Layer

# Of the mean diagonal of the rows' second moments: directions in which calibration data never
# varies are not free.
_REGULARISATION = 0.3
_SMALLEST = 1e-12


def first_factor(
    graph: Graph, original: Graph, layer: Layer, layers: Mapping[str, Layer]
) -> Layer | None:
    """The layer whose outputs `layer` alone maps, position by position, if a rewrite made both.

    Args:
        layers: of the rewritten network, by what they write.
    """
    first = layers.get(layer.reads)
    if first is None or first.bias is not None or first.writes in original.types:
        return None
    return first if _maps_by_position(graph, first, layer) else None


def _maps_by_position(graph: Graph, first: Layer, second: Layer) -> bool:
    """Whether the second layer alone reads the first, and maps each of its positions by itself."""
    alone = len(graph.consumers(first.writes)) == 1 and not graph.is_output(first.writes)
    dense = first.groups == second.groups == 1 and first.op == second.op != "ConvTranspose"
    pointwise = second.window is None or second.window.is_pointwise
    return alone and dense and pointwise and not (first.transposed[0] or second.transposed[0])


def reference_of(original: Graph, layer: Layer, layers: Mapping[str, Layer]) -> Layer | None:
    """What the original has in the place of a layer: a layer, or two that follow each other.

    Args:
        layers: of the original network, by what they write.
    """
    found = layers.get(layer.writes)
    if found is None or _maps_alike(layer, found):
        return found
    before = layers.get(found.reads)
    if before is None or not _maps_by_position(original, before, found):
        return None
    both = composed(before, found)
    return both if _maps_alike(layer, both) else None


def _maps_alike(layer: Layer, other: Layer) -> bool:
    """Whether the matrices of both mean the same, however their nodes hold them."""
    sizes = [(one.columns, one.outputs, one.groups, one.transposed[0]) for one in (layer, other)]
    if sizes[0] != sizes[1]:
        return False
    ours, theirs = layer.window, other.window
    if ours is None or theirs is None:
        return ours is theirs
    return ours.samples_like(theirs)


def composed(first: Layer, second: Layer) -> Layer:
    """One layer that reads what `first` reads and writes what `second` writes, with its bias."""
    matrix = first.matrix @ second.matrix
    count = (second.outputs,)
    if first.window is not None:
        shape = count + first.shape[1:]
    else:
        shape = count + first.shape[1:] if first.transposed[1] else first.shape[:1] + count
    whole = replace(
        first,
        node=second.node,
        writes=second.writes,
        weights=np.empty(shape),
        bias=second.bias,
        biases=(second.offset + first.offset @ second.matrix[0]).reshape(-1),
        adds=second.adds,
        scale=(first.scale[0], 1.0),
    )
    return replace(whole, weights=whole.tensor(matrix))


@dataclass(frozen=True)
class Cut:
    """Two layers that stand for one.

    Attributes:
        first, second: their weights, as the nodes hold them.
        shift: what the bias of the second gains, [1, outputs].
        energy: of what is lost of the one layer's outputs, summed over outputs.
    """

    first: Array
    second: Array
    shift: Array
    energy: float


def cut(first: Layer, second: Layer, rows: Array, matrix: Array) -> Cut:
    """The layer that both stand for, cut back to their rank.

    Args:
        rows: what the first reads, [1, rows, columns].
        matrix: of that layer, [1, columns, outputs].
    """
    mean = rows[0].mean(axis=0, dtype=np.float64)
    centred = rows[0] - mean.astype(np.float32)
    moments = (centred.T @ centred).astype(np.float64) / max(len(centred), 1)
    level = float(np.diagonal(moments).mean())
    penalty = (_REGULARISATION * level + _SMALLEST) * np.eye(len(moments))
    into, out = factors(matrix[0], first.outputs, moments + penalty)
    lost = matrix[0] - into @ out
    energy = float(np.einsum("co,cd,do->", lost, moments, lost, optimize=True))
    return Cut(first.tensor(into[None]), second.tensor(out[None]), (mean @ lost)[None], energy)
