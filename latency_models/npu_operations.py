"""From a graph to the operations that an NPU runs: what fuses, what stays apart, what is free."""

from __future__ import annotations

import math
from dataclasses import replace

import onnx_graphsurgeon as gs

from actcc.activations import Match, find_activations
from actcc.errors import PricingError
from actcc.graph import Graph, Node, Tensor
from actcc.graph.macs import contraction
from actcc.graph.operators import ONNX_DOMAINS
from actcc.latency_models.npu_layouts import Layouts, stored_orders
from actcc.latency_models.npu_program import HOST, Operation, Program
from actcc.latency_models.npu_settings import ActivationRule, NpuSettings
from actcc.memory import compile_time_tensors

_TWO_OPERANDS = frozenset({"Add", "Sub", "Mul", "Max", "Min"})
_ONE_OPERAND = frozenset({"Abs", "Neg"})
_ELEMENTWISE = _TWO_OPERANDS | _ONE_OPERAND | {"Sum", "Div"}
# They take the elements in the order in which they lie.
_IN_ORDER = frozenset({"Reshape", "Flatten"})
# TFLite fixes the scale of their results, and the operands of a Concat have one in common.
_FIXED_SCALE = frozenset({"Sigmoid", "Tanh", "Softmax"})


def lower(graph: Graph, settings: NpuSettings) -> Program:
    """The operations of a graph on an NPU.

    Raises:
        PricingError: a shape is not static, or neither the NPU nor its host can run a node.
    """
    return _Lowering(graph, settings).program()


