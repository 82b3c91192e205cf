"""What a small graph's latency can be predicted from: work by kind, and traffic.

All features are amounts that add up over nodes, except those that begin with "largest"; an operator
that is not there has no entry, so that graphs with few operators have few features.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import onnx
import onnx_graphsurgeon as gs

from actcc.graph import Graph, Node, Tensor
from actcc.graph.files import tensor_bytes
from actcc.graph.macs import Contraction, contraction
from actcc.memory import VIEWS, compile_time_tensors


def graph_features(graph: Graph) -> dict[str, float]:
    """Features by name: multiply-accumulates, elements by operator, bytes.

    Raises:
        ModelError: a shape is not static.
    """
    constants = compile_time_tensors(graph)
    found: Counter[str] = Counter()
    for node in graph.nodes():
        if all(t.name in constants for t in node.outputs if not t.is_empty()):
            continue
        if node.op in VIEWS:
            continue
        found["nodes"] += 1
        work = contraction(graph, node)
        if work is None:
            found[f"elements {node.op}"] += _largest(graph, node)
        else:
            _add_work(found, work)
        for tensor in (t for t in node.inputs if isinstance(t, gs.Constant)):
            element = onnx.helper.np_dtype_to_tensor_dtype(tensor.dtype)
            found["bytes of weights"] += tensor_bytes(element, tensor.shape)
    amounts = {name: float(value) for name, value in found.items()}
    amounts["bytes in"] = _bytes(graph, graph.inputs)
    amounts["bytes out"] = _bytes(graph, graph.outputs)
    return amounts


def _add_work(found: Counter[str], work: Contraction) -> None:
    found[f"macs {_kind(work)}"] += work.macs
    for name, value in (
        ("largest positions", work.positions),
        ("largest channels in", work.groups * work.inputs),
        ("largest channels out", work.groups * work.outputs),
        ("largest kernel", work.kernel[0] * work.kernel[1]),
        ("largest stride", work.stride[0] * work.stride[1]),
    ):
        found[name] = max(found[name], value)


def _kind(work: Contraction) -> str:
    if work.depthwise:
        return "depthwise"
    if work.transposed:
        return "transposed"
    if work.groups > 1:
        return "grouped"
    return "pointwise" if work.kernel == (1, 1) else "convolution"


def _largest(graph: Graph, node: Node) -> int:
    """Elements of the largest feature map that a node reads or writes."""
    types = [
        graph.types.get(t.name)
        for t in (*node.inputs, *node.outputs)
        if not t.is_empty() and not isinstance(t, gs.Constant)
    ]
    return max((found.elements for found in types if found is not None), default=0)


def _bytes(graph: Graph, tensors: Iterable[Tensor]) -> float:
    found = [graph.types.get(tensor.name) for tensor in tensors]
    return float(sum(one.bytes for one in found if one is not None))
