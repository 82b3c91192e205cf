"""From an ONNX graph to an int8 TFLite network.

Specification: TensorFlow Lite 8-bit quantization specification. Feature maps are int8 with one
scale, weights int8 with one scale for each output channel, biases int32. Clamps fuse into the
operator before them; other activations are operators of their own (`activations`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from actcc.activations import Match, find_activations
from actcc.backends.ethos_u import contractions, elementwise, pooling, shapes
from actcc.backends.ethos_u.activations import FUSED, activation, saturates
from actcc.backends.ethos_u.builder import CHANNELS_LAST, NO_ACTIVATION, Builder, Step, identity
from actcc.backends.ethos_u.network import FlatNetwork
from actcc.backends.ethos_u.ranges import tensor_quantizations
from actcc.errors import PricingError
from actcc.graph import Graph, Node, Tensor
from actcc.graph.operators import ONNX_DOMAINS
from actcc.memory import compile_time_tensors
from actcc.quantization import Range

_RULES: Mapping[str, Callable[[Builder, Step], None]] = MappingProxyType(
    {**contractions.RULES, **elementwise.RULES, **pooling.RULES, **shapes.RULES}
)
# TFLite's operators that carry a clamp with them.
_FUSING = frozenset(
    {
        "Add",
        "AveragePool",
        "BatchNormalization",
        "Conv",
        "ConvTranspose",
        "Div",
        "Gemm",
        "Mul",
        "Sub",
    }
)


def lower(graph: Graph, observed: Mapping[str, Range] | None = None) -> FlatNetwork:
    """The graph as an int8 TFLite network.

    Args:
        observed: ranges of tensors on calibration samples; see `ranges.observed_ranges`. Without
            them the network takes as long, but its numbers are of no use.

    Raises:
        PricingError: a shape is not static, or TFLite has no int8 operator for a node.
    """
    return _Lowering(graph, observed or {}).network()


class _Lowering:
    def __init__(self, graph: Graph, observed: Mapping[str, Range]) -> None:
        self._graph = graph
        self._matches = find_activations(graph)
        self._constants = compile_time_tensors(graph)
        self._quantizations = tensor_quantizations(graph, self._matches, observed)
        self._builder = Builder(graph, self._quantizations)
        self._last = {match.nodes[-1].name: match for match in self._matches}
        self._inside = {node.name for match in self._matches for node in match.nodes}
        self._fused: set[str] = set()  # activations, by the tensor that they write

    def network(self) -> FlatNetwork:
        """All nodes, one after the other."""
        for tensor in self._graph.inputs:
            self._require_float(tensor)
            self._builder.add_input(tensor, self._input_order(tensor))
        for node in self._graph.nodes():
            match = self._last.get(node.name)
            if match is not None:
                if match.writes.name not in self._fused:
                    activation(self._builder, match)
            elif node.name not in self._inside and not self._is_constant(node):
                self._lower(node)
        return self._builder.network()

    def _lower(self, node: Node) -> None:
        rule = _RULES.get(node.op)
        if rule is None or node.domain not in ONNX_DOMAINS:
            raise PricingError(
                f"node '{node.name}': the operator {node.op} is not lowered to int8 TFLite"
            )
        following = self._clamp_behind(node)
        if following is None:
            rule(self._builder, Step(node, node.outputs[0].name))
            return
        self._fused.add(following.writes.name)
        fused = FUSED.get(following.activation.name, NO_ACTIVATION)
        rule(self._builder, Step(node, following.writes.name, fused))

    def _clamp_behind(self, node: Node) -> Match | None:
        """A clamp that alone reads what the node writes, and that fuses into it."""
        written = node.outputs[0]
        if self._graph.is_output(written) or not self._fuses(node):
            return None
        readers = {reader.name for reader in self._graph.consumers(written)}
        for match in self._matches:
            if match.reads is not written or not readers <= {n.name for n in match.nodes}:
                continue
            if match.activation.name in FUSED:
                return match
            quantization = self._quantizations[match.writes.name]
            if match.activation.name == "Clip" and saturates(match.activation, quantization):
                return match
        return None

    def _fuses(self, node: Node) -> bool:
        if node.op == "MatMul":
            constant = self._graph.constant(node.inputs[1])
            return constant is not None and constant.ndim == 2
        return node.op in _FUSING

    def _is_constant(self, node: Node) -> bool:
        return all(tensor.name in self._constants for tensor in node.outputs)

    def _input_order(self, tensor: Tensor) -> tuple[int, ...]:
        """Images have their channels last, unless the first thing to be done is to move them."""
        rank = len(self._builder.shape(tensor))
        readers = self._graph.consumers(tensor)
        moved = bool(readers) and all(reader.op == "Transpose" for reader in readers)
        return CHANNELS_LAST if rank == 4 and not moved else identity(rank)

    def _require_float(self, tensor: Tensor) -> None:
        dtype = self._graph.dtype(tensor)
        if dtype is None or dtype.kind != "f":
            raise PricingError(
                f"input '{tensor.name}' is of {dtype}; only networks in floating point are lowered"
            )
