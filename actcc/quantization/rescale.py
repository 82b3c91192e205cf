"""What else changes with the scale of a tensor.

The bias of a layer is stored in the product of two scales, of what the layer reads and of its
weights (Jacob et al. 2018, section 2.4), and what only moves or selects values writes them in the
scale in which it reads them. Where either does not hold, runtimes compute in floating point.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from actcc.graph import Graph, Node, Tensor
from actcc.graph.operators import CONTRACTIONS
from actcc.graph.pairs import DEQUANTIZE, pair_behind, stored_as, stored_constant
from actcc.graph.pairs import StoredAs as Kind
from actcc.quantization.qdq import OPSET, SAME_SCALE

_ALIKE = 1e-4  # of a product of two scales in float32, relative
_MOVING = SAME_SCALE | {"DepthToSpace", "Slice", "SpaceToDepth"}


def rescale_readers(graph: Graph, tensor: Tensor, old: Kind, new: Kind) -> None:
    """Let the biases and the scales behind a dequantized tensor follow its new scale, in place.

    Args:
        old: how the tensor was stored.
        new: how it is stored.
    """
    for reader in graph.consumers(tensor):
        if not reader.inputs or reader.inputs[0] is not tensor:
            continue
        if reader.op in CONTRACTIONS:
            _rescale_bias(graph, reader, old, new)
        pair = pair_behind(graph, reader.outputs[0]) if reader.op in _MOVING else None
        kind = None if pair is None else stored_as(graph, pair.quantize)
        if pair is not None and kind is not None and kind.same(old):
            for node in pair.nodes:
                graph.set_input(node, 1, new.scale)
                if len(node.inputs) > 2:
                    graph.set_input(node, 2, new.zero_point)
                else:  # left out where it is 0, of uint8
                    graph.append_input(node, new.zero_point)
            rescale_readers(graph, pair.writes, old, new)


def _rescale_bias(graph: Graph, layer: Node, old: Kind, new: Kind) -> None:
    stored = stored_constant(graph, layer.inputs[2]) if len(layer.inputs) > 2 else None
    weights = None if len(layer.inputs) < 2 else graph.producer(layer.inputs[1])
    kind = None if weights is None or weights.op != DEQUANTIZE else stored_as(graph, weights)
    if stored is None or kind is None or stored[0].dtype != np.int32 or stored[1].zero_point.any():
        return
    values, scale = stored[0], stored[1].scale
    if not np.allclose(scale, old.scale.reshape(-1)[0] * kind.scale, rtol=_ALIKE, atol=0.0):
        return
    fitting = (new.scale.reshape(-1)[0] * kind.scale).astype(scale.dtype)
    real = values.astype(np.float64) * scale
    bounds = np.iinfo(np.int32)
    steps = np.clip(np.round(real / fitting), bounds.min, bounds.max).astype(np.int32)
    zeros = np.zeros(fitting.shape, np.int32)
    # Before scales for each output there was no axis either.
    axis: dict[str, Any] = {"axis": 0} if graph.opset >= OPSET else {}
    bias = graph.insert(DEQUANTIZE, [steps, fitting, zeros], name=f"{layer.name}_bias", **axis)
    graph.set_input(layer, 2, bias)
    graph.prune()
