"""The scale and zero point of a range, in the type in which a model stores its values."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

import numpy as np

from actcc.graph import Graph
from actcc.graph.pairs import QUANTIZE, StoredAs, stored_as
from actcc.quantization.distribution import Range
from actcc.quantization.qdq import Step

_SIGNED = "int8"
# What is stored as 0 where uint8 stores 0.
STORED: Mapping[str, int] = MappingProxyType({"uint8": 0, _SIGNED: -128})


def step_for(values: Range, like: StoredAs, *, symmetric: bool) -> StoredAs:
    """How values of a range are stored in the type of others; the range is widened to hold 0.

    Args:
        like: one scale, of a type of `STORED`.
        symmetric: int8 has the zero point 0.
    """
    name = like.zero_point.dtype.name
    if symmetric and name == _SIGNED:
        width = max(abs(values[0]), abs(values[1]))
        step, zero_point = Step.of((0.0, 255 / 127 * width)).scale, 0
    else:
        found = Step.of(values)
        step, zero_point = found.scale, found.zero_point + STORED[name]
    scale = np.full(like.scale.shape, step, like.scale.dtype)
    return StoredAs(scale, np.full(like.zero_point.shape, zero_point, like.zero_point.dtype))


def is_symmetric(graph: Graph) -> bool:
    """Whether all that a network stores in int8 as it runs has the zero point 0."""
    kinds = [stored_as(graph, node) for node in graph.nodes(QUANTIZE)]
    return all(not kind.zero_point.any() for kind in kinds if kind and _is_signed(kind))


def _is_signed(kind: StoredAs) -> bool:
    return str(kind.zero_point.dtype) == _SIGNED
