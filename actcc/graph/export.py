"""From ONNX to onnx-graphsurgeon and back without loss.

onnx-graphsurgeon drops what it does not model: metadata and doc strings of nodes, inputs that are
also initializers, attributes of rare types, functions' details. What it drops is kept here beside
the graph (`Header`) and put back at export, node by node, by name.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from onnx_graphsurgeon.exporters.onnx_exporter import OnnxExporter
from onnx_graphsurgeon.ir.tensor import LazyValues, SparseValues
from onnx_graphsurgeon.logger import G_LOGGER

from actcc.errors import ModelError
from actcc.graph.files import LARGEST_SHAPE_CONSTANT, is_repeated, tensor_bytes

# graphsurgeon prints what it drops, which `Header` keeps, and what it raises, which is said once.
G_LOGGER.severity = G_LOGGER.CRITICAL + 1
_EXPORTED_AS_THEY_ARE = "biufc"  # dtype kinds: bool, integers, floats, complex numbers
_WRITTEN_TYPES = ("tensor_type", "sequence_type", "sparse_tensor_type")
_SUBGRAPHS = (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)


@dataclass(frozen=True)
class Header:
    """What a model holds besides its nodes, tensors, inputs and outputs."""

    ir_version: int
    proto: onnx.ModelProto  # name, producer, metadata, functions; no nodes
    original_nodes: Mapping[str, onnx.NodeProto]  # as loaded, by the unique name given at loading
    overridable: frozenset[str] = frozenset()  # initializers that are listed as inputs
    outputs: tuple[onnx.ValueInfoProto, ...] = ()
    inputs: tuple[onnx.ValueInfoProto, ...] = ()
    metadata: Mapping[str, Mapping[str, str]] = field(default_factory=dict)  # of new nodes
    external: bool = False  # weights came from a file beside the model

    def with_metadata(self, node: str, entries: Mapping[str, str]) -> Header:
        """A header in which `node` carries the given `metadata_props`."""
        return replace(self, metadata={**self.metadata, node: dict(entries)})

    def without_overridable(self) -> Header:
        """A header in which no initializer is an input; IR 4 is the first that allows it."""
        return replace(self, overridable=frozenset(), ir_version=max(self.ir_version, 4))


def from_proto(model: onnx.ModelProto, *, external: bool = False) -> tuple[gs.Graph, Header]:
    """Import a model; it is read, never edited.

    Args:
        external: whether its weights came from a file beside it.

    Raises:
        ModelError: no opset, or a structure that cannot be imported.
    """
    if not model.opset_import:
        raise ModelError("the model names no ONNX opset; export it again with a current exporter")
    try:
        surgeon = gs.import_onnx(model)
    except Exception as error:  # graphsurgeon raises bare Exceptions on malformed protos
        raise ModelError(f"the graph cannot be read ({error}); export the model again") from error
    _name_nodes(surgeon)
    _forget_rare_types(surgeon)
    initializers = {tensor.name for tensor in model.graph.initializer}
    light = onnx.ModelProto()
    light.graph.metadata_props.extend(model.graph.metadata_props)
    for descriptor, value in model.ListFields():
        if descriptor.name in ("graph", "opset_import"):
            continue
        if is_repeated(descriptor):
            getattr(light, descriptor.name).extend(value)
        else:
            setattr(light, descriptor.name, value)
    header = Header(
        ir_version=model.ir_version,
        proto=light,
        original_nodes=dict(
            zip((n.name for n in surgeon.nodes), model.graph.node, strict=True),
        ),
        overridable=frozenset(i.name for i in model.graph.input if i.name in initializers),
        outputs=tuple(model.graph.output),
        inputs=tuple(model.graph.input),
        external=external,
    )
    return surgeon, header


def _name_nodes(surgeon: gs.Graph) -> None:
    """Give every node of the main graph a unique name, keeping those that are unique already."""
    taken: set[str] = {node.name for node in surgeon.nodes if node.name}
    seen: set[str] = set()
    for index, node in enumerate(surgeon.nodes):
        if not node.name or node.name in seen:
            node.name = fresh_name(node.name or f"{node.op}_{index}", taken)
        taken.add(node.name)
        seen.add(node.name)


def _forget_rare_types(surgeon: gs.Graph) -> None:
    """Optionals, maps and opaque values: graphsurgeon reads their types, but cannot write them.

    `Header` has those of inputs and outputs, and those inside subgraphs stay with their nodes.
    """
    tensors = [*surgeon.inputs, *surgeon.outputs]
    for node in surgeon.nodes:
        tensors += [*node.inputs, *node.outputs]
        for value in node.attrs.values():
            if isinstance(value, gs.Graph):
                _forget_rare_types(value)
    for tensor in tensors:
        if isinstance(tensor, gs.Variable) and tensor.type not in _WRITTEN_TYPES:
            tensor.dtype = None


def fresh_name(stem: str, taken: set[str]) -> str:
    """`stem`, or `stem_1`, `stem_2`, … : the first that is not taken."""
    if stem not in taken:
        return stem
    number = 1
    while f"{stem}_{number}" in taken:
        number += 1
    return f"{stem}_{number}"


def to_proto(surgeon: gs.Graph, header: Header) -> onnx.ModelProto:
    """Export; nodes that were not edited come back with all that they were loaded with."""
    model = to_frame(surgeon, header)
    constants = {tensor.name: tensor for tensor in _large_constants(surgeon)}
    for tensor in model.graph.initializer:
        if tensor.name in constants:
            tensor.CopyFrom(constant_proto(constants[tensor.name]))
    return model


def to_frame(surgeon: gs.Graph, header: Header) -> onnx.ModelProto:
    """Export, but leave out the data of large weights, which takes as long as the weights are."""
    try:
        with _without_data(_large_constants(surgeon)):
            graph = gs.export_onnx(surgeon, do_type_check=False).graph
    except Exception as error:  # graphsurgeon raises bare Exceptions
        raise ModelError(f"the graph cannot be exported ({error})") from error
    for node in graph.node:
        _restore_node(node, header)
    _restore_subgraph_constants(graph, surgeon)
    _restore_interface(graph, header)
    model = onnx.ModelProto()
    model.CopyFrom(header.proto)
    model.ir_version = header.ir_version
    listed = {value.name for value in graph.input}
    if header.ir_version < 4 and any(t.name not in listed for t in graph.initializer):
        model.ir_version = 4  # before IR 4 every initializer had to be an input
    del model.opset_import[:]
    versions: dict[str, int] = {}
    for entry in surgeon.import_domains or ():
        versions.setdefault("" if entry.domain == "ai.onnx" else entry.domain, entry.version)
    for domain, version in versions.items():
        model.opset_import.append(onnx.helper.make_opsetid(domain, version))
    _move(graph, model.graph)
    return model


def _large_constants(surgeon: gs.Graph) -> list[gs.Constant]:
    """Weights, each once, that are too large to decide a shape."""
    return [
        tensor
        for tensor in surgeon.tensors().values()
        if isinstance(tensor, gs.Constant)
        and not isinstance(tensor._values, SparseValues)
        and tensor_bytes(_element(tensor), tensor.shape) > LARGEST_SHAPE_CONSTANT
    ]


def _element(constant: gs.Constant) -> int:
    held = constant._values
    if isinstance(held, LazyValues):
        return int(held.tensor.data_type)
    return int(onnx.helper.np_dtype_to_tensor_dtype(held.dtype))


@contextlib.contextmanager
def _without_data(constants: Sequence[gs.Constant]) -> Iterator[None]:
    """Constants hold empty tensors of their type inside."""
    held = [constant._values for constant in constants]
    for constant in constants:
        empty = onnx.TensorProto(data_type=_element(constant), dims=constant.shape)
        constant._values = LazyValues(empty)
    try:
        yield
    finally:
        for constant, values in zip(constants, held, strict=True):
            constant._values = values


def _move(source: onnx.GraphProto, destination: onnx.GraphProto) -> None:
    """Field by field: a message copied whole would be serialised whole, which 2 GiB forbid."""
    destination.name = source.name
    destination.doc_string = source.doc_string
    for name in ("node", "input", "output", "value_info", "initializer", "sparse_initializer"):
        getattr(destination, name).extend(getattr(source, name))
        source.ClearField(name)


def _restore_node(node: onnx.NodeProto, header: Header) -> None:
    for key, value in header.metadata.get(node.name, {}).items():
        node.metadata_props.add(key=key, value=value)
    original = header.original_nodes.get(node.name)
    if original is None or original.op_type != node.op_type:
        return
    for field_name in ("doc_string", "overload"):
        if original.HasField(field_name):
            setattr(node, field_name, getattr(original, field_name))
    node.metadata_props.extend(original.metadata_props)
    present = {attribute.name: attribute for attribute in node.attribute}
    for attribute in original.attribute:
        if attribute.name not in present:
            if attribute.type not in _KNOWN_ATTRIBUTES:
                node.attribute.append(attribute)  # of a type that graphsurgeon dropped
        elif attribute.type in _SUBGRAPHS:
            present[attribute.name].CopyFrom(attribute)  # subgraphs are never edited


def constant_values(constant: gs.Constant) -> np.ndarray[Any, Any] | None:
    """Values of a constant; None for a sparse one.

    graphsurgeon keeps what it has loaded and exports that, wrongly for text and for types narrower
    than a byte; those are loaded anew each time.
    """
    held = constant._values
    if isinstance(held, np.ndarray):
        return held
    if isinstance(held, SparseValues):
        return None
    loaded: np.ndarray[Any, Any] = held.load()
    if loaded.dtype.kind in _EXPORTED_AS_THEY_ARE:
        constant._values = loaded
    return loaded


def constant_proto(constant: gs.Constant) -> onnx.TensorProto:
    """A dense constant as ONNX holds it, its data included; as loaded, and no copy, if it is."""
    tensor: onnx.TensorProto = OnnxExporter.export_tensor_proto(constant)
    return tensor


def outer_reads(node: onnx.NodeProto) -> list[str]:
    """Names that the subgraphs of a node read from outside."""
    reads: list[str] = []
    for attribute in node.attribute:
        for inner in (*((attribute.g,) if attribute.HasField("g") else ()), *attribute.graphs):
            local = {v.name for v in inner.input} | {t.name for t in inner.initializer}
            for child in inner.node:
                local.update(child.output)
            for child in inner.node:
                reads += [n for n in (*child.input, *outer_reads(child)) if n not in local]
    return reads


def _restore_subgraph_constants(graph: onnx.GraphProto, surgeon: gs.Graph) -> None:
    """Initializers that only subgraphs read; graphsurgeon moves them into the subgraphs."""
    wanted = {name for node in graph.node for name in outer_reads(node) if name}
    wanted -= {tensor.name for tensor in graph.initializer}
    if wanted:
        constants = _constants_inside(surgeon)
        for name in sorted(wanted & constants.keys()):
            graph.initializer.append(constant_proto(constants[name]))


def _constants_inside(surgeon: gs.Graph) -> dict[str, gs.Constant]:
    found: dict[str, gs.Constant] = {}
    for node in surgeon.nodes:
        for inner in node.attrs.values():
            if isinstance(inner, gs.Graph):
                found.update(_constants_inside(inner))
                tensors = (tensor for child in inner.nodes for tensor in child.inputs)
                found.update((t.name, t) for t in tensors if isinstance(t, gs.Constant))
    return found


_KNOWN_ATTRIBUTES = (
    onnx.AttributeProto.FLOAT,
    onnx.AttributeProto.INT,
    onnx.AttributeProto.STRING,
    onnx.AttributeProto.TENSOR,
    onnx.AttributeProto.GRAPH,
    onnx.AttributeProto.FLOATS,
    onnx.AttributeProto.INTS,
    onnx.AttributeProto.STRINGS,
)


def _restore_interface(graph: onnx.GraphProto, header: Header) -> None:
    """Inputs and outputs exactly as declared, with symbols, sequences, maps and documentation."""
    fed = {value.name for value in graph.input}
    weights = {tensor.name for tensor in graph.initializer} & header.overridable
    kept = [value for value in header.inputs if value.name in fed | weights]
    known = {value.name for value in kept}
    kept += [value for value in graph.input if value.name not in known]
    declared = {value.name: value for value in header.outputs}
    outputs = [declared.get(value.name, value) for value in graph.output]
    kept, outputs = [_clone(v) for v in kept], [_clone(v) for v in outputs]
    del graph.input[:]
    graph.input.extend(kept)
    del graph.output[:]
    graph.output.extend(outputs)


def _clone(value: onnx.ValueInfoProto) -> onnx.ValueInfoProto:
    clone = onnx.ValueInfoProto()
    clone.CopyFrom(value)
    return clone
