"""`Graph`: the one way in which actcc reads and edits a model.

Tensors are in static single assignment form and known by name. Edits keep three promises: the names
of inputs and outputs stay, an initializer's name is never overwritten, and a tensor that is used
outside an edit is never taken away.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from actcc.errors import PassError
from actcc.graph import order
from actcc.graph.export import Header, fresh_name, from_proto
from actcc.graph.shapes import TensorType
from actcc.graph.view import Array, Node, Tensor, View

Operand: TypeAlias = "str | Tensor | Array"


class Graph(View):
    """An ONNX model that can be asked and edited."""

    def __init__(
        self,
        surgeon: gs.Graph,
        header: Header,
        input_shapes: Mapping[str, Sequence[int]] | None = None,
        types: Mapping[str, TensorType] | None = None,
    ) -> None:
        super().__init__(surgeon, header, input_shapes, types)
        self._names: set[str] | None = None
        self._stand_ins: dict[str, str] = {}
        self._mark: Mapping[str, str] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        """Graphs travel between processes as protos; for parts of a model, not for 2 GB."""
        data = self.to_proto().SerializeToString()
        return _revive, (data, self._input_shapes, self._hints)

    def tensor(self, tensor: str | Tensor) -> Tensor:
        """The tensor of that name, or the one that stands for it since a bypass of this object.

        Raises:
            PassError: there is none.
        """
        if isinstance(tensor, str):
            while tensor in self._stand_ins and tensor not in self._look_up()[1]:
                tensor = self._stand_ins[tensor]
        return super().tensor(tensor)

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
            self._remember(output.name, like if isinstance(like, str) else like.name)
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
        place = max(self._position(node) for node in nodes)
        self._remember(written.name, written.name)
        self._detach(nodes, keep=written)
        place -= len(nodes) - 1
        self._add(op, operands, [written], domain, f"{self._stem()}{op}", attributes, place)
        self.prune()
        return written

    def bypass(self, site: Any, source: str | Tensor) -> None:
        """Remove a site whose output equals `source`: its readers read `source` instead.

        A graph output keeps its name, and so does a tensor that a subgraph reads, since subgraphs
        are never edited: where neither end can be renamed, an Identity stays. The name that goes
        still means the tensor, so that a site that reads it can be rewritten afterwards.
        """
        nodes = [self.node(name) for name in site.nodes]
        written, read = self.tensor(site.writes), self.tensor(source)
        if self._is_named(written):
            inside = any(node is writer for node in nodes for writer in read.inputs)
            movable = bool(read.inputs) and not self._is_named(read) and not inside
            if not movable:
                self.replace(site, "Identity", [read])
                return
            self._detach(nodes, keep=written)
            _substitute(read, written, keep_output=False)
            self._stand_ins[read.name] = written.name
        else:
            self._detach(nodes, keep=written)
            _substitute(written, read, keep_output=True)
            self._stand_ins[written.name] = read.name
        self._touch()
        self.prune()

    def set_input(self, node: Node, index: int, value: Operand) -> None:
        """Let input `index` of `node` be another tensor or a new initializer."""
        before, operand = node.inputs[index], self._operand(value)
        node.inputs[index] = operand
        constant = isinstance(before, gs.Constant) and isinstance(operand, gs.Constant)
        if constant and tuple(before.shape) != tuple(operand.shape):
            self._forget_shapes(node)
        self._touch()

    def redirect(self, readers: Iterable[Node], old: Tensor, new: Tensor) -> None:
        """Let nodes read another tensor wherever they read an old one."""
        for node in readers:
            for index, tensor in enumerate(node.inputs):
                if tensor is old:
                    self.set_input(node, index, new)

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
        return gs.Constant(self._fresh(name), np.asarray(values, order="C"))  # keeps scalars so

    def raise_opset(self, version: int) -> None:
        """Convert to a newer set of ONNX's operators, in place; nodes keep their names.

        `Node` and `Tensor` objects from before are of no use afterwards.

        Raises:
            PassError: ONNX's converter does not know a way, or the model defines functions.
        """
        if self.opset >= version:
            return
        if self.functions:
            raise PassError(
                f"operator set {self.opset} cannot be converted to {version} in a model that "
                "defines functions, which ONNX's converter drops; export the model with a newer one"
            )
        from onnx import version_converter

        try:
            converted = version_converter.convert_version(self.to_proto(), version)
        except Exception as error:  # it raises RuntimeError, and whatever protobuf raises
            reason = " ".join(str(error).split())
            raise PassError(
                f"operator set {self.opset} cannot be converted to {version} ({reason}); "
                "export the model with a newer one"
            ) from error
        before = self._header
        for node in converted.graph.node:  # the converter drops these
            original = before.original_nodes.get(node.name)
            if original is not None:
                del node.metadata_props[:]
                node.metadata_props.extend(original.metadata_props)
        surgeon, header = from_proto(converted, external=before.external)
        self._surgeon = surgeon
        self._header = replace(
            before, ir_version=header.ir_version, original_nodes=header.original_nodes
        )
        self._names = None
        self._touch()

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
                    del self._surgeon.nodes[self._position(node)]
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
        place: int | None = None,
    ) -> Node:
        """Add a node at a place in the schedule, or right behind the last tensor it reads."""
        if domain and domain not in self.opsets:
            self._surgeon.import_domains.append(onnx.helper.make_opsetid(domain, 1))
        operands = [self._operand(value) for value in inputs]
        node = gs.Node(op, self._fresh(stem), dict(attributes), operands, list(outputs), domain)
        if place is None:
            writers = [writer for operand in operands for writer in operand.inputs]
            place = max((self._position(writer) + 1 for writer in writers), default=0)
        self._surgeon.nodes.insert(place, node)
        if self._mark:
            self._header = self._header.with_metadata(node.name, self._mark)
        self._touch()
        return node

    def _remember(self, name: str, like: str) -> None:
        """Keep a type for a tensor that ONNX may not be able to infer; an old one serves too."""
        known = (self._types or self._hints).get(like) or self.types.get(like)
        if known is not None:
            self._hints[name] = known

    def _forget_shapes(self, node: Node) -> None:
        """Drop what the model declares of tensors behind a node: its weights have other sizes."""
        outputs = {tensor.name for tensor in self.outputs}
        frontier, seen = list(node.outputs), set()
        while frontier:
            tensor = frontier.pop()
            if tensor.name in seen or tensor.name in outputs or tensor.is_empty():
                continue
            seen.add(tensor.name)
            tensor.shape = None
            self._hints.pop(tensor.name, None)
            frontier += [written for reader in tensor.outputs for written in reader.outputs]

    def _position(self, node: Node) -> int:
        """Place in the schedule; by identity, since graphsurgeon compares nodes by value."""
        return next(i for i, other in enumerate(self._surgeon.nodes) if other is node)

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
            del self._surgeon.nodes[self._position(node)]

    def _is_named(self, tensor: Tensor) -> bool:
        """Whether something outside the editable graph knows the tensor by its name."""
        return self.is_output(tensor) or self.is_read_in_subgraph(tensor)

    def _fresh(self, stem: str) -> str:
        if self._names is None:
            self._names = order.all_names(self._surgeon) | set(self._header.overridable)
            self._names |= self._stand_ins.keys()
        name = fresh_name(stem, self._names)
        self._names.add(name)
        return name

    def _touch(self) -> None:
        self._types = None
        self._index = None
        self._holders = None


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
