"""Nodes that compute the same value in every run are computed once.

    f(c₁, …, cₙ) with constant cᵢ  →  constant;      Shape(x), Size(x) with static x  →  constant

ONNX Runtime computes the values, node by node, as it would at run time.

Left as they are: random operators; control flow; operators of other domains; QuantizeLinear and
DequantizeLinear, which carry the precision of a layer; results that are outputs of the graph or
are read in a subgraph; and what would make the weights grow by more than a tenth, within 64 KiB to
1 MiB (an expanded table, say).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import onnx
from onnx import shape_inference

from actcc.errors import ModelError
from actcc.graph import Array, Graph, Node
from actcc.graph.operators import ONNX_DOMAINS, PRECISION, RANDOM
from actcc.graph.shapes import type_of
from actcc.pass_api import NormalizingPass
from actcc.runtime import run, session

_NEVER = RANDOM | PRECISION | {"Constant"}
_NUMBERS = "biuf"  # dtype kinds: bool, integers, floats
_LEAST_GROWTH, _MOST_GROWTH = 64 * 1024, 1024 * 1024
_MOST_READ = 64 * 1024 * 1024


class FoldConstants(NormalizingPass):
    """Subexpression of constants  →  constant."""

    name = "fold-constants"

    def run(self, graph: Graph) -> tuple[Graph, list[str]]:
        """The graph itself, and how many nodes were folded."""
        folder = _Folder(graph)
        nodes = list(graph.nodes())
        folded = [node for node in nodes if folder.fold(node)]
        if not folded:
            return graph, []
        inside = {id(node) for node in folded}
        for node in folded:
            for tensor in node.outputs:
                readers = [reader for reader in tensor.outputs if id(reader) not in inside]
                if readers:
                    constant = graph.initializer(f"{tensor.name}_folded", folder.known[tensor.name])
                    graph.redirect(readers, tensor, constant)
        before = len(nodes)
        graph.prune()
        after = sum(1 for _ in graph.nodes())
        return graph, [f"computed {before - after} nodes of constants once and for all"]


class _Folder:
    """Computes nodes in topological order; remembers values and how much the weights grow."""

    def __init__(self, graph: Graph) -> None:
        self.known: dict[str, Array] = {}
        self._graph = graph
        self._types = graph.types
        model = graph.frame()
        self._protos = {node.name: node for node in model.graph.node}
        self._frame = onnx.ModelProto(ir_version=max(model.ir_version, 4))
        self._frame.opset_import.extend(model.opset_import)
        self._room = min(max(graph.weight_bytes // 10, _LEAST_GROWTH), _MOST_GROWTH)

    def fold(self, node: Node) -> bool:
        """Whether the node's outputs are now among the known values."""
        if not self._may_fold(node):
            return False
        values = self._shape(node) or self._compute(node)
        self.known.update(values)
        return bool(values)

    def _may_fold(self, node: Node) -> bool:
        graph = self._graph
        if node.domain not in ONNX_DOMAINS or node.op in _NEVER or not node.inputs:
            return False
        return not any(
            graph.is_output(tensor) or graph.is_read_in_subgraph(tensor) for tensor in node.outputs
        ) and not any(a.HasField("g") or a.graphs for a in self._protos[node.name].attribute)

    def _shape(self, node: Node) -> dict[str, Array]:
        if node.op not in ("Shape", "Size"):
            return {}
        found = self._types.get(node.inputs[0].name)
        if found is None or not found.is_static:
            return {}
        whole = np.asarray(found.shape, np.int64)
        part = whole[node.attrs.get("start", 0) : node.attrs.get("end", len(whole))]
        value = part if node.op == "Shape" else np.asarray(math.prod(whole.tolist()), np.int64)
        return {node.outputs[0].name: value}

    def _compute(self, node: Node) -> dict[str, Array]:
        """Values of all outputs; empty where an input is not constant or there is no room."""
        inputs: dict[str, Array] = {}
        for tensor in node.inputs:
            if not tensor.is_empty():
                value = self.known.get(tensor.name)
                value = self._graph.constant(tensor) if value is None else value
                if value is None or not _is_numbers(value):
                    return {}
                inputs[tensor.name] = value
        if _divides_by_zero(node, inputs) or sum(map(_bytes, inputs.values())) > _MOST_READ:
            return {}
        model = self._model_of(self._protos[node.name], inputs)
        grown = _output_bytes(model) - sum(
            value.nbytes
            for name, value in inputs.items()
            if len(self._graph.consumers(name)) == 1 and not self._graph.is_output(name)
        )
        if grown > self._room:
            return {}
        try:
            values = run(session(model, optimise=False), {})
        except ModelError:
            return {}  # no kernel, or an error that belongs to the run of the model
        if any(
            not isinstance(v, np.ndarray) or v.dtype.kind not in _NUMBERS for v in values.values()
        ):
            return {}
        self._room -= max(int(grown), 0)
        return values

    def _model_of(self, proto: onnx.NodeProto, inputs: Mapping[str, Array]) -> onnx.ModelProto:
        """The node alone, with its inputs as weights and the types of its outputs inferred."""
        model = onnx.ModelProto()
        model.CopyFrom(self._frame)
        model.graph.name = "constant"
        model.graph.node.append(proto)
        for name, value in inputs.items():
            model.graph.initializer.append(onnx.numpy_helper.from_array(value, name))
        model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in proto.output if name)
        return shape_inference.infer_shapes(model, data_prop=True)


def _is_numbers(value: object) -> bool:
    return isinstance(value, np.ndarray) and value.dtype.kind in _NUMBERS


def _bytes(value: Array) -> int:
    return int(value.nbytes)


def _output_bytes(model: onnx.ModelProto) -> float:
    """Bytes of all outputs; infinite where a size depends on the data."""
    types = [type_of(output) for output in model.graph.output]
    return sum(found.bytes if found.is_static else math.inf for found in types)


def _divides_by_zero(node: Node, inputs: Mapping[str, Array]) -> bool:
    """Whether computing an integer division would kill the process."""
    if node.op not in ("Div", "Mod"):
        return False
    divisor = inputs[node.inputs[1].name]
    return divisor.dtype.kind in "iu" and not divisor.all()
