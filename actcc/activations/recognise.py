"""Finding activations in a graph, whatever way they are written in.

Every tensor is taken for `x` in turn; what is computed from it alone, node by node, is brought to a
normal form (`algebra`) and compared with the forms of the known activations (`references`). Where
matches overlap, the one with the most nodes wins.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import onnx_graphsurgeon as gs

from actcc.activations.exploration import Derived, Explorer, Gate
from actcc.activations.functions import Activation
from actcc.activations.operators import ACTIVATION_OPERATORS, CONTRIB, FLOAT_BYTES
from actcc.activations.references import COMPOSITE, identify, resembling
from actcc.graph import Graph, Node, Tensor, TensorType
from actcc.graph.pairs import QUANTIZATION
from actcc.site import Refusal


@dataclass(frozen=True)
class Match:
    """An activation in a graph.

    Attributes:
        spelling: operators in topological order, "Sigmoid+Mul"; other domains are prefixed, and
            what rounds between them is left out.
        nodes: all that compute it, in topological order; their other results are read nowhere.
        element: element type of both tensors (`onnx.TensorProto.DataType`).
        quantized: read from a DequantizeLinear, written to a QuantizeLinear, or rounded between.
    """

    activation: Activation
    spelling: str
    nodes: tuple[Node, ...]
    reads: Tensor
    writes: Tensor
    element: int
    quantized: bool

    @property
    def rounds(self) -> bool:
        """Whether what one node writes is rounded before the next reads it."""
        return any(node.op in QUANTIZATION for node in self.nodes)


@dataclass(frozen=True)
class Recognition:
    """All activations of a graph, in topological order, and near-misses with reasons."""

    matches: tuple[Match, ...]
    refusals: tuple[Refusal, ...]


def find_activations(graph: Graph) -> list[Match]:
    """The activations of the main graph in topological order; no node is in two of them."""
    return list(recognise(graph).matches)


def explain_activations(graph: Graph) -> list[Refusal]:
    """Places that look like an activation and why they are none."""
    return list(recognise(graph).refusals)


def recognise(graph: Graph) -> Recognition:
    """Activations and near-misses in one go.

    Raises:
        ModelError: the shapes of the graph contradict themselves.
    """
    search = _Search(graph)
    for source in search.sources():
        search.look_behind(source)
    chosen = _largest(search.found)
    owner = {position: found for found in chosen for position in found.positions}
    missed = [miss for miss in search.missed if not _settled(miss, owner)]
    refusals = [(miss.last, miss.refusal) for miss in _largest(missed)]
    refusals += search.inner_activations()
    return Recognition(
        tuple(found.match for found in sorted(chosen, key=lambda found: found.last)),
        tuple(refusal for _, refusal in sorted(refusals, key=lambda item: item[0])),
    )


@dataclass(frozen=True)
class _Found:
    positions: frozenset[int]
    match: Match

    @property
    def last(self) -> int:
        return max(self.positions)


@dataclass(frozen=True)
class _Missed:
    positions: frozenset[int]
    refusal: Refusal
    names: tuple[str, ...]

    @property
    def last(self) -> int:
        return max(self.positions)


def _settled(miss: _Missed, owner: Mapping[int, _Found]) -> bool:
    """Whether a match says all that there is to say about the nodes of a near-miss."""
    matches = [owner[position] for position in miss.positions if position in owner]
    return any(
        len(found.positions) >= len(miss.positions) or found.match.activation.name in miss.names
        for found in matches
    )


def _largest(entries: Sequence[Any]) -> list[Any]:
    """Entries without overlap: most nodes first, then in topological order."""
    taken: set[int] = set()
    chosen = []
    for entry in sorted(entries, key=lambda entry: (-len(entry.positions), entry.last)):
        if not entry.positions & taken:
            taken |= entry.positions
            chosen.append(entry)
    return chosen


class _Search:
    """One pass over a graph that collects matches and near-misses."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._explorer = Explorer(graph)
        self._outputs = {tensor.name for tensor in graph.outputs}
        self.found: list[_Found] = []
        self.missed: list[_Missed] = []

    def sources(self) -> Iterator[Tensor]:
        """Tensors that a run computes or is fed with."""
        yield from self._graph.inputs
        for node in self._explorer.nodes:
            if node.op != "Constant":
                yield from (tensor for tensor in node.outputs if not tensor.is_empty())

    def look_behind(self, source: Tensor) -> None:
        """Collect the activations that read `source`."""
        exploration = self._explorer.explore(source)
        for derived in exploration.derived:
            activation = identify(derived.form, derived.tolerance)
            if activation is not None:
                self._judge(source, derived, activation)
            else:
                self._compare(derived)
        for gate in exploration.gates:
            self._look_through(source, gate)
        if self._explorer.rounds:
            self._look_for_cuts(source)
        self._look_for_prelu(source)

    def _look_for_cuts(self, source: Tensor) -> None:
        """Activations whose Clip a quantizer left to the range of what it stores."""
        for derived in self._explorer.explore(source, cutting=True).derived:
            activation = identify(derived.form, derived.tolerance)
            if activation is not None and activation.name in COMPOSITE:
                self._judge(source, derived, activation)

    def _judge(self, source: Tensor, derived: Derived, activation: Activation) -> None:
        element = self._element(source)
        if element is None:
            if self._type(source) is None:
                reason = f"the element type of '{source.name}' is unknown; export with value_info"
                self._miss(derived, f"is {activation}, but {reason}", activation.name)
            return
        if derived.narrowest is not None and (
            derived.narrowest < FLOAT_BYTES[element] or self._element(derived.tensor) != element
        ):
            return  # what lies between the casts is looked at by itself
        leak = self._leak(derived)
        if leak:
            self._miss(derived, f"is {activation} of '{source.name}', but {leak}", activation.name)
            return
        nodes = tuple(self._explorer.nodes[position] for position in sorted(derived.nodes))
        self._take(activation, nodes, source, derived.tensor, element, derived.nodes)

    def _take(
        self,
        activation: Activation,
        nodes: tuple[Node, ...],
        source: Tensor,
        written: Tensor,
        element: int,
        positions: frozenset[int],
    ) -> None:
        around = (*source.inputs, *nodes, *written.outputs)
        quantized = any(node.op in QUANTIZATION for node in around)
        computing = (node for node in nodes if node.op not in QUANTIZATION)
        spelling = "+".join(_operator_name(node) for node in computing)
        match = Match(activation, spelling, nodes, source, written, element, quantized)
        self.found.append(_Found(positions, match))

    def _compare(self, derived: Derived) -> None:
        names = resembling(derived.form)
        if names:
            numbers = ", ".join(f"{value:g}" for value in derived.constants) or "none"
            self._miss(
                derived,
                f"is written like {' or '.join(names)}, but its constants ({numbers}) give "
                "another function",
                *names,
            )

    def _look_through(self, source: Tensor, gate: Gate) -> None:
        """What would be computed if a product had the same tensor on both sides."""
        position = self._explorer.position(gate.node)
        for derived in self._explorer.explore(source, alias=gate.other).derived:
            activation = identify(derived.form, derived.tolerance)
            if position in derived.nodes and activation and activation.name in COMPOSITE:
                self._miss(
                    derived,
                    f"would be {activation} of '{source.name}', but node '{gate.node.name}' "
                    f"multiplies with '{gate.other.name}', another tensor",
                    activation.name,
                )

    def _look_for_prelu(self, source: Tensor) -> None:
        """PRelu with a slope for each channel has no form with one variable."""
        element = self._element(source)
        for node in source.outputs:
            position = self._explorer.position(node)
            if node.op != "PRelu" or position is None or node.inputs[0] is not source:
                continue
            where = frozenset({position})
            slope = self._graph.constant(node.inputs[1])
            function = None if slope is None else _channelwise_prelu(slope)
            if function is not None and element is not None:
                self._take(function, (node,), source, node.outputs[0], element, where)
            elif slope is None or np.ptp(slope) > 0:
                reason = "varies along several axes" if slope is not None else "is no constant"
                text = f"is PRelu, but its slope '{node.inputs[1].name}' {reason}"
                self.missed.append(_Missed(where, Refusal(node.name, text), ()))

    def _leak(self, derived: Derived) -> str:
        """Why the nodes cannot be taken out: where an intermediate result is needed elsewhere."""
        for position in sorted(derived.nodes):
            for tensor in self._explorer.nodes[position].outputs:
                if tensor is derived.tensor:
                    continue
                if tensor.name in self._outputs:
                    return f"its intermediate result '{tensor.name}' is an output of the graph"
                for reader in tensor.outputs:
                    if self._explorer.position(reader) not in derived.nodes:
                        return (
                            f"its intermediate result '{tensor.name}' is read by "
                            f"node '{reader.name}' too"
                        )
        return ""

    def _miss(self, derived: Derived, reason: str, *names: str) -> None:
        node = self._explorer.nodes[max(derived.nodes)]
        self.missed.append(_Missed(derived.nodes, Refusal(node.name, reason), names))

    def _type(self, tensor: Tensor) -> TensorType | None:
        found = self._graph.types.get(tensor.name)
        return None if found is None or not found.element else found

    def _element(self, tensor: Tensor) -> int | None:
        """Element type of a floating-point tensor."""
        found = self._type(tensor)
        return found.element if found is not None and found.element in FLOAT_BYTES else None

    def inner_activations(self) -> list[tuple[int, Refusal]]:
        """Activations in subgraphs and functions, by the node that runs them."""
        functions = {(f.domain, f.name): f for f in self._graph.functions}
        refusals = []
        for position, node in enumerate(self._explorer.nodes):
            count = _count(node.attrs.values())
            if count:
                reason = f"{_activations(count)} in its subgraphs are left as they are"
                refusals.append((position, Refusal(node.name, reason)))
            function = functions.get((node.domain or "", node.op))
            count = 0 if function is None else sum(map(_is_activation, function.node))
            if count:
                reason = (
                    f"{_activations(count)} in the function '{node.op}' are left as they are; "
                    "inline it with onnx.inliner"
                )
                refusals.append((position, Refusal(node.name, reason)))
        return refusals


def _operator_name(node: Node) -> str:
    return f"{CONTRIB}.{node.op}" if node.domain == CONTRIB else str(node.op)


def _channelwise_prelu(slope: Any) -> Activation | None:
    varying = [axis for axis, size in enumerate(slope.shape) if size > 1]
    if len(varying) != 1 or np.ptp(slope) == 0:
        return None
    trailing = float(slope.ndim - 1 - varying[0])
    slopes = [("slope", float(value)) for value in slope.reshape(-1)]
    return Activation("PRelu", (("trailing_axes", trailing), *slopes))


def _activations(count: int) -> str:
    return "1 activation" if count == 1 else f"{count} activations"


def _count(attributes: Iterable[Any]) -> int:
    count = 0
    for attribute in attributes:
        if isinstance(attribute, gs.Graph):
            for node in attribute.nodes:
                count += ((node.domain or "", node.op) in ACTIVATION_OPERATORS) + _count(
                    node.attrs.values()
                )
    return count


def _is_activation(node: onnx.NodeProto) -> bool:
    return (node.domain, node.op_type) in ACTIVATION_OPERATORS
