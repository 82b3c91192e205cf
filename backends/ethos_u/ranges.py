"""Which values a tensor takes, and the int8 quantization that follows from it.

With calibration samples the range of a tensor is the one of least error over what it takes
(`actcc.quantization`). Without them it is [-6, 6], and behind an activation the image of that:
enough to price with, since an Ethos-U takes as long whatever the scales are, and never written to a
file that is to be run.

Outputs that join parts of unlike scales are int16 (`joined_outputs`); all else is int8.

Operators that TFLite defines for one scale on both sides (MAX_POOL_2D, CONCATENATION, RESHAPE, …)
tie their tensors together: these share one quantization, that of their common range.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType

import numpy as np

from actcc.activations import Activation, Match
from actcc.backends.ethos_u.joined_outputs import joined_outputs
from actcc.backends.ethos_u.network import Quantization, int8_range, int16_range
from actcc.graph import Graph, Node
from actcc.quantization import Range

DEFAULT_RANGE: Range = (-6.0, 6.0)
_GRID = 513

# TFLite's int8 specification fixes the output of these.
LOGISTIC = Quantization((1 / 256,), (-128,))
TANH = Quantization((1 / 128,), (0,))
_FIXED: Mapping[str, Quantization] = MappingProxyType({"Sigmoid": LOGISTIC, "Tanh": TANH})
FIXED_OPERATORS: Mapping[str, Quantization] = MappingProxyType({"Softmax": LOGISTIC})
# fmt: off
ONE_SCALE = frozenset({
    "AveragePool", "Cast", "Concat", "DepthToSpace", "Dropout", "Flatten", "Gather",
    "GlobalMaxPool", "Identity", "Max", "MaxPool", "Min", "Pad", "ReduceMax", "ReduceMin",
    "Reshape", "Resize", "Slice", "SpaceToDepth", "Split", "Squeeze", "Transpose", "Unsqueeze",
    "Upsample",
})
# fmt: on


def image(function: Activation, values: Range) -> Range:
    """The range of a function over an interval, from a grid of points."""
    grid = np.linspace(*values, _GRID)
    if function.name == "PRelu":
        slopes = [slope for name, slope in function.parameters if name == "slope"]
        found = np.concatenate([grid, *(grid * slope for slope in slopes)])
        low = float(found.min()) if values[0] < 0 else values[0]
        return low, float(max(values[1], found.max() if min(slopes) < 0 else values[1]))
    mapped = function(grid)
    return float(mapped.min()), float(mapped.max())


def tensor_quantizations(
    graph: Graph, matches: Sequence[Match], observed: Mapping[str, Range]
) -> dict[str, Quantization]:
    """The quantization of every tensor that a run computes, by name.

    Args:
        matches: the activations of the graph.
        observed: ranges that are known; the others are `DEFAULT_RANGE` and what follows from it.
    """
    inner = {node.name for match in matches for node in match.nodes}
    nodes = [node for node in graph.nodes() if node.name not in inner]
    ranges = _all_ranges(graph, matches, observed)
    fixed = {
        m.writes.name: _FIXED[m.activation.name] for m in matches if m.activation.name in _FIXED
    }
    for node in nodes:
        if node.op in FIXED_OPERATORS:
            fixed[node.outputs[0].name] = FIXED_OPERATORS[node.op]
    wide = joined_outputs(graph, fixed)
    groups = _Groups()
    tied: set[str] = set()  # written by an operator that keeps the scale
    for node in nodes:
        if node.op in ONE_SCALE:
            names = _tied(graph, node)
            if node.outputs[0].name in wide:  # what it reads may have a scale of its own
                names = [name for name in names if name in wide]
            tied.update(tensor.name for tensor in node.outputs)
            for name in names[1:]:
                groups.join(names[0], name)
    found: dict[str, Quantization] = {}
    for members in groups.of(ranges):
        # Where every value of a group comes from the same fixed scale, nothing has to be rescaled.
        sources = {fixed.get(name) for name in members if name not in tied}
        (only,) = sources if len(sources) == 1 else (None,)
        low = min(ranges[name][0] for name in members)
        high = max(ranges[name][1] for name in members)
        around = int16_range if members[0] in wide else int8_range
        found.update(dict.fromkeys(members, only or around(low, high)))
    return found


def _all_ranges(
    graph: Graph, matches: Sequence[Match], observed: Mapping[str, Range]
) -> dict[str, Range]:
    ranges = {t.name: observed.get(t.name, DEFAULT_RANGE) for t in graph.inputs}
    last = {match.nodes[-1].name: match for match in matches}
    for node in graph.nodes():
        match = last.get(node.name)
        for tensor in node.outputs:
            known = observed.get(tensor.name)
            if known is None and match is not None and tensor.name == match.writes.name:
                known = image(match.activation, ranges.get(match.reads.name, DEFAULT_RANGE))
            ranges[tensor.name] = known or DEFAULT_RANGE
    return ranges


def _tied(graph: Graph, node: Node) -> list[str]:
    first_only = node.op not in ("Concat", "Max", "Min")
    inputs = node.inputs[:1] if first_only else node.inputs
    computed = [t.name for t in inputs if not t.is_empty() and graph.constant(t) is None]
    return [*computed, *(t.name for t in node.outputs if not t.is_empty())]


class _Groups:
    """Disjoint sets of names."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}

    def join(self, one: str, other: str) -> None:
        """Put two names, and all that are with either, in one set."""
        self._parent[self._root(one)] = self._root(other)

    def of(self, names: Iterable[str]) -> list[list[str]]:
        """The names by set, in the order in which sets are met."""
        found: dict[str, list[str]] = {}
        for name in names:
            found.setdefault(self._root(name), []).append(name)
        return list(found.values())

    def _root(self, name: str) -> str:
        while (above := self._parent.get(name, name)) != name:
            name = above
        return name
