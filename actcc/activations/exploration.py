"""From one tensor forward: which tensors behind it are functions of it alone, and which.

Between the nodes of one function a tensor may be rounded to int8 and back, which is looked through:
`actcc.graph.pairs`. What a function reads and writes is not rounded yet.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from actcc.activations.algebra import Form, TooComplex, X, clip, number
from actcc.activations.operators import FLOAT_BYTES, RULES
from actcc.activations.references import resembling
from actcc.graph import Array, Graph, Node, Shape, Tensor
from actcc.graph.pairs import DEQUANTIZE, QUANTIZATION, QUANTIZE, pair_of, stored_as

_LONGEST = 16  # nodes; GELU by tanh in a half precision model takes 13
_EXACT, _HALF, _BRAIN = 1e-5, 1.5e-3, 1.2e-2  # of the constants of a spelling, relative


@dataclass(frozen=True)
class Scalar:
    """A constant tensor all of whose elements are equal."""

    form: Form
    shape: tuple[int, ...]
    tolerance: float


@dataclass(frozen=True)
class Derived:
    """A tensor that is a function of one other tensor.

    Attributes:
        nodes: positions of the nodes on the way.
        constants: numbers written in the graph on the way.
        tolerance: relative, to which the constants are known.
        narrowest: bytes of an element at the narrowest Cast on the way; None without Cast.
    """

    tensor: Tensor
    form: Form
    nodes: frozenset[int] = frozenset()
    constants: tuple[float, ...] = ()
    tolerance: float = _EXACT
    narrowest: int | None = None


@dataclass(frozen=True)
class Gate:
    """A product of a function of one tensor with another tensor."""

    node: Node
    other: Tensor


@dataclass(frozen=True)
class Exploration:
    """What lies behind a tensor.

    Attributes:
        derived: in topological order.
        gates: products with another tensor, where the search stopped.
    """

    derived: tuple[Derived, ...]
    gates: tuple[Gate, ...]


@dataclass
class Explorer:
    """Explores one graph; remembers its order and constants, so it is for one state of it."""

    graph: Graph
    nodes: list[Node] = field(init=False)
    _position: dict[int, int] = field(init=False)
    _scalars: dict[int, Scalar | None] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.nodes = list(self.graph.nodes())
        self._position = {id(node): index for index, node in enumerate(self.nodes)}

    @property
    def rounds(self) -> bool:
        """Whether the graph rounds tensors to integers."""
        return any(node.op == QUANTIZE for node in self.nodes)

    def position(self, node: Node) -> int | None:
        """Position in topological order; None for a node inside a subgraph."""
        return self._position.get(id(node))

    def explore(
        self, source: Tensor, alias: Tensor | None = None, *, cutting: bool = False
    ) -> Exploration:
        """Functions of `source`.

        Args:
            alias: a tensor that is taken for `source`, to see what the graph would compute then.
            cutting: a rounding that stores no negative number is a Clip to what it stores.
        """
        starts = [source] if alias is None else [source, alias]
        # None for functions of the source that are too complex to follow.
        known: dict[int, Derived | None] = {id(tensor): Derived(tensor, X) for tensor in starts}
        waiting: list[int] = []
        for tensor in starts:
            self._push(tensor.outputs, waiting)
        derived: list[Derived] = []
        gates: list[Gate] = []
        done: set[int] = set()
        while waiting:
            position = heapq.heappop(waiting)
            if position in done:
                continue
            done.add(position)
            node = self.nodes[position]
            result = self._evaluate(node, position, known, source, cutting)
            if isinstance(result, Derived) and id(result.tensor) not in known:
                known[id(result.tensor)] = result
                if node.op not in QUANTIZATION:
                    derived.append(result)
                self._push(result.tensor.outputs, waiting)
                continue
            known |= {id(tensor): None for tensor in node.outputs if id(tensor) not in known}
            if isinstance(result, Gate):
                gates.append(result)
        return Exploration(tuple(derived), tuple(gates))

    def _push(self, readers: Iterable[Node], waiting: list[int]) -> None:
        for reader in readers:
            position = self.position(reader)
            if position is not None and (
                (_domain(reader), reader.op) in RULES or reader.op in QUANTIZATION
            ):
                heapq.heappush(waiting, position)

    def _evaluate(
        self,
        node: Node,
        position: int,
        known: Mapping[int, Derived | None],
        source: Tensor,
        cutting: bool,
    ) -> Derived | Gate | None:
        if node.op in QUANTIZATION:
            return self._rounded(node, position, known, cutting)
        other: Tensor | None = None
        operands: list[Form | None] = []
        parts: list[Derived] = []
        scalars: list[Scalar] = []
        for tensor in node.inputs:
            if id(tensor) in known:
                part = known[id(tensor)]
                if part is None:
                    return None
                parts.append(part)
                operands.append(part.form)
            elif tensor.is_empty():
                operands.append(None)
            elif scalar := self._scalar(tensor, source):
                scalars.append(scalar)
                operands.append(scalar.form)
            else:
                other = tensor
        if other is not None:
            return _gate(node, other, known) if self.graph.constant(other) is None else None
        nodes = frozenset({position}).union(*(part.nodes for part in parts))
        if self._count(nodes) > _LONGEST or len(node.outputs) != 1:
            return None
        attributes = {key: value for key, value in node.attrs.items() if key != "consumed_inputs"}
        try:
            form = RULES[_domain(node), node.op](*operands, **attributes)
        except (TooComplex, TypeError, OverflowError):
            return None  # TypeError: an attribute or operand that the rule does not know
        widths = [part.narrowest for part in parts if part.narrowest is not None]
        if node.op == "Cast":
            widths.append(FLOAT_BYTES[node.attrs["to"]])
        return Derived(
            tensor=node.outputs[0],
            form=form,
            nodes=nodes,
            constants=(
                *(value for part in parts for value in part.constants),
                *(scalar.form.constant or 0.0 for scalar in scalars),
            ),
            tolerance=max(
                *(part.tolerance for part in parts), *(scalar.tolerance for scalar in scalars), 0.0
            ),
            narrowest=min(widths) if widths else None,
        )

    def _rounded(
        self, node: Node, position: int, known: Mapping[int, Derived | None], cutting: bool
    ) -> Derived | None:
        """The same function, rounded, between two nodes that compute it."""
        part = known.get(id(node.inputs[0]))
        if part is None or not part.nodes:
            return None
        if node.op == QUANTIZE and pair_of(self.graph, node) is None:
            return None
        form = part.form
        if cutting and node.op == QUANTIZE and (kind := stored_as(self.graph, node)):
            low, high = (float(bound.reshape(())) for bound in kind.range)
            try:
                form = clip(form, low, high) if low == 0 else form
            except TooComplex:
                return None
        return replace(part, tensor=node.outputs[0], form=form, nodes=part.nodes | {position})

    def _count(self, nodes: Iterable[int]) -> int:
        return sum(self.nodes[position].op not in QUANTIZATION for position in nodes)

    def _scalar(self, tensor: Tensor, source: Tensor) -> Scalar | None:
        """The constant in `tensor` if it does not enlarge what it is combined with."""
        if id(tensor) not in self._scalars:
            self._scalars[id(tensor)] = self._read_scalar(tensor)
        scalar = self._scalars[id(tensor)]
        if scalar is None or not scalar.shape:
            return scalar
        return scalar if _fits(scalar.shape, self.graph.shape(source)) else None

    def _read_scalar(self, tensor: Tensor) -> Scalar | None:
        writer = tensor.inputs[0] if tensor.inputs else None
        if writer is not None and writer.op in ("Cast", "Identity") and not _domain(writer):
            inner = self._read_scalar(writer.inputs[0])
            narrow = FLOAT_BYTES.get(writer.attrs.get("to", 0)) == 2
            if inner is None or not narrow:
                return inner
            return Scalar(inner.form, inner.shape, max(inner.tolerance, _HALF))
        values = self._constant(tensor)
        if values is None or values.size == 0 or values.dtype.kind not in "fiuV":
            return None
        first = values.reshape(-1)[0]
        if values.size > 1 and not np.array_equal(values, np.broadcast_to(first, values.shape)):
            return None
        tolerance = {"float16": _HALF, "bfloat16": _BRAIN}.get(values.dtype.name, _EXACT)
        return Scalar(number(float(first)), tuple(values.shape), tolerance)

    def _constant(self, tensor: Tensor) -> Array | None:
        """A constant, or what is dequantized of one."""
        writer = tensor.inputs[0] if tensor.inputs else None
        if writer is None or writer.op != DEQUANTIZE:
            return self.graph.constant(tensor)
        stored, kind = self.graph.constant(writer.inputs[0]), stored_as(self.graph, writer)
        if stored is None or kind is None or not kind.is_whole:
            return None
        steps = stored.astype(np.int64) - int(kind.zero_point.reshape(()))
        return (steps * kind.scale.reshape(())).astype(kind.scale.dtype)


def _domain(node: Node) -> str:
    return "" if node.domain in (None, "ai.onnx") else str(node.domain)


def _gate(node: Node, other: Tensor, known: Mapping[int, Derived | None]) -> Gate | None:
    """A product that would start to look like an activation if both sides were one tensor."""
    parts = [known.get(id(tensor)) for tensor in node.inputs] if node.op == "Mul" else []
    for part in parts:
        if part is not None and part.form.is_nonlinear and len(part.nodes) < _LONGEST:
            try:
                product = part.form * X
            except TooComplex:
                continue
            if resembling(product):
                return Gate(node, other)
    return None


def _fits(constant: tuple[int, ...], shape: Shape | None) -> bool:
    """Whether a tensor of `shape` keeps it when it is combined with the constant."""
    if shape is None:
        return len(constant) <= 1 and all(size == 1 for size in constant)
    if len(constant) > len(shape):
        return False
    behind = shape[len(shape) - len(constant) :]
    return all(size in (1, own) for size, own in zip(constant, behind, strict=True))
