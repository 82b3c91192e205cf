"""Peak memory of a network's activations: which tensors are alive at each step.

Rules:
- A tensor is alive from the step that writes it to the last step that reads it; graph inputs from
  the first step on, graph outputs to the last. Weights do not count, nor does what a compiler
  computes from constants alone.
- A step holds its inputs and its outputs at the same time, with one exception: an element-wise
  operator whose input is of the output's size and dies there writes over that input.
- Reshape, Squeeze, Unsqueeze, Flatten, Identity and Dropout share their input's storage. On a
  device that keeps every tensor in one format (`bytes_per_element`), so do Cast, QuantizeLinear
  and DequantizeLinear.
- Nodes that run as one (`fused`) do not write the tensors that only they read. The group runs as
  early as the inputs that come from outside it allow.

Graph inputs obey the same rules as other tensors: their storage is used again when they are dead.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import onnx_graphsurgeon as gs

from actcc.errors import ModelError, PricingError
from actcc.graph import Graph, Node, Tensor

VIEWS = frozenset({"Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Dropout"})
FORMAT_CHANGES = frozenset({"Cast", "QuantizeLinear", "DequantizeLinear"})
# fmt: off
_ELEMENT_WISE = frozenset({
    "Abs", "Add", "BatchNormalization", "Ceil", "Celu", "Clip", "Cos", "Div", "Elu", "Erf", "Exp",
    "Floor", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Log", "Max", "Min", "Mish", "Mul",
    "Neg", "PRelu", "Pow", "QuickGelu", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid", "Sign",
    "Sin", "Softplus", "Softsign", "Sqrt", "Sub", "Sum", "Swish", "Tanh", "ThresholdedRelu",
})
# fmt: on


@dataclass(frozen=True)
class MemoryProfile:
    """Live bytes over one inference.

    Attributes:
        steps: (node name, live bytes) in the order of execution; nodes that run as one share
            their figure.
        peak_bytes: the highest of them; 0 for a graph without nodes.
    """

    steps: tuple[tuple[str, int], ...]
    peak_bytes: int


@dataclass(frozen=True)
class LiveStep:
    """What is alive while one group of nodes runs.

    Attributes:
        nodes: names of the nodes that run as one.
        live: bytes by tensor; a tensor that shares another's storage is not listed.
    """

    nodes: tuple[str, ...]
    live: Mapping[str, float]


def peak_memory(
    graph: Graph,
    bytes_per_element: float | None = None,
    fused: Sequence[Collection[str]] = (),
    scratch: Mapping[str, float] | None = None,
) -> MemoryProfile:
    """Live bytes of activations at each step, by the rules of this module.

    Args:
        bytes_per_element: the same size for elements of every tensor, on a device that runs the
            network in another precision; None takes each tensor's own type.
        fused: names of nodes that run as one, a group each; a node is in one group at most.
        scratch: bytes that a node needs for itself while it runs, by node name.

    Raises:
        PricingError: a tensor has no static shape.
    """
    return memory_profile(live_steps(graph, bytes_per_element, fused), scratch)


def memory_profile(
    live: Iterable[LiveStep], scratch: Mapping[str, float] | None = None
) -> MemoryProfile:
    """Live bytes from live tensors; `scratch` as for `peak_memory`."""
    own = scratch or {}
    steps: list[tuple[str, int]] = []
    for step in live:
        extra = sum(own.get(name, 0) for name in step.nodes)
        size = math.ceil(sum(step.live.values()) + extra)
        steps.extend((name, size) for name in step.nodes)
    return MemoryProfile(tuple(steps), max((size for _, size in steps), default=0))


def live_steps(
    graph: Graph,
    bytes_per_element: float | None = None,
    fused: Sequence[Collection[str]] = (),
) -> Iterator[LiveStep]:
    """The tensors that are alive at each step, in the order of execution; see `peak_memory`."""
    storage = _Storage(graph, bytes_per_element)
    steps = [storage.step(unit) for unit in _in_order(_units(graph, fused))]
    last_read = {tensor: index for index, step in enumerate(steps) for tensor in step.reads}
    kept = {storage.root(tensor.name) for tensor in graph.outputs}
    live = {
        tensor.name: storage.size(tensor.name)
        for tensor in graph.inputs
        if tensor.name in last_read or tensor.name in kept
    }
    for index, step in enumerate(steps):
        dying = [t for t in step.reads if last_read[t] == index and t not in kept]
        for tensor in step.writes:
            size = storage.size(tensor)
            if step.element_wise:
                over = next((t for t in dying if live.get(t) == size), None)
                if over is not None:
                    dying.remove(over)
                    del live[over]
            live[tensor] = size
        yield LiveStep(step.nodes, dict(live))
        unread = [t for t in step.writes if t not in last_read and t not in kept]
        for tensor in (*dying, *unread):
            del live[tensor]


def compile_time_tensors(graph: Graph) -> frozenset[str]:
    """Names of tensors that a compiler computes beforehand: what follows from constants alone, and
    shapes, which are static here.
    """
    computed = {tensor.name for tensor in graph.inputs}
    known: list[str] = []
    for node in graph.nodes():
        depends = any(tensor.name in computed for tensor in _read_by(node))
        random = not node.inputs and node.op != "Constant"
        names = [tensor.name for tensor in node.outputs if not tensor.is_empty()]
        if node.op in ("Shape", "Size") or not (depends or random):
            known += names
        else:
            computed.update(names)
    return frozenset(known)


@dataclass(frozen=True)
class _Step:
    nodes: tuple[str, ...]
    reads: tuple[str, ...]
    writes: tuple[str, ...]
    element_wise: bool


class _Storage:
    """Which tensors share storage, and how large it is."""

    def __init__(self, graph: Graph, bytes_per_element: float | None) -> None:
        self._types = graph.types
        self._bytes_per_element = bytes_per_element
        sharing = VIEWS if bytes_per_element is None else VIEWS | FORMAT_CHANGES
        self._outputs = {tensor.name for tensor in graph.outputs}
        self._roots: dict[str, str] = {tensor.name: tensor.name for tensor in graph.inputs}
        self._sharing: dict[str, list[Tensor]] = {}
        constants = compile_time_tensors(graph)
        for node in graph.nodes():
            if node.outputs and node.outputs[0].name in constants:
                continue
            source = str(node.inputs[0].name) if node.op in sharing and node.inputs else ""
            for position, tensor in enumerate(node.outputs):
                if tensor.is_empty():
                    continue  # an optional output that is left out
                # The mask of a Dropout and the like are tensors of their own.
                shares = position == 0 and source in self._roots
                root = self._roots[source] if shares else tensor.name
                self._roots[tensor.name] = root
                self._sharing.setdefault(root, []).append(tensor)

    def root(self, tensor: str) -> str:
        """The tensor in whose storage it lies."""
        return self._roots.get(tensor, tensor)

    def size(self, tensor: str) -> float:
        """Bytes of its storage."""
        found = self._types.get(tensor)
        if found is None or not found.is_static:
            shape = None if found is None else found.shape
            raise PricingError(
                f"tensor '{tensor}' has no static shape ({shape}), so its memory is not known; "
                "give --shape for symbolic inputs; where it depends on data, use a target that "
                "measures"
            )
        if self._bytes_per_element is None:
            return found.bytes
        return found.elements * self._bytes_per_element

    def step(self, unit: Sequence[Node]) -> _Step:
        """What nodes that run as one read and write, by root."""
        inside = {id(node) for node in unit}
        reads = [
            self._roots[tensor.name]
            for node in unit
            for tensor in _read_by(node)
            if tensor.name in self._roots and not any(id(w) in inside for w in tensor.inputs)
        ]
        writes = [
            tensor.name
            for node in unit
            for tensor in node.outputs
            if self._roots.get(tensor.name) == tensor.name and self._leaves(tensor.name, inside)
        ]
        return _Step(
            nodes=tuple(node.name for node in unit),
            reads=tuple(dict.fromkeys(reads)),
            writes=tuple(writes),
            element_wise=all(node.op in _ELEMENT_WISE for node in unit),
        )

    def _leaves(self, root: str, inside: Collection[int]) -> bool:
        """Whether the tensor has to be written: something outside the group reads it, or nothing
        reads it at all.
        """
        tensors = self._sharing[root]
        readers = [reader for tensor in tensors for reader in tensor.outputs]
        return (
            not readers
            or any(id(reader) not in inside for reader in readers)
            or any(tensor.name in self._outputs for tensor in tensors)
        )


def _read_by(node: Node) -> Iterator[Tensor]:
    yield from node.inputs
    for value in node.attrs.values():
        if isinstance(value, gs.Graph):
            for inner in value.nodes:
                yield from _read_by(inner)
            yield from value.outputs


def _units(graph: Graph, fused: Sequence[Collection[str]]) -> list[list[Node]]:
    """Groups of nodes that run as one, in the order of their first nodes."""
    group_of = {name: number for number, group in enumerate(fused) for name in group}
    units: list[list[Node]] = []
    opened: dict[int, list[Node]] = {}
    for node in graph.nodes():
        number = group_of.get(node.name)
        if number is not None and number in opened:
            opened[number].append(node)
            continue
        units.append([node])
        if number is not None:
            opened[number] = units[-1]
    return units


def _in_order(units: Sequence[list[Node]]) -> list[list[Node]]:
    """Units sorted so that each runs after what it reads (Kahn 1962), early ones first.

    Raises:
        ModelError: a unit would have to run before and after another one.
    """
    unit_of = {id(node): index for index, unit in enumerate(units) for node in unit}
    readers: list[set[int]] = [set() for _ in units]
    missing = [0] * len(units)
    for index, unit in enumerate(units):
        writers = {
            unit_of[id(writer)]
            for node in unit
            for tensor in _read_by(node)
            for writer in tensor.inputs
            if id(writer) in unit_of
        } - {index}
        missing[index] = len(writers)
        for writer in writers:
            readers[writer].add(index)
    ready = [index for index, count in enumerate(missing) if count == 0]
    heapq.heapify(ready)
    ordered: list[list[Node]] = []
    while ready:
        index = heapq.heappop(ready)
        ordered.append(units[index])
        for reader in readers[index]:
            missing[reader] -= 1
            if missing[reader] == 0:
                heapq.heappush(ready, reader)
    if len(ordered) != len(units):
        stuck = next(unit for unit, count in zip(units, missing, strict=True) if count > 0)
        names = ", ".join(node.name for node in stuck)
        raise ModelError(
            f"nodes {names} cannot run as one: another node lies between them; fuse fewer of them"
        )
    return ordered
