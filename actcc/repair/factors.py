"""Two layers of low rank, fitted as the one that they stand for.

    x → [columns, rank] → [rank, outputs] → y

A rewrite that made two linear layers of one leaves nothing in the original that the first of them
could be fitted to. So both are fitted together, as one layer that reads what the first reads and
writes what the second writes, and that layer is then cut back to their rank, where on the rows that
it was fitted to its outputs lose least.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from actcc.graph import Array, Graph
from actcc.linear import factors
from actcc.repair.layer import Layer, same_geometry

# Of the mean diagonal of the rows' second moments: directions in which calibration data never
# varies are not free.
_REGULARISATION = 0.3


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
    if found is None or same_geometry(layer, found):
        return found
    before = layers.get(found.reads)
    if before is None or not _maps_by_position(original, before, found):
        return None
    both = composed(before, found)
    return both if same_geometry(layer, both) else None


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


def cut(first: Layer, second: Layer, rows: Array, matrix: Array) -> tuple[Array, Array, Array]:
    """Weights of both layers, as their nodes hold them, and what the second one's bias gains.

    Args:
        rows: what the first reads, [1, rows, columns].
        matrix: of the layer that both stand for, [1, columns, outputs].

    Returns:
        Weights of the first and of the second, and [1, outputs].
    """
    mean = rows[0].mean(axis=0, dtype=np.float64)
    centred = (rows[0] - mean.astype(np.float32)).astype(np.float32)
    moments = (centred.T @ centred).astype(np.float64) / max(len(centred), 1)
    level = float(np.diagonal(moments).mean())
    moments += (_REGULARISATION * level + 1e-12) * np.eye(len(moments))
    into, out = factors(matrix[0], first.outputs, moments)
    lost = mean @ (matrix[0] - into @ out)
    return first.tensor(into[None]), second.tensor(out[None]), lost[None]
