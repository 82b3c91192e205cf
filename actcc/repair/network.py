"""A network as numbered nodes, of which any part can be made a model of its own.

Weights stay where they are until a part needs them: nothing here takes as long, or as much memory,
as the weights of the whole network are large.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
import onnx

from actcc.errors import RepairError
from actcc.graph import Array, Graph
from actcc.graph.export import constant_proto, outer_reads
from actcc.graph.shapes import TensorType, value_info

_DATA = (
    "raw_data",
    "float_data",
    "int32_data",
    "int64_data",
    "double_data",
    "uint64_data",
    "string_data",
)


class Network:
    """Nodes in topological order, by number.

    Attributes:
        inputs: names of the graph inputs that have to be fed.
        writers: the node that writes each tensor.
        types: of tensors, where they are known.
        weights: names of initializers, and of what Constant nodes hold.
    """

    def __init__(self, graph: Graph) -> None:
        frame = graph.frame()
        self._ir_version = max(frame.ir_version, 4)
        self._opsets = list(frame.opset_import)
        self._functions = list(frame.functions)
        self._sparse = {tensor.values.name: tensor for tensor in frame.graph.sparse_initializer}
        self._small: dict[str, onnx.TensorProto] = {t.name: t for t in frame.graph.initializer}
        self._large = {t.name: graph.tensor(t.name) for t in frame.graph.initializer if _lacks(t)}
        self._changed: dict[str, Array] = {}
        self._nodes: list[onnx.NodeProto] = []
        for node in frame.graph.node:
            values = graph.constant(node.output[0]) if node.op_type == "Constant" else None
            if values is None or values.dtype.hasobject:
                self._nodes.append(node)
            else:
                self._small[node.output[0]] = onnx.numpy_helper.from_array(values, node.output[0])
        self.weights = self._small.keys() | self._sparse.keys()
        self.inputs = frozenset(tensor.name for tensor in graph.inputs)
        self.types = {n: t for n, t in graph.types.items() if t.element}
        self._reads = [self._read_by(node) for node in self._nodes]
        self.writers = {n: i for i, node in enumerate(self._nodes) for n in node.output if n}
        self._tied = self._find_tied()

    def _read_by(self, node: onnx.NodeProto) -> tuple[str, ...]:
        names = dict.fromkeys((*node.input, *outer_reads(node)))
        return tuple(name for name in names if name and name not in self.weights)

    def _find_tied(self) -> dict[int, list[int]]:
        """Nodes that read the sequence or optional that a node writes: they run with it."""
        opaque = {
            name: i
            for i, node in enumerate(self._nodes)
            for name in node.output
            if name not in self.types and _writes_no_tensor(node, self._opsets)
        }
        tied: dict[int, list[int]] = {}
        for i, names in enumerate(self._reads):
            for name in names:
                if name in opaque:
                    tied.setdefault(opaque[name], []).append(i)
        return tied

    # ---------------------------------------------------------------- structure

    def whole(self, names: frozenset[str]) -> frozenset[str]:
        """Of these, graph inputs and tensors of nodes that write no others."""
        nodes = {self.writers[name] for name in names if name in self.writers}
        complete = (self._written_by(i) for i in nodes)
        return (names & self.inputs) | {n for w in complete if names.issuperset(w) for n in w}

    def ancestors(
        self, names: Sequence[str], without: Collection[int], known: frozenset[str]
    ) -> list[int]:
        """Nodes that these tensors need, in order.

        Args:
            without: nodes that do not count, and what lies before them.
            known: tensors that need no node.
        """
        found: set[int] = set()
        frontier = [self.writers[n] for n in names if n in self.writers and n not in known]
        while frontier:
            i = frontier.pop()
            if i in found or i in without:
                continue
            found.add(i)
            reads = (name for name in self._reads[i] if name not in known)
            frontier += [self.writers[name] for name in reads if name in self.writers]
            frontier += self._tied.get(i, [])
        return sorted(found)

    def written(self, nodes: Sequence[int]) -> list[str]:
        """Tensors that the nodes write."""
        return [name for i in nodes for name in self._written_by(i)]

    def borders(self, nodes: Sequence[int]) -> list[str]:
        """Tensors that the nodes read and do not write, each once; weights are none."""
        inside = set(self.written(nodes))
        return [
            n for n in dict.fromkeys(n for i in nodes for n in self._reads[i]) if n not in inside
        ]

    def count_reads(self, nodes: Sequence[int]) -> Counter[str]:
        """How many of the nodes read each tensor."""
        return Counter(name for i in nodes for name in self._reads[i])

    def _written_by(self, i: int) -> list[str]:
        return [name for name in self._nodes[i].output if name]

    # ---------------------------------------------------------------- weights

    def set_weight(self, name: str, values: Array) -> None:
        """Other values for an initializer, in parts that are made from now on.

        Raises:
            RepairError: there is none of that name.
        """
        if name not in self.weights:
            raise RepairError(f"the network has no initializer '{name}' to be set")
        self._changed[name] = values

    def weight(self, name: str) -> Array:
        """Values of an initializer."""
        if name in self._sparse:
            raise RepairError(f"initializer '{name}' is sparse and cannot be read")
        changed = self._changed.get(name)
        return onnx.numpy_helper.to_array(self._proto(name)) if changed is None else changed

    def _proto(self, name: str) -> onnx.TensorProto:
        if name in self._changed:
            return onnx.numpy_helper.from_array(np.ascontiguousarray(self._changed[name]), name)
        large = self._large.get(name)
        return self._small[name] if large is None else constant_proto(large)

    # ---------------------------------------------------------------- parts

    def part(
        self,
        nodes: Sequence[int],
        borders: Sequence[str],
        outputs: Sequence[str],
        elements: Mapping[str, np.dtype[Any]],
    ) -> onnx.ModelProto:
        """A model of these nodes.

        Args:
            elements: types of borders that `types` does not have.
        """
        model = onnx.ModelProto(ir_version=self._ir_version)
        model.opset_import.extend(self._opsets)
        model.functions.extend(self._functions)
        graph = model.graph
        graph.name = "part"
        graph.node.extend(self._nodes[i] for i in nodes)
        graph.input.extend(value_info(name, self._type(name, elements)) for name in borders)
        graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs)
        reads = (n for node in graph.node for n in (*node.input, *outer_reads(node)))
        for name in dict.fromkeys(n for n in reads if n in self.weights):
            if name in self._sparse:
                graph.sparse_initializer.append(self._sparse[name])
            else:
                graph.initializer.append(self._proto(name))
        return model

    def _type(self, name: str, elements: Mapping[str, np.dtype[Any]]) -> TensorType:
        found = self.types.get(name)
        if found is not None:
            return found
        return TensorType(onnx.helper.np_dtype_to_tensor_dtype(elements[name]), None)


def _lacks(tensor: onnx.TensorProto) -> bool:
    """Whether a frame has left out the data of a tensor."""
    return math.prod(tensor.dims) > 0 and not any(getattr(tensor, field) for field in _DATA)


def _writes_no_tensor(node: onnx.NodeProto, opsets: Sequence[onnx.OperatorSetIdProto]) -> bool:
    """Whether an operator writes sequences or optionals only."""
    version = next((entry.version for entry in opsets if entry.domain == node.domain), 0)
    try:
        schema = onnx.defs.get_schema(node.op_type, version, node.domain)
    except onnx.defs.SchemaError:
        return False
    allowed = [kind for output in schema.outputs for kind in output.types]
    return bool(allowed) and not any(kind.startswith("tensor(") for kind in allowed)
