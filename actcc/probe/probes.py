"""The distinct small graphs whose latency decides a model's plan."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import onnx
from onnx import TensorProto, helper

from actcc.errors import ActccError, ModelError
from actcc.graph import Graph, Tensor, extract, static_types, structure_hash
from actcc.graph.layers import layers, whole_layers
from actcc.latency_models.probe_features import graph_features
from actcc.latency_models.probe_table import CALL, MODEL
from actcc.neighbourhood import neighbourhoods
from actcc.normalize import normalize
from actcc.pass_api import Pass, apply_pass, find_sites, select_passes
from actcc.site import KEEP, OfferedSite
from actcc.targets import Target
from actcc.validity import require_valid

LAYER = "layer"
CANDIDATE = "candidate"
# Layers have no neighbourhood whose candidates they would be held against.
_LAYERS_A_GROUP = 12
_OPERATORS_SHOWN = 6


@dataclass(frozen=True)
class Probe:
    """A graph to time.

    Attributes:
        hash: of its structure.
        group: graphs of one group are timed interleaved.
        role: see `actcc.latency_models.probe_table.ProbeRow`.
        description: its operators and sizes, for people.
        features: what its latency can be predicted from.
    """

    hash: str
    graph: Graph = field(repr=False, compare=False)
    group: str
    role: str
    description: str
    features: Mapping[str, float] = field(repr=False, compare=False)


@dataclass(frozen=True)
class Probes:
    """Distinct graphs to time.

    Attributes:
        source: what they stand for: name of a model's file, or "sweep".
        probes: each structure once; those of a group follow each other.
        refusals: what could not be made a probe, a sentence each.
    """

    source: str
    probes: tuple[Probe, ...]
    refusals: tuple[str, ...]


class ProbeCollector:
    """Takes graphs in any order and keeps each structure once."""

    def __init__(self) -> None:
        self._probes: dict[str, Probe] = {}
        self._refusals: dict[str, None] = {}
        self._layers = 0
        self.add(_nothing(), CALL, CALL)

    def add(self, graph: Graph, group: str, role: str) -> None:
        """Keep a graph unless one of its structure is there."""
        try:
            key = structure_hash(graph)
            if key in self._probes:
                return
            # A network is not what others are predicted from, and its shapes may be unknown inside.
            features = {} if role == MODEL else graph_features(graph)
            found = Probe(key, graph, group, role, describe(graph), features)
        except ActccError as error:
            self.refuse(str(error))
            return
        self._probes[key] = found

    def add_layers(self, graph: Graph, known: Graph | None = None) -> None:
        """Keep the layers of a graph, without those that `known` has as well.

        Raises:
            ModelError: it cannot be cut into layers.
        """
        passed = set() if known is None else {structure_hash(part) for part in layers(known)}
        for part in layers(graph):
            if structure_hash(part) not in passed:
                self.add(part, f"layers {self._layers // _LAYERS_A_GROUP}", LAYER)
                self._layers += 1

    def refuse(self, reason: str) -> None:
        """Remember that something could not be made a probe."""
        self._refusals[reason] = None

    def found(self, source: str) -> Probes:
        """What was kept."""
        groups: dict[str, list[Probe]] = {}
        for probe in self._probes.values():
            groups.setdefault(probe.group, []).append(probe)
        ordered = tuple(probe for group in groups.values() for probe in group)
        return Probes(source, ordered, tuple(self._refusals))


def model_probes(
    model: str | Path,
    target: Target,
    *,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    plugins: Sequence[str | Path] = (),
    skip: Sequence[str] = (),
    also: Sequence[str] = (),
) -> Probes:
    """The network, its layers, its neighbourhoods with every candidate, and their layers.

    Args:
        target: whose candidates are offered.
        input_shapes: concrete shapes for symbolic inputs.
        plugins, skip, also: as for `actcc.optimize`.

    Raises:
        ActccError: bad input, or nothing in the model can be timed.
    """
    original = Graph.load(model, input_shapes)
    require_valid(Path(model), original)
    static_types(original)
    passes = select_passes(None, plugins, skip, also)
    graph = normalize(original, skip=skip).graph
    collector = ProbeCollector()
    collector.add(original, MODEL, MODEL)
    collector.add(graph, MODEL, MODEL)
    try:
        collector.add_layers(graph)
    except ActccError as error:
        collector.refuse(f"the network cannot be cut into layers: {error}")
    with contextlib.suppress(ActccError):  # else the normalized network stands for the original
        collector.add_layers(original, graph)
    sites = find_sites(graph, passes, target).sites
    _add_neighbourhoods(collector, graph, sites, passes)
    found = collector.found(Path(model).name)
    if len(found.probes) < 2:
        reason = found.refusals[0] if found.refusals else "it has no operator"
        raise ModelError(f"{model}: nothing in it can be timed by itself: {reason}")
    return found


def _add_neighbourhoods(
    collector: ProbeCollector, graph: Graph, sites: Sequence[OfferedSite], passes: Sequence[Pass]
) -> None:
    groups, failed = neighbourhoods(graph, sites, passes)
    for reason in failed.values():
        collector.refuse(reason.reason)
    by_id = {offered.id: offered for offered in sites}
    by_name = {found.name: found for found in passes}
    for group in groups:
        key = structure_hash(group.query.baseline)
        collector.add(group.query.baseline, key, KEEP)
        for candidate in group.query.candidates.values():
            collector.add(candidate, key, CANDIDATE)
        offered = by_id[group.sites[0]]
        for rewritten, before in _in_whole_layers(graph, offered, by_name[offered.pass_name]):
            with contextlib.suppress(ActccError):  # the network's own layers say why
                collector.add_layers(rewritten, before)


def _in_whole_layers(
    graph: Graph, offered: OfferedSite, found: Pass
) -> Iterator[tuple[Graph, Graph]]:
    """A site with each candidate among the whole layers around it, and as it is.

    A neighbourhood cuts through layers; the layers of a rewritten network are whole.
    """
    around = set(offered.site.nodes)
    for name in offered.site.nodes:
        node = graph.node(name)
        around.update(n.name for t in node.inputs for n in t.inputs)
        around.update(n.name for t in node.outputs for n in t.outputs)
    try:
        part = extract(graph, whole_layers(graph, around))
    except ModelError:
        return  # its neighbourhood could not be extracted either, and was refused
    for candidate in offered.candidates:
        rewritten = part.copy()
        with contextlib.suppress(ActccError):  # refused with the neighbourhood's own reason
            apply_pass(found, rewritten, offered.site, candidate)
            yield rewritten, part


def describe(graph: Graph) -> str:
    """Operators in order and the sizes of what enters and leaves, in one line."""
    operators = [node.op for node in graph.nodes()]
    shown = "+".join(operators[:_OPERATORS_SHOWN])
    if len(operators) > _OPERATORS_SHOWN:
        shown += f"+{len(operators) - _OPERATORS_SHOWN} more"
    return f"{shown} {_sizes(graph, graph.inputs)} to {_sizes(graph, graph.outputs)}"


def _sizes(graph: Graph, tensors: Sequence[Tensor]) -> str:
    shapes = [graph.shape(tensor) or () for tensor in tensors]
    return ",".join("x".join(str(size) for size in shape) or "1" for shape in shapes)


def _nothing() -> Graph:
    """A graph that does nothing: what a call costs by itself."""
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, (1,)) for name in "xy"]
    node = helper.make_node("Neg", ["x"], ["y"], "call")
    graph = helper.make_graph([node], "call", values[:1], values[1:])
    model: onnx.ModelProto = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8
    )
    return Graph.load(model)
