"""`Graph`: the one way in which actcc reads and edits a model.

Tensors are in static single assignment form and known by name. Edits keep three promises: the names
of inputs and outputs stay, an initializer's name is never overwritten, and a tensor that is used
outside an edit is never taken away.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from actcc.errors import ModelError, PassError
from actcc.graph import order
from actcc.graph.export import Header, fresh_name, from_proto, to_proto
from actcc.graph.files import read_model, write_model
from actcc.graph.shapes import Shape, TensorType, infer_types

Node: TypeAlias = gs.Node
Tensor: TypeAlias = gs.Tensor
Array: TypeAlias = "np.ndarray[Any, Any]"
Operand: TypeAlias = "str | Tensor | Array"

_ONNX_DOMAINS = (None, "", "ai.onnx")


class Graph:
    """An ONNX model that can be asked and edited."""

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
        self._hints: dict[str, TensorType] = dict(types or {})
        self._types: dict[str, TensorType] | None = None
        self._names: set[str] | None = None
        self._mark: Mapping[str, str] | None = None

    # ---------------------------------------------------------------- in and out

    @classmethod
    def load(
        cls,
        source: str | Path | onnx.ModelProto,
        input_shapes: Mapping[str, Sequence[int]] | None = None,
    ) -> Graph:
        """Load a model from a file, or from a proto, which is left as it is.

        Args:
            input_shapes: concrete shapes for inputs with symbolic dimensions, used for shape
                inference and profiling; the model keeps its symbols.

        Raises:
            ModelError: not readable as ONNX, or `input_shapes` does not fit its inputs.
        """
        model = source if isinstance(source, onnx.ModelProto) else read_model(Path(source))
        surgeon, header = from_proto(model)
        graph = cls(surgeon, header)
        return graph.with_input_shapes(input_shapes) if input_shapes else graph

    def with_input_shapes(self, shapes: Mapping[str, Sequence[int]]) -> Graph:
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
                or any(isinstance(f, int) and f != s for f, s in zip(fixed, shape, strict=True))
            ):
                raise ModelError(
                    f"--shape: input '{name}' is {list(fixed)}, not {list(shape)}; "
                    "only symbolic dimensions can be chosen"
                )
        return Graph(self._surgeon, self._header, {**self._input_shapes, **shapes})

    def to_proto(self) -> onnx.ModelProto:
        """A new ONNX model."""
        order.sort_nodes(self._surgeon)
        return to_proto(self._surgeon, self._header)

    def save(self, path: str | Path, *, external: bool = False) -> None:
        """Write the model; whole or not at all. See `actcc.graph.files.write_model`."""
        write_model(self.to_proto(), Path(path), external=external)

    def copy(self) -> Graph:
        """An independent graph; weights are shared until they are replaced."""
        twin = Graph(self._surgeon.copy(), self._header, self._input_shapes, self._hints)
        twin._types = None if self._types is None else dict(self._types)
        return twin

    def __reduce__(self) -> tuple[Any, ...]:
        """Graphs travel between processes as protos; for parts of a model, not for 2 GB."""
        data = self.to_proto().SerializeToString()
        return _revive, (data, self._input_shapes, self._hints)

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
            if op is not None and (node.op != op or node.domain not in _ONNX_DOMAINS):
                continue
            if all(self._argument_is(node, name, value) for name, value in arguments.items()):
                yield node

    def node(self, name: str) -> Node:
        """The node of that name; raises PassError where there is none."""
        for node in self._surgeon.nodes:
            if node.name == name:
                return node
        raise PassError(f"the graph has no node '{name}'; it may have been rewritten already")

    def tensor(self, tensor: str | Tensor) -> Tensor:
        """The tensor of that name; raises PassError where there is none."""
        if not isinstance(tensor, str):
            return tensor
        found = self._find_tensor(tensor)
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

    def is_output(self, tensor: str | Tensor) -> bool:
        """Whether the tensor leaves the graph."""
        name = tensor if isinstance(tensor, str) else tensor.name
        return any(output.name == name for output in self._surgeon.outputs)

    def constant(self, tensor: str | Tensor) -> Array | None:
        """The values of an initializer or Constant node; None for anything a run computes.

        An initializer that is listed as an input may be overridden by the caller and is no
        constant.
        """
        found = self.tensor(tensor)
        if isinstance(found, gs.Constant):
            return None if found.name in self._header.overridable else found.values
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
                if node.domain not in _ONNX_DOMAINS
                for tensor in node.outputs
                if tensor.name in self._hints
            }
            self._types = infer_types(self.to_proto(), self._input_shapes, custom)
            self._hints.update(self._types)
        return self._types

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

    # ---------------------------------------------------------------- edits

    @contextlib.contextmanager
    def marking(self, pass_name: str, site: str, candidate: str) -> Iterator[None]:
        """Every node made inside carries `metadata_props` naming pass, site and candidate."""
        before = self._mark
        self._mark = {
            "actcc.pass": pass_name,
            "actcc.site": site,
            "actcc.candidate": candidate,
        }
        try:
            yield
        finally:
            self._mark = before

    def insert(
        self,
        op: str,
        inputs: Sequence[Operand],
        *,
        domain: str | None = None,
        like: str | Tensor | None = None,
        name: str | None = None,
        **attributes: Any,
    ) -> Tensor:
        """Add a node with one new output and return that output.

        Args:
            inputs: tensors, their names, or arrays, which become new initializers.
            domain: operator domain; imported at version 1 where the model does not yet.
            like: a tensor of the same type as the output, for operators that ONNX cannot infer.
            name: stem of the new names.
        """
        stem = name or f"{self._stem()}{op}"
        output = gs.Variable(self._fresh(f"{stem}_output"))
        if like is not None:
            known = self.types.get(like if isinstance(like, str) else like.name)
            if known is not None:
                self._hints[output.name] = known
        self._add(op, inputs, [output], domain, stem, attributes)
        return output

    def replace(
        self,
        site: Any,
        op: str,
        inputs: Sequence[Operand],
        *,
        domain: str | None = None,
        **attributes: Any,
    ) -> Tensor:
        """Put one node in the place of a site: it writes `site.writes`; the site's nodes go.

        `site` has `nodes` (names of nodes) and `writes` (name of a tensor), as `actcc.Site` has.

        Raises:
            PassError: another tensor of the site is used outside it.
        """
        nodes = [self.node(name) for name in site.nodes]
        operands = [self._operand(value) for value in inputs]
        written = self.tensor(site.writes)
        self._hints.update({written.name: t for t in [self.types.get(written.name)] if t})
        self._detach(nodes, keep=written)
        self._add(op, operands, [written], domain, f"{self._stem()}{op}", attributes)
        self.prune()
        return written

    def bypass(self, site: Any, source: str | Tensor) -> None:
        """Remove a site whose output equals `source`: its readers read `source` instead.

        A graph output keeps its name: where neither end can be renamed, an Identity stays.
        """
        nodes = [self.node(name) for name in site.nodes]
        written, read = self.tensor(site.writes), self.tensor(source)
        if self.is_output(written):
            movable = bool(read.inputs) and not self.is_output(read) and read.inputs[0] not in nodes
            if not movable or _in_subgraph(self, read) or len(read.inputs[0].outputs) == 0:
                self.replace(site, "Identity", [read])
                return
            self._detach(nodes, keep=written)
            _substitute(read, written, keep_output=False)
        else:
            self._detach(nodes, keep=written)
            _substitute(written, read, keep_output=True)
        self._touch()
        self.prune()

    def set_input(self, node: Node, index: int, value: Operand) -> None:
        """Let input `index` of `node` be another tensor or a new initializer."""
        node.inputs[index] = self._operand(value)
        self._touch()

    def append_input(self, node: Node, value: Operand) -> None:
        """Add an input at the end, a bias for example."""
        node.inputs.append(self._operand(value))
        self._touch()

    def set_attribute(self, node: Node, name: str, value: Any) -> None:
        """Set an attribute of a node."""
        node.attrs[name] = value
        self._touch()

    def initializer(self, name: str, values: Array) -> Tensor:
        """A new initializer; where the name is taken it gets a number."""
        return gs.Constant(self._fresh(name), np.ascontiguousarray(values))

    def freeze_initializers(self) -> list[str]:
        """Make initializers that are listed as inputs constants; returns their names."""
        names = sorted(self._header.overridable)
        self._header = self._header.without_overridable()
        self._touch()
        return names

    @property
    def overridable(self) -> frozenset[str]:
        """Initializers that are listed as inputs, so that a caller may override them."""
        return self._header.overridable

    def prune(self) -> None:
        """Remove nodes whose results nothing reads."""
        removed = True
        outputs = {id(t) for t in self._surgeon.outputs}
        while removed:
            removed = False
            for node in reversed(list(self._surgeon.nodes)):
                used = any(t.outputs or id(t) in outputs for t in node.outputs)
                if not used and node.outputs:
                    node.inputs.clear()
                    node.outputs.clear()
                    self._surgeon.nodes.remove(node)
                    removed = True
        self._touch()

    # ---------------------------------------------------------------- inside

    def _stem(self) -> str:
        return f"{self._mark['actcc.pass']}/" if self._mark else "actcc/"

    def _add(
        self,
        op: str,
        inputs: Sequence[Operand],
        outputs: Sequence[Tensor],
        domain: str | None,
        stem: str,
        attributes: Mapping[str, Any],
    ) -> Node:
        if domain and domain not in self.opsets:
            self._surgeon.import_domains.append(onnx.helper.make_opsetid(domain, 1))
        node = gs.Node(
            op,
            self._fresh(stem),
            dict(attributes),
            [self._operand(value) for value in inputs],
            list(outputs),
            domain,
        )
        self._surgeon.nodes.append(node)
        if self._mark:
            self._header = self._header.with_metadata(node.name, self._mark)
        self._touch()
        return node

    def _operand(self, value: Operand) -> Tensor:
        if isinstance(value, np.ndarray | np.generic):
            return self.initializer(f"{self._stem()}constant", np.asarray(value))
        return self.tensor(value)

    def _detach(self, nodes: Sequence[Node], keep: Tensor) -> None:
        """Take nodes out of the graph; `keep` loses its producer and stays."""
        inside = {id(node) for node in nodes}
        for node in nodes:
            for tensor in node.outputs:
                outside = [n for n in tensor.outputs if id(n) not in inside]
                if tensor is not keep and (outside or self.is_output(tensor)):
                    raise PassError(
                        f"tensor '{tensor.name}' inside the site is used outside it; "
                        "let the pass refuse this site"
                    )
        for node in nodes:
            node.inputs.clear()
            node.outputs.clear()
            self._surgeon.nodes.remove(node)

    def _find_tensor(self, name: str) -> Tensor | None:
        for tensor in (*self._surgeon.inputs, *self._surgeon.outputs):
            if tensor.name == name:
                return tensor
        for node in self._surgeon.nodes:
            for tensor in (*node.outputs, *node.inputs):
                if tensor.name == name:
                    return tensor
        return None

    def _fresh(self, stem: str) -> str:
        if self._names is None:
            self._names = order.all_names(self._surgeon) | set(self._header.overridable)
        name = fresh_name(stem, self._names)
        self._names.add(name)
        return name

    def _touch(self) -> None:
        self._types = None


def _revive(
    data: bytes,
    input_shapes: Mapping[str, Sequence[int]],
    types: Mapping[str, TensorType],
) -> Graph:
    surgeon, header = from_proto(onnx.ModelProto.FromString(data))
    return Graph(surgeon, header, input_shapes, types)


def _substitute(old: Tensor, new: Tensor, *, keep_output: bool) -> None:
    """Readers (and for `keep_output=False` the writer) of `old` become those of `new`."""
    for node in list(old.outputs):
        for index, tensor in enumerate(node.inputs):
            if tensor is old:
                node.inputs[index] = new
    if not keep_output:
        writer = old.inputs[0]
        for index, tensor in enumerate(writer.outputs):
            if tensor is old:
                writer.outputs[index] = new


def _in_subgraph(graph: Graph, tensor: Tensor) -> bool:
    top = {id(node) for node in graph.nodes()}
    return any(id(node) not in top for node in tensor.outputs)


def _constant_node_value(node: Node) -> Array | None:
    for key, value in node.attrs.items():
        if key == "value":
            values: Array = value.values
            return values
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
