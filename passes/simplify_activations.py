"""Functions that change nothing, because of what is before or behind them, are removed.

1. Relu, Clip, Abs, LeakyRelu, PRelu, Elu, Celu of a tensor that lies where they are the identity:
   ReLU of ReLU6, Clip[0, 1] of Sigmoid, ReLU of a pooled ReLU. Ranges: `actcc.activations.ranges`.
2. Clip[c, d](Clip[a, b](x)) = Clip[f(a), f(b)](x) with f the outer Clip; Relu is Clip[0, ∞].
3. Floor, Ceil and Round of each other, and Sign of Sign.
4. Before ArgMax, ArgMin and a TopK whose values nobody reads, only the order counts: increasing
   functions (Sigmoid, Tanh, Softplus, Exp, LeakyRelu, Elu, …; Softmax and LogSoftmax along the same
   axis; sums and products with one number) go; decreasing ones (Neg, …) turn ArgMax into ArgMin.

Requires, for 2 and 4: what is removed has no other reader and is no output of the graph.

Exact over real numbers. In 4, rounding may make different elements equal (a Sigmoid in float32 is 1
for all x > 17), of which ArgMax takes the first; without the function it takes the largest. So the
index is always that of a largest element of the original, and differs only where rounding had
hidden which. Where it does on the samples of the comparison, normalizing leaves the pass out.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from actcc.activations import Activation
from actcc.activations.ranges import Range, ValueRanges, clip_bounds
from actcc.activations.spellings import spellings_of, write
from actcc.graph import Graph, Node, Tensor
from actcc.graph.operators import ONNX_DOMAINS
from actcc.linear.linear_layer import only_read_by
from actcc.linear.scale_shift import scale_shift
from actcc.pass_api import NormalizingPass
from actcc.site import Site

_IDENTITY_WHERE_POSITIVE = frozenset({"Abs", "LeakyRelu", "PRelu", "Elu", "Celu"})
_WHOLE = frozenset({"Floor", "Ceil", "Round"})
_INCREASING = frozenset({"Sigmoid", "Tanh", "Softplus", "Softsign", "Exp", "Erf"})
_INCREASING_WHERE_POSITIVE = {"LeakyRelu": 0.01, "Elu": 1.0, "Celu": 1.0, "Selu": 1.67326}  # alpha
_ORDERING = ("ArgMax", "ArgMin", "TopK")
_OPPOSITE = {"ArgMax": "ArgMin", "ArgMin": "ArgMax"}


class SimplifyActivations(NormalizingPass):
    """Activation without effect  →  nothing; Clip of Clip  →  one Clip."""

    name = "simplify-activations"

    def run(self, graph: Graph) -> tuple[Graph, list[str]]:
        """The graph itself, and what was removed."""
        done: Counter[str] = Counter()
        ranges = ValueRanges(graph)
        for node in list(graph.nodes()):
            if node.domain not in ONNX_DOMAINS or not node.outputs:
                continue
            if _changes_nothing(graph, node, ranges):
                done[f"removed {{}} {node.op} that changed nothing"] += 1
                site = Site([node], node.inputs[0], node.outputs[0])
                with graph.marking(self.name, site.writes, "removed"):
                    graph.bypass(site, site.reads)
            elif _merge_clips(graph, node):
                done["merged {} pairs of Clip or Relu"] += 1
            elif node.op in _ORDERING:
                for op in _remove_before_order(graph, node):
                    done[f"removed {{}} {op} before {node.op}, for which order counts"] += 1
        return graph, [line.format(count) for line, count in done.items()]


def _changes_nothing(graph: Graph, node: Node, ranges: ValueRanges) -> bool:
    bounds = clip_bounds(graph, node)
    if bounds is not None:
        return ranges.of(node.inputs[0]).within(bounds)
    if node.op in _IDENTITY_WHERE_POSITIVE:
        return ranges.of(node.inputs[0]).low >= 0
    writer = graph.producer(node.inputs[0]) if node.inputs else None
    if writer is None or writer.domain not in ONNX_DOMAINS:
        return False
    return (node.op in _WHOLE and writer.op in _WHOLE) or node.op == writer.op == "Sign"


def _merge_clips(graph: Graph, node: Node) -> bool:
    """Case 2."""
    outer = clip_bounds(graph, node)
    before = graph.producer(node.inputs[0]) if outer is not None else None
    inner = None if before is None else clip_bounds(graph, before)
    if outer is None or before is None or inner is None or not only_read_by(graph, node.inputs[0]):
        return False
    function = _clip(inner.clipped(outer))
    if inner.low > inner.high or outer.low > outer.high or function is None:
        return False
    element = str(graph.dtype(node.outputs[0]))
    for spelling in spellings_of(function):
        if not spelling.obstacle(function, graph.opset, element, contrib=False):
            site = Site([before, node], before.inputs[0], node.outputs[0])
            with graph.marking(SimplifyActivations.name, site.writes, str(function)):
                write(graph, site, function, spelling, element)
            return True
    return False


def _clip(bounds: Range) -> Activation | None:
    if bounds == Range(0.0):
        return Activation("Relu")
    given = {"min": bounds.low, "max": bounds.high}
    finite = {name: value for name, value in given.items() if np.isfinite(value)}
    return Activation.of("Clip", **finite) if finite else None


def _remove_before_order(graph: Graph, node: Node) -> list[str]:
    """Case 4; operators that were removed."""
    if any(_is_read(graph, values) for values in node.outputs[:1] if node.op == "TopK"):
        return []
    source, sign, removed = node.inputs[0], 1, []
    while only_read_by(graph, source):
        writer = graph.producer(source)
        direction = 0 if writer is None else _direction(graph, writer, node)
        if writer is None or not direction:
            break
        read = scale_shift(graph, writer)
        source, sign = (writer.inputs[0] if read is None else read.reads), sign * direction
        removed.append(str(writer.op))
    if not removed or (sign < 0 and node.op == "TopK" and graph.opset < 11):
        return []
    if sign > 0:
        graph.set_input(node, 0, source)
    elif node.op == "TopK":
        graph.set_input(node, 0, source)
        graph.set_attribute(node, "largest", 1 - node.attrs.get("largest", 1))
    else:
        site = Site([node], source, node.outputs[0])
        with graph.marking(SimplifyActivations.name, site.writes, "reversed"):
            graph.replace(site, _OPPOSITE[node.op], [source], **node.attrs)
    graph.prune()
    return removed


def _is_read(graph: Graph, tensor: Tensor) -> bool:
    return bool(tensor.outputs) or graph.is_output(tensor)


def _direction(graph: Graph, writer: Node, ordering: Node) -> int:
    """1 for functions that increase, -1 for those that decrease, 0 for any others."""
    kind = graph.dtype(writer.outputs[0])
    if writer.domain not in ONNX_DOMAINS or kind is None or kind.kind != "f":
        return 0
    if writer.op in _INCREASING:
        return 1
    if writer.op in _INCREASING_WHERE_POSITIVE:
        default = _INCREASING_WHERE_POSITIVE[writer.op]
        factors = writer.attrs.get("alpha", default), writer.attrs.get("gamma", 1.0)
        return int(min(factors) > 0)
    if writer.op in ("Softmax", "LogSoftmax"):
        return int(_along_the_same(graph, writer, ordering))
    found = scale_shift(graph, writer)
    if found is None or found.scale.size * found.shift.size != 1:
        return 0
    rank = graph.shape(found.reads)
    if found.spread and (rank is None or max(found.scale.ndim, found.shift.ndim) > len(rank)):
        return 0
    return int(np.sign(found.scale.item()))


def _along_the_same(graph: Graph, softmax: Node, ordering: Node) -> bool:
    """Whether elements that are ordered were divided by one sum.

    Before opset 13, Softmax runs over its axis and all behind it at once.
    """
    shape = graph.shape(softmax.outputs[0])
    rank = None if shape is None else len(shape)
    flattens = graph.opset < 13
    summed = softmax.attrs.get("axis", 1 if flattens else -1)
    ordered = ordering.attrs.get("axis", -1 if ordering.op == "TopK" else 0)
    if rank is None:
        return bool(summed == ordered)
    summed, ordered = summed % rank, ordered % rank
    return bool(ordered >= summed if flattens else ordered == summed)
