"""Parts of a graph as graphs of their own: for prices, for estimates, for tests."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from actcc.errors import ModelError
from actcc.graph.export import Header, constant_values, outer_reads
from actcc.graph.graph import Graph
from actcc.graph.shapes import TensorType, value_info
from actcc.graph.view import Node


def extract(
    graph: Graph, nodes: Collection[str], outputs: Sequence[str] = (), *, static: bool = True
) -> Graph:
    """The given nodes as a graph of their own.

    Inputs are the tensors that come from outside; outputs are those that are read outside or leave
    the graph, or exactly `outputs` where given. Weights are shared with `graph`; where a node holds
    a subgraph they are copied.

    Args:
        static: whether all shapes must be known, as they must be for a price.

    Raises:
        ModelError: a tensor has no static shape, or one at the border no type.
    """
    wanted = set(nodes)
    chosen = [node for node in graph.nodes() if node.name in wanted]
    if any(isinstance(value, gs.Graph) for node in chosen for value in node.attrs.values()):
        return _with_subgraphs(graph, chosen, outputs, static)
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
                twin = _border(graph, tensor.name, static)
                if not any(id(writer) in inside for writer in tensor.inputs):
                    inputs.append(twin)
            tensors[id(tensor)] = twin
        return tensors[id(tensor)]

    copies = []
    for node in chosen:
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
        import_domains=[onnx.helper.make_opsetid(d, v) for d, v in _domains(graph, chosen).items()],
    )
    header = Header(
        ir_version=max(graph.ir_version, 4),
        proto=onnx.ModelProto(producer_name="actcc", functions=graph.functions),
        original_nodes={},
    )
    types = {name: graph.types[name] for name in by_name if name in graph.types}
    return Graph(surgeon, header, types=types)


def ancestors(graph: Graph, tensors: Sequence[str]) -> set[str]:
    """Names of the nodes that the tensors depend on."""
    found: set[str] = set()
    frontier = [graph.tensor(name) for name in tensors]
    while frontier:
        writer = graph.producer(frontier.pop())
        if writer is not None and writer.name not in found:
            found.add(writer.name)
            frontier += graph.reads(writer)
    return found


def _domains(graph: Graph, chosen: Iterable[Node]) -> dict[str, int]:
    """The operator sets that the nodes need; a function's body may need any."""
    if graph.functions:
        return graph.opsets
    used = {node.domain or "" for node in chosen} - {"ai.onnx"}
    return {domain: found for domain, found in graph.opsets.items() if domain in used | {""}}


def _border(graph: Graph, name: str, static: bool) -> gs.Variable:
    """A tensor with its type."""
    found = graph.types.get(name)
    if static:
        _check_static(found, name)
    if found is None:
        return gs.Variable(name)
    shape = None if found.shape is None else list(found.shape)
    return gs.Variable(name, dtype=found.element, shape=shape)


def _check_static(found: TensorType | None, name: str) -> None:
    if found is None or not found.is_static:
        shape = None if found is None else found.shape
        raise ModelError(f"tensor '{name}' has no static shape ({shape}); give --shape")


def _with_subgraphs(
    graph: Graph, chosen: Sequence[Node], outputs: Sequence[str], static: bool
) -> Graph:
    """As `extract`, by way of protos: the editable form shares nodes between graph and subgraph."""
    model = graph.to_proto()
    names = {node.name for node in chosen}
    nodes = [node for node in model.graph.node if node.name in names]
    written = {name for node in nodes for name in node.output}
    reads = [name for node in nodes for name in (*node.input, *outer_reads(node))]
    outside = [name for name in dict.fromkeys(reads) if name and name not in written]
    weights = {
        tensor.name: tensor
        for tensor in model.graph.initializer
        if tensor.name not in graph.overridable
    }
    leaving = outputs or _leaving(graph, chosen, {id(node) for node in chosen})
    part = onnx.helper.make_graph(
        nodes,
        "part",
        [_described(graph, name, static) for name in outside if name not in weights],
        [onnx.ValueInfoProto(name=name) for name in leaving],
        [weights[name] for name in outside if name in weights],
    )
    extracted = onnx.helper.make_model(
        part,
        producer_name="actcc",
        ir_version=max(graph.ir_version, 4),
        opset_imports=model.opset_import,
        functions=model.functions,
    )
    return Graph.load(extracted)


def _described(graph: Graph, name: str, static: bool) -> onnx.ValueInfoProto:
    found = graph.types.get(name)
    if static:
        _check_static(found, name)
    if found is None:
        raise ModelError(f"tensor '{name}' has no known type; export the model with value_info")
    return value_info(name, found)


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
    if isinstance(value, gs.Constant):
        return _constant_identity(value)
    # ONNX holds them in single precision; a graph that was never written may not.
    if isinstance(value, float):
        return repr(float(np.float32(value)))
    if isinstance(value, list | tuple) and value and all(isinstance(v, float) for v in value):
        return repr([float(np.float32(v)) for v in value])
    return repr(value)


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
