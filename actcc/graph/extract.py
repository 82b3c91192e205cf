"""Parts of a graph as graphs of their own: for prices, for estimates, for tests."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from actcc.errors import ModelError
from actcc.graph.export import Header, constant_values
from actcc.graph.graph import Graph
from actcc.graph.shapes import TensorType
from actcc.graph.view import Node


def extract(graph: Graph, nodes: Collection[str], outputs: Sequence[str] = ()) -> Graph:
    """The given nodes as a graph of their own, with static shapes.

    Inputs are the tensors that come from outside; outputs are those that are read outside or leave
    the graph, or exactly `outputs` where given. Weights are shared with `graph`, not copied.

    Raises:
        ModelError: a tensor at the border has no static shape, or a node holds a subgraph.
    """
    wanted = set(nodes)
    chosen = [node for node in graph.nodes() if node.name in wanted]
    inside = {id(node) for node in chosen}
    tensors: dict[int, gs.Tensor] = {}
    inputs: list[gs.Tensor] = []

    def counterpart(tensor: gs.Tensor) -> gs.Tensor:
        if tensor.is_empty():
            return gs.Variable.empty()
        if id(tensor) not in tensors:
            constant = isinstance(tensor, gs.Constant)
            if constant and tensor.name not in graph.overridable:
                twin = gs.Constant(tensor.name, tensor._values)
            else:
                twin = _border(graph, tensor.name)
                if not any(id(writer) in inside for writer in tensor.inputs):
                    inputs.append(twin)
            tensors[id(tensor)] = twin
        return tensors[id(tensor)]

    copies = []
    for node in chosen:
        if any(isinstance(value, gs.Graph) for value in node.attrs.values()):
            raise ModelError(f"node '{node.name}' holds a subgraph and cannot be extracted")
        reads = [counterpart(tensor) for tensor in node.inputs]
        writes = [counterpart(tensor) for tensor in node.outputs]
        copies.append(gs.Node(node.op, node.name, dict(node.attrs), reads, writes, node.domain))
    leaving = outputs or _leaving(graph, chosen, inside)
    by_name = {tensor.name: tensor for tensor in tensors.values()}
    surgeon = gs.Graph(
        nodes=copies,
        inputs=inputs,
        outputs=[by_name[name] for name in leaving],
        name="part",
        opset=graph.opset,
        import_domains=[onnx.helper.make_opsetid(d, v) for d, v in graph.opsets.items()],
    )
    header = Header(
        ir_version=max(graph.ir_version, 4),
        proto=onnx.ModelProto(producer_name="actcc", functions=graph.functions),
        original_nodes={},
    )
    types = {name: graph.types[name] for name in by_name if name in graph.types}
    return Graph(surgeon, header, types=types)


def _border(graph: Graph, name: str) -> gs.Variable:
    """A tensor with its static type."""
    found = graph.types.get(name)
    if found is None or not found.is_static:
        shape = None if found is None else found.shape
        raise ModelError(f"tensor '{name}' has no static shape ({shape}); give --shape")
    return gs.Variable(name, dtype=found.element, shape=list(found.shape or ()))


def _leaving(graph: Graph, chosen: Iterable[Node], inside: Collection[int]) -> list[str]:
    return [
        tensor.name
        for node in chosen
        for tensor in node.outputs
        if not tensor.is_empty()
        and (
            graph.is_output(tensor)
            or not tensor.outputs
            or any(id(reader) not in inside for reader in tensor.outputs)
        )
    ]


def structure_hash(graph: Graph) -> str:
    """A hash that is equal for parts that cost the same: operators, attributes, wiring and types.

    Names and weights do not count; scalar and integer constants (bounds, pads, shapes) do.
    """
    numbers: dict[int, str] = {}
    digest = hashlib.sha256(repr(sorted(graph.opsets.items())).encode())

    def identify(tensor: gs.Tensor) -> str:
        if tensor.is_empty():
            return "-"
        if isinstance(tensor, gs.Constant):
            return _constant_identity(tensor)
        return numbers.setdefault(id(tensor), f"t{len(numbers)}:{graph.types.get(tensor.name)}")

    for tensor in graph.inputs:
        digest.update(identify(tensor).encode())
    for node in graph.nodes():
        attributes = sorted((key, _attribute_identity(v)) for key, v in node.attrs.items())
        wiring = [identify(t) for t in node.inputs], [identify(t) for t in node.outputs]
        digest.update(repr((node.op, node.domain or "", attributes, wiring)).encode())
    digest.update(repr([identify(tensor) for tensor in graph.outputs]).encode())
    return digest.hexdigest()


def _constant_identity(tensor: gs.Constant) -> str:
    values = constant_values(tensor)
    if values is None:
        return f"sparse{tensor.shape}"
    decides = values.size == 1 or (np.issubdtype(values.dtype, np.integer) and values.size <= 64)
    return f"{values.dtype}{values.shape}{values.tolist() if decides else ''}"


def _attribute_identity(value: Any) -> str:
    return _constant_identity(value) if isinstance(value, gs.Constant) else repr(value)


def content_hash(graph: Graph) -> str:
    """SHA-256 over the nodes and the bytes of all weights: the identity of a model."""
    model = graph.to_proto()
    digest = hashlib.sha256()
    for node in model.graph.node:
        digest.update(node.SerializeToString(deterministic=True))
    for tensor in model.graph.initializer:
        digest.update(tensor.name.encode())
        digest.update(
            tensor.raw_data if tensor.HasField("raw_data") else tensor.SerializeToString()
        )
    for value in (*model.graph.input, *model.graph.output):
        digest.update(value.SerializeToString(deterministic=True))
    return digest.hexdigest()


def static_types(graph: Graph) -> Mapping[str, TensorType]:
    """Types of all tensors.

    Raises:
        ModelError: an input has a symbolic dimension that `--shape` has not bound.
    """
    for tensor in graph.inputs:
        found = graph.types.get(tensor.name)
        if found is not None and not found.is_static:
            example = "x".join(str(d) if isinstance(d, int) else "1" for d in found.shape or ())
            raise ModelError(
                f"input '{tensor.name}' has the shape {list(found.shape or ())}; "
                f"choose one with --shape {tensor.name}={example or '1'}"
            )
    return graph.types
