"""Values that follow from shapes alone, for sizes that a network computes while it runs.

Exporters write `Resize` to half of another tensor's size as Shape, Slice, Div and Concat. Where the
shape is static the outcome is too, but ONNX's own inference follows no division or slice of it.
ONNX's reference implementation computes such nodes here.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import onnx

Values = dict[str, "np.ndarray[Any, Any]"]
_LARGEST = 128  # elements; more than any shape has
# fmt: off
_ARITHMETIC = frozenset({
    "Abs", "Add", "And", "Cast", "Ceil", "Concat", "ConstantOfShape", "Div", "Equal", "Expand",
    "Floor", "Gather", "Greater", "GreaterOrEqual", "Identity", "Less", "LessOrEqual", "Max", "Min",
    "Mod", "Mul", "Neg", "Not", "Or", "Pow", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceSum",
    "Reshape", "Round", "Slice", "Split", "Sqrt", "Squeeze", "Sub", "Transpose", "Unsqueeze",
    "Where",
})
# fmt: on
_ENLARGING = {"ConstantOfShape": 0, "Expand": 1}  # position of the operand that says how large


def shape_values(model: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> Values:
    """Outputs of the main graph's nodes that follow from its initializers and static shapes.

    Args:
        shapes: static shapes by tensor.

    Returns:
        Values by tensor; all outputs of a node or none of them.
    """
    known = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
    found: Values = {}
    for node in model.graph.node:
        if node.domain not in ("", "ai.onnx") or not node.output:
            continue
        outcome = _outcome(node, model.opset_import, shapes, known)
        if all(value.size <= _LARGEST for value in outcome.values()):
            found.update(outcome)
            known.update(outcome)
    return found


def _outcome(
    node: onnx.NodeProto,
    opsets: Iterable[onnx.OperatorSetIdProto],
    shapes: Mapping[str, tuple[int, ...]],
    known: Values,
) -> Values:
    if node.op_type in ("Shape", "Size") and node.input[0] in shapes:
        return {node.output[0]: _measure(node, shapes[node.input[0]])}
    if node.op_type == "Constant":
        return _evaluate(node, opsets, {}) if node.ByteSize() < 8 * _LARGEST else {}
    if node.op_type not in _ARITHMETIC or any(n and n not in known for n in node.input):
        return {}
    operands = {name: known[name] for name in node.input if name}
    size = _ENLARGING.get(node.op_type)
    if size is not None and math.prod(known[node.input[size]].tolist()) > _LARGEST:
        return {}
    return _evaluate(node, opsets, operands)


def _measure(node: onnx.NodeProto, shape: tuple[int, ...]) -> np.ndarray[Any, Any]:
    if node.op_type == "Size":
        return np.asarray(math.prod(shape), np.int64)
    given = {a.name: a.i for a in node.attribute}
    return np.asarray(shape, np.int64)[given.get("start", 0) : given.get("end", len(shape))]


def _evaluate(
    node: onnx.NodeProto, opsets: Iterable[onnx.OperatorSetIdProto], operands: Values
) -> Values:
    from onnx.reference import ReferenceEvaluator

    graph = onnx.helper.make_graph(
        [node],
        "shape",
        [onnx.ValueInfoProto(name=name) for name in operands],
        [onnx.ValueInfoProto(name=name) for name in node.output if name],
    )
    names = [value.name for value in graph.output]
    try:
        with np.errstate(all="ignore"):
            evaluator = ReferenceEvaluator(onnx.helper.make_model(graph, opset_imports=[*opsets]))
            values = evaluator.run(names, operands)
    except Exception:  # it is no inference's task to say what is wrong with a node
        return {}
    return {name: np.asarray(value) for name, value in zip(names, values, strict=True)}