class _Lowering:
    def __init__(self, graph: Graph, settings: NpuSettings) -> None:
        self._graph = graph
        self._settings = settings
        self._constants = compile_time_tensors(graph)
        self._outputs = {tensor.name for tensor in graph.outputs}
        self._operations: list[Operation] = []
        self._writer: dict[str, int] = {}  # index of the operation that writes a tensor
        self._origin: dict[str, str] = {}  # the tensor that a free node's output is
        self._scratch: dict[str, int] = {}
        self._parts: dict[str, str] = {}
        self._joined: dict[str, str] = {}  # the result of a Concat, by operands written into it

    def program(self) -> Program:
        """All operations."""
        recognised: dict[str, tuple[Match, ActivationRule]] = {}
        for match in find_activations(self._graph):
            rule = self._rule(match)
            if rule is not None:
                recognised.update((node.name, (match, rule)) for node in match.nodes)
        for node in self._graph.nodes():
            if node.name in recognised:
                match, rule = recognised[node.name]
                if node.name == match.nodes[-1].name:
                    self._add_activation(match, rule)
            elif not all(tensor.name in self._constants for tensor in node.outputs):
                self._add_node(node)
        outputs = frozenset(self._root(name) for name in self._outputs)
        orders = stored_orders(self._graph)
        layouts = Layouts(self._graph, self._origin, self._parts, self._joined, orders)
        return Program(
            operations=tuple(self._operations),
            scratch=self._scratch,
            outputs=outputs,
            orders=orders,
            parts={**self._parts, **self._joined},
            linear=layouts.linear(self._operations, self._settings),
        )

    def _rule(self, match: Match) -> ActivationRule | None:
        rule = self._settings.activations.get(match.activation.name)
        if rule is None or (rule.spelling == "operator" and len(match.nodes) > 1):
            return None
        return rule

    # ---------------------------------------------------------------- activations

    def _add_activation(self, match: Match, rule: ActivationRule) -> None:
        names = tuple(node.name for node in match.nodes)
        label = match.activation.name
        if rule.unit != "passes":
            self._apply(rule.unit, label, names, match.reads, match.writes)
            return
        source, written = self._root(match.reads.name), match.writes.name
        for position, op in enumerate(rule.passes):
            both = op in _TWO_OPERANDS and position > 0
            reads = (source, written) if both else (written if position else source,)
            self._append(
                Operation(
                    name=names[0],
                    op=f"{label} ({op})",
                    kind=self._settings.operators[op],
                    nodes=names,
                    reads=reads,
                    writes=(written,),
                    elementwise=op in _ELEMENTWISE,
                    binary=op in _TWO_OPERANDS,
                )
            )
        if len(rule.passes) > 1:
            self._scratch[names[-1]] = self._elements(match.writes)

    def _apply(
        self, unit: str, label: str, names: tuple[str, ...], reads: Tensor, writes: Tensor
    ) -> None:
        """A clamp or lookup: part of the operation before it where that can take it."""
        source = self._root(reads.name)
        index = self._writer.get(source)
        before = None if index is None else self._operations[index]
        if index is not None and before is not None and self._fuses(before, source, names):
            self._operations[index] = replace(
                before,
                op=f"{before.op}+{label}",
                nodes=before.nodes + self._free_between(source) + names,
                writes=(writes.name,),
                activation=label,
                lookup=unit == "lookup",
            )
            self._writer[writes.name] = index
            return
        self._append(Operation(names[0], label, unit, names, (source,), (writes.name,)))

    def _fuses(self, before: Operation, source: str, names: tuple[str, ...]) -> bool:
        """One activation fits behind an operation, and only if nothing else reads its input."""
        if before.kind not in self._settings.fusing or before.activation:
            return False
        return set(self._readers(source)) <= set(names)

    # ---------------------------------------------------------------- other nodes

    def _add_node(self, node: Node) -> None:
        kind = self._kind(node)
        if kind == "free":
            self._origin[node.outputs[0].name] = self._root(node.inputs[0].name)
            return
        if kind == "part":
            source = self._root(node.inputs[0].name)
            self._parts.update((t.name, self._parts.get(source, source)) for t in node.outputs)
            return
        if kind in ("clamp", "lookup"):
            self._apply(kind, node.op, (node.name,), node.inputs[0], node.outputs[0])
            return
        work = contraction(self._graph, node)
        operation = Operation(
            name=node.name,
            op=node.op,
            kind=kind,
            nodes=(node.name,),
            reads=self._computed(node),
            writes=tuple(t.name for t in node.outputs if not t.is_empty()),
            work=work,
            window=self._window(node),
            elementwise=node.op in _ELEMENTWISE and kind in self._settings.elements_per_cycle,
            binary=node.op not in _ONE_OPERAND,
            constants=self._constant_shapes(node) if node.op in _ELEMENTWISE else (),
        )
        if kind == "join":
            copied = tuple(t.name for t in node.inputs if self._is_copied(t, node))
            inside = {t.name for t in node.inputs} - {*copied, *self._constants}
            self._joined.update((name, node.outputs[0].name) for name in inside)
            if not copied:
                return
            operation = replace(operation, reads=copied)
        self._append(operation)

    def _window(self, node: Node) -> int:
        if node.op != "Softmax":
            return math.prod(node.attrs.get("kernel_shape", (1,)))
        axis = int(node.attrs.get("axis", -1 if self._graph.opset >= 13 else 1))
        found = self._graph.types.get(node.inputs[0].name)
        shape = () if found is None else found.shape or ()
        length = shape[axis] if -len(shape) <= axis < len(shape) else 1
        return length if isinstance(length, int) else 1

    def _is_copied(self, tensor: Tensor, join: Node) -> bool:
        """Whether an operand of a Concat lies elsewhere than where an operation could write it.

        It does where something else reads it too, where it is a part or another shape of what was
        written, and where its scale is another one.
        """
        if self._is_constant(tensor):
            return False
        writer = self._writer.get(tensor.name)
        if writer is None or self._readers(tensor.name) != [join.name]:
            return True
        before = self._operations[writer]
        return (before.activation or before.op) in _FIXED_SCALE

    def _kind(self, node: Node) -> str:
        if any(isinstance(value, gs.Graph) for value in node.attrs.values()):
            raise PricingError(
                f"node '{node.name}' ({node.op}) holds a subgraph, whose cost depends on the data; "
                "measure this model on the device, or remove the control flow"
            )
        if node.domain not in ONNX_DOMAINS:
            raise PricingError(
                f"node '{node.name}': neither the NPU nor its host knows the operator "
                f"{node.domain}.{node.op}; write it with ONNX operators"
            )
        kind = self._settings.operators.get(node.op, HOST)
        if node.op == "Transpose" and self._disappears(node):
            return "free"
        if node.op == "Gather" and self._is_one_slice(node):
            return self._settings.operators.get("Slice", HOST)
        if node.op == "Div" and self._is_constant(node.inputs[1]):
            # Multiplied by the reciprocal instead.
            return self._settings.operators.get("Mul", HOST)
        if kind in ("convolution", "matrix") and not self._has_constant_weights(node):
            return HOST
        return kind

    def _disappears(self, node: Node) -> bool:
        if node.op != "Transpose":
            return False
        if tuple(node.attrs.get("perm", ())) in self._settings.free_permutations:
            return True
        # Axes get other names; only where their order counts does anything move.
        written = node.outputs[0].name
        readers = self._graph.consumers(written)
        return written not in self._outputs and not any(n.op in _IN_ORDER for n in readers)

    def _is_one_slice(self, node: Node) -> bool:
        indices = self._graph.constant(node.inputs[1])
        return indices is not None and indices.size == 1

    def _has_constant_weights(self, node: Node) -> bool:
        """The multipliers take weights from a stream that is written when the model is compiled."""
        computed = [t for t in node.inputs if not t.is_empty() and not self._is_constant(t)]
        return contraction(self._graph, node) is not None and len(computed) == 1

    def _append(self, operation: Operation) -> None:
        for tensor in operation.writes:
            self._writer[tensor] = len(self._operations)
        self._operations.append(operation)

    # ---------------------------------------------------------------- tensors

    def _root(self, tensor: str) -> str:
        return self._origin.get(tensor, tensor)

    def _is_constant(self, tensor: Tensor) -> bool:
        return isinstance(tensor, gs.Constant) or tensor.name in self._constants

    def _computed(self, node: Node) -> tuple[str, ...]:
        """Feature maps that the node reads, each once."""
        names = [t.name for t in node.inputs if not t.is_empty() and not self._is_constant(t)]
        return tuple(dict.fromkeys(self._root(name) for name in names))

    def _constant_shapes(self, node: Node) -> tuple[tuple[int, ...], ...]:
        types = self._graph.types
        rank = len(types[node.outputs[0].name].shape or ()) if node.outputs[0].name in types else 0
        found = [
            types.get(t.name) for t in node.inputs if not t.is_empty() and self._is_constant(t)
        ]
        # A single number is part of the command.
        kept = [each for each in found if each and each.is_static and each.elements > 1]
        shapes = [
            tuple(size for size in each.shape or () if isinstance(size, int)) for each in kept
        ]
        return tuple((1,) * (rank - len(shape)) + shape for shape in shapes)

    def _readers(self, root: str) -> list[str]:
        """Names of the nodes that read a tensor, through free ones; "" for the graph's output."""
        tensors = [root, *(node.outputs[0].name for node in self._free_behind(root))]
        found = ["" for name in tensors if name in self._outputs]
        for name in tensors:
            readers = self._graph.consumers(name)
            found += [reader.name for reader in readers if not self._is_free(reader, name)]
        return found

    def _free_between(self, root: str) -> tuple[str, ...]:
        return tuple(node.name for node in self._free_behind(root))

    def _free_behind(self, root: str) -> list[Node]:
        """Nodes that do no more than hand the tensor on."""
        found: list[Node] = []
        pending = [root]
        while pending:
            name = pending.pop()
            free = [node for node in self._graph.consumers(name) if self._is_free(node, name)]
            found += free
            pending += [node.outputs[0].name for node in free]
        return found

    def _is_free(self, node: Node, reads: str) -> bool:
        kind = self._settings.operators.get(node.op)
        if kind != "free" and not self._disappears(node):
            return False
        return bool(node.inputs[0].name == reads)

    def _elements(self, tensor: Tensor) -> int:
        found = self._graph.types.get(tensor.name)
        if found is None:
            raise PricingError(f"tensor '{tensor.name}' has no type; use a target that measures")
        return found.elements
