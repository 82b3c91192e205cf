"""`View`: reading a model and asking it; `Graph` adds the edits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnx_graphsurgeon as gs
from typing_extensions import Self

from actcc.errors import ModelError, PassError
from actcc.graph import order
from actcc.graph.export import Header, constant_values, from_proto, to_frame, to_proto
from actcc.graph.files import read_model, tensor_bytes, write_model
from actcc.graph.operators import ONNX_DOMAINS
from actcc.graph.shapes import Shape, TensorType, declared_types, infer_types

Node: TypeAlias = gs.Node
Tensor: TypeAlias = gs.Tensor
Array: TypeAlias = "np.ndarray[Any, Any]"


class View:
    """An ONNX model that can be asked."""

    def __init__(
        self,
        surgeon: gs.Graph,
        header: Header,
        input_shapes: Mapping[str, Sequence[int]] | None = None,
        types: Mapping[str, TensorType] | None = None,
    ) -> None:
        self._surgeon = surgeon
        self._header = header
        self._input_shapes = {k: tuple(v) for k, v in (input_shapes or {}).items()}
        self._declared = dict(types or {})
        self._hints: dict[str, TensorType] = dict(self._declared)
        self._types: dict[str, TensorType] | None = None
        self._contradiction = ""
        self._index: tuple[dict[str, Node], dict[str, Tensor]] | None = None
        self._holders: dict[int, Node] | None = None

    # ---------------------------------------------------------------- in and out

    @classmethod
    def load(
        cls,
        source: str | Path | onnx.ModelProto,
        input_shapes: Mapping[str, Sequence[int]] | None = None,
    ) -> Self:
        """Load a model from a file, or from a proto, which is left as it is.

        Args:
            input_shapes: concrete shapes for inputs with symbolic dimensions, used for shape
                inference and profiling; the model keeps its symbols.

        Raises:
            ModelError: not readable as ONNX, or `input_shapes` does not fit its inputs.
        """
        if isinstance(source, onnx.ModelProto):
            model, external = source, False
        else:
            model, external = read_model(Path(source))
        surgeon, header = from_proto(model, external=external)
        graph = cls(surgeon, header, types=declared_types(model))
        return graph.with_input_shapes(input_shapes) if input_shapes else graph

    def with_input_shapes(self, shapes: Mapping[str, Sequence[int]]) -> Self:
        """The same graph seen at concrete input shapes.

        Raises:
            ModelError: an unknown input, another rank, or a fixed dimension that differs.
        """
        for name, shape in shapes.items():
            declared = next((t for t in self.inputs if t.name == name), None)
            if declared is None:
                known = ", ".join(t.name for t in self.inputs)
                raise ModelError(f"--shape: the model has no input '{name}'; it has: {known}")
            fixed = declared.shape
            if fixed is not None and (
                len(fixed) != len(shape)
                or any(
                    isinstance(f, int) and f >= 0 and f != s
                    for f, s in zip(fixed, shape, strict=True)
                )
            ):
                raise ModelError(
                    f"--shape: input '{name}' is {list(fixed)}, not {list(shape)}; "
                    "only symbolic dimensions can be chosen"
                )
        bound = {**self._input_shapes, **shapes}
        return type(self)(self._surgeon.copy(), self._header, bound, self._hints)

    def without_input_shapes(self) -> Self:
        """The same graph with the shapes that the model declares, symbols included."""
        return type(self)(self._surgeon.copy(), self._header, None, self._declared)

    def rebuilt(self, model: onnx.ModelProto) -> Self:
        """A graph of `model`, seen at the same input shapes; what this one holds beside its model,
        that its weights came from a file of their own, stays.
        """
        surgeon, header = from_proto(model, external=self.external)
        return type(self)(surgeon, header, self._input_shapes, declared_types(model))

    def to_proto(self) -> onnx.ModelProto:
        """A new ONNX model."""
        order.sort_nodes(self._surgeon)
        return to_proto(self._surgeon, self._header)

    def frame(self) -> onnx.ModelProto:
        """A new ONNX model in which weights of more than 1 KiB have no data.

        For what reads the structure only: it costs the same however large the weights are.
        """
        order.sort_nodes(self._surgeon)
        return to_frame(self._surgeon, self._header)

    def save(self, path: str | Path, *, external: bool = False) -> None:
        """Write the model; whole or not at all. See `actcc.graph.files.write_model`."""
        write_model(self.to_proto(), Path(path), external=external)

    def copy(self) -> Self:
        """An independent graph; weights are shared until they are replaced."""
        twin = type(self)(self._surgeon.copy(), self._header, self._input_shapes, self._declared)
        twin._hints = dict(self._hints)
        twin._types = None if self._types is None else dict(self._types)
        twin._contradiction = self._contradiction
        return twin

    # ---------------------------------------------------------------- questions

    @property
    def inputs(self) -> list[Tensor]:
        """Inputs that a caller has to feed."""
        return list(self._surgeon.inputs)

    @property
    def outputs(self) -> list[Tensor]:
        """Outputs in order."""
        return list(self._surgeon.outputs)

    @property
    def opset(self) -> int:
        """Version of the default ONNX operator set."""
        return int(self._surgeon.opset)

    @property
    def opsets(self) -> dict[str, int]:
        """Version of each operator domain that the model imports."""
        entries = self._surgeon.import_domains or ()
        return {"" if e.domain == "ai.onnx" else e.domain: int(e.version) for e in entries}

    @property
    def ir_version(self) -> int:
        """Version of the ONNX file format."""
        return self._header.ir_version

    @property
    def weight_bytes(self) -> int:
        """Bytes of all weights of the main graph."""
        return sum(tensor_bytes(t.data_type, t.dims) for t in self.frame().graph.initializer)

    @property
    def external(self) -> bool:
        """Whether the weights came from a file beside the model."""
        return self._header.external

    @property
    def repeats_names(self) -> bool:
        """Whether nodes of the file share a name, which ONNX Runtime refuses; here none do."""
        nodes = self._header.original_nodes
        return any(node.name and node.name != name for name, node in nodes.items())

    @property
    def functions(self) -> list[onnx.FunctionProto]:
        """Functions that the model defines."""
        return list(self._header.proto.functions)

    def nodes(self, op: str | None = None, **arguments: Any) -> Iterator[Node]:
        """Nodes in topological order, optionally of one operator with the given arguments.

        `arguments` are matched against attributes and constant inputs under their names in the
        operator's schema, so `nodes("Clip", min=0, max=6)` finds both spellings of Clip.
        """
        order.sort_nodes(self._surgeon)
        for node in list(self._surgeon.nodes):
            if op is not None and (node.op != op or node.domain not in ONNX_DOMAINS):
                continue
            if all(self._argument_is(node, name, value) for name, value in arguments.items()):
                yield node

    def node(self, name: str) -> Node:
        """The node of that name; raises PassError where there is none."""
        found = self._look_up()[0].get(name)
        if found is None:
            raise PassError(f"the graph has no node '{name}'; it may have been rewritten already")
        return found

    def tensor(self, tensor: str | Tensor) -> Tensor:
        """The tensor of that name; raises PassError where there is none."""
        if not isinstance(tensor, str):
            return tensor
        found = self._look_up()[1].get(tensor)
        if found is None:
            raise PassError(f"the graph has no tensor '{tensor}'; it may have been rewritten")
        return found

    def producer(self, tensor: str | Tensor) -> Node | None:
        """The node that writes the tensor; None for inputs and initializers."""
        found = self.tensor(tensor)
        return found.inputs[0] if found.inputs else None

    def consumers(self, tensor: str | Tensor) -> list[Node]:
        """Nodes that read the tensor, nodes inside subgraphs included, each once."""
        unique: dict[int, Node] = {id(node): node for node in self.tensor(tensor).outputs}
        return list(unique.values())

    def readers(self, tensor: str | Tensor) -> list[Node]:
        """Nodes of the main graph that read the tensor, in a subgraph of theirs or directly."""
        holders = self._find_holders()
        readers = (holders.get(id(node), node) for node in self.tensor(tensor).outputs)
        unique: dict[int, Node] = {id(node): node for node in readers}
        return list(unique.values())

    def reads(self, node: Node) -> list[Tensor]:
        """Tensors of the main graph that the node reads, in a subgraph of its own or directly."""
        holders = self._find_holders()
        return [
            tensor
            for tensor in order.reads(node)
            if not tensor.is_empty() and not any(id(w) in holders for w in tensor.inputs)
        ]

    def is_output(self, tensor: str | Tensor) -> bool:
        """Whether the tensor leaves the graph."""
        name = tensor if isinstance(tensor, str) else tensor.name
        return any(output.name == name for output in self._surgeon.outputs)

    def is_read_in_subgraph(self, tensor: str | Tensor) -> bool:
        """Whether a node inside an If, Loop or Scan reads the tensor, by its name."""
        top = self._look_up()[0]
        return any(top.get(node.name) is not node for node in self.tensor(tensor).outputs)

    def constant(self, tensor: str | Tensor) -> Array | None:
        """The values of an initializer or Constant node; None for anything a run computes.

        An initializer that is listed as an input may be overridden by the caller and is no
        constant.
        """
        found = self.tensor(tensor)
        if isinstance(found, gs.Constant):
            return None if found.name in self._header.overridable else constant_values(found)
        if found.inputs and found.inputs[0].op == "Constant":
            return _constant_node_value(found.inputs[0])
        return None

    def argument(self, node: Node, name: str, default: Any = None) -> Any:
        """An attribute, or a constant input under its name in the operator's schema.

        Returns `default` where the argument is left out or is not constant.
        """
        if name in node.attrs:
            return node.attrs[name]
        formal = _formal_inputs(node.op, node.domain or "", self.opset)
        if name in formal and formal.index(name) < len(node.inputs):
            tensor = node.inputs[formal.index(name)]
            if not tensor.is_empty():
                value = self.constant(tensor)
                if value is not None:
                    return value.item() if value.size == 1 else value
        return default

    def _argument_is(self, node: Node, name: str, wanted: Any) -> bool:
        value = self.argument(node, name)
        if value is None:
            return False
        return bool(np.array_equal(value, wanted))

    # ---------------------------------------------------------------- types

    @property
    def input_shapes(self) -> dict[str, tuple[int, ...]]:
        """Concrete shapes that were chosen for symbolic inputs."""
        return dict(self._input_shapes)

    @property
    def types(self) -> Mapping[str, TensorType]:
        """Types of all tensors of the main graph, inferred anew after an edit."""
        if self._types is None:
            custom = {
                tensor.name: self._hints[tensor.name]
                for node in self._surgeon.nodes
                if node.domain not in ONNX_DOMAINS or _holds_subgraph(node)
                for tensor in node.outputs
                if tensor.name in self._hints
            }
            inference = infer_types(self.frame(), self._input_shapes, custom)
            self._types, self._contradiction = inference.types, inference.contradiction
            self._hints.update(self._types)
        return self._types

    @property
    def contradiction(self) -> str:
        """Which node does not fit its inputs' types; empty where all do."""
        _ = self.types
        return self._contradiction

    def shape(self, tensor: str | Tensor) -> Shape | None:
        """Shape with numbers, symbols or None as dimensions; None where the rank is unknown."""
        found = self.types.get(tensor if isinstance(tensor, str) else tensor.name)
        return None if found is None else found.shape

    def dtype(self, tensor: str | Tensor) -> np.dtype[Any] | None:
        """Element type; None where it is unknown."""
        found = self.types.get(tensor if isinstance(tensor, str) else tensor.name)
        if found is None or found.element == onnx.TensorProto.UNDEFINED:
            return None
        return np.dtype(onnx.helper.tensor_dtype_to_np_dtype(found.element))

    def _find_holders(self) -> dict[int, Node]:
        """The node of the main graph around each node inside a subgraph, by its identity."""
        if self._holders is None:
            self._holders = {
                id(inner): node for node in self._surgeon.nodes for inner in order.inner_nodes(node)
            }
        return self._holders

    def _look_up(self) -> tuple[dict[str, Node], dict[str, Tensor]]:
        if self._index is None:
            tensors: dict[str, Tensor] = {}
            for node in self._surgeon.nodes:
                tensors.update((t.name, t) for t in (*node.inputs, *node.outputs))
            tensors.update((t.name, t) for t in (*self._surgeon.inputs, *self._surgeon.outputs))
            self._index = {node.name: node for node in self._surgeon.nodes}, tensors
        return self._index


def _holds_subgraph(node: Node) -> bool:
    return any(isinstance(value, gs.Graph) for value in node.attrs.values())


def _constant_node_value(node: Node) -> Array | None:
    for key, value in node.attrs.items():
        if key == "value":
            return constant_values(value)
        if key in ("value_float", "value_floats"):
            return np.asarray(value, np.float32)
        if key in ("value_int", "value_ints"):
            return np.asarray(value, np.int64)
    return None


def _formal_inputs(op: str, domain: str, opset: int) -> list[str]:
    try:
        schema = onnx.defs.get_schema(op, opset, "" if domain == "ai.onnx" else domain)
    except onnx.defs.SchemaError:
        return []
    return [formal.name for formal in schema.inputs]
