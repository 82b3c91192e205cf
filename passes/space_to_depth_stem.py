"""Space-to-depth and a convolution as one convolution of larger stride (the Focus stem of YOLO).

    phases x[:, :, r::s, q::s] side by side as channels, then Conv k×k  =  Conv (s·k)×(s·k) of x

    V[m, c, s·i + r, s·j + q] = W[m, p·C + c, i, j]   p: place of the phase (r, q) in the Concat

with s times the strides and pads. Exact, with as many multiplications: where the phases are copied
for nothing it pays, where a device is slow at few input channels or large strides it does not, so
the price decides. (Focus: Jocher 2020, YOLOv5, which replaced it by the convolution in release 6.)

Written as SpaceToDepth, or as a Concat of Slices, one after another or over both axes at once, in
any order of the phases. Requires: every phase once; groups 1, no dilation and no auto_pad=SAME;
constant weights; no tensor between is read elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from actcc.errors import PassError
from actcc.graph import Array, Graph, Node, Tensor
from actcc.graph.operators import ONNX_DOMAINS
from actcc.linear.linear_layer import linear_layer, only_read_by
from actcc.pass_api import Pass, rewrite
from actcc.site import Candidate, Refusal, Site
from actcc.targets import Target

_ROWS, _COLUMNS = 2, 3


@rewrite("space-to-depth-stem", exact=True)
class SpaceToDepthStem(Pass):
    """Space-to-depth, then Conv  →  one strided Conv."""

    def sites(self, graph: Graph) -> Iterable[Site | Refusal]:
        """One site for each convolution behind phases of one tensor."""
        for layer in graph.nodes("Conv"):
            phases = _phases(graph, layer.inputs[0])
            if phases is None:
                continue
            reason = _obstacle(graph, layer, phases)
            if reason:
                yield Refusal(layer.name, reason)
                continue
            size = f"{phases.step}x{phases.step}"
            nodes = [*phases.nodes, layer]
            yield Site(nodes, phases.source, layer.outputs[0], f"SpaceToDepth {size}+Conv")

    def candidates(self, site: Site, target: Target) -> Iterable[Candidate | Refusal]:
        """The one equal convolution."""
        yield Candidate("strided convolution")

    def apply(self, graph: Graph, site: Site, candidate: Candidate) -> None:
        """Spread the weights over the phases."""
        layer = graph.producer(site.writes)
        phases = None if layer is None else _phases(graph, layer.inputs[0])
        weights = None if layer is None else graph.constant(layer.inputs[1])
        if layer is None or phases is None or weights is None:
            raise PassError(
                f"site '{site.id}' was rewritten already; apply a plan to its own model"
            )
        spread = _spread(weights, phases)
        axes = len(weights.shape) - 2
        given = {"strides": [1] * axes, "pads": [0] * (2 * axes), **layer.attrs}
        graph.replace(
            site,
            "Conv",
            [phases.source, spread, *layer.inputs[2:]],
            kernel_shape=list(spread.shape[2:]),
            strides=[phases.step * stride for stride in given["strides"]],
            pads=[phases.step * pad for pad in given["pads"]],
        )


@dataclass(frozen=True)
class _Phases:
    """Phases of one tensor, (row, column) in the order of their channels."""

    source: Tensor
    step: int
    offsets: tuple[tuple[int, int], ...]
    nodes: tuple[Node, ...]


def _spread(weights: Array, phases: _Phases) -> Array:
    outputs, channels, rows, columns = weights.shape
    step = phases.step
    each = channels // len(phases.offsets)
    spread = np.zeros((outputs, each, step * rows, step * columns), weights.dtype)
    for place, (row, column) in enumerate(phases.offsets):
        part = weights[:, place * each : (place + 1) * each]
        spread[:, :, row::step, column::step] = part
    return spread


def _phases(graph: Graph, tensor: Tensor) -> _Phases | None:
    writer = graph.producer(tensor)
    if writer is None or writer.domain not in ONNX_DOMAINS:
        return None
    if writer.op == "SpaceToDepth":
        step = int(writer.attrs["blocksize"])
        offsets = tuple((row, column) for row in range(step) for column in range(step))
        return _Phases(writer.inputs[0], step, offsets, (writer,))
    if writer.op != "Concat" or writer.attrs.get("axis") not in (1, -3) or len(writer.inputs) < 2:
        return None
    shape = graph.shape(tensor)
    parts = [_phase(graph, part) for part in writer.inputs]
    found = [part for part in parts if part is not None]
    if shape is None or len(shape) != 4 or len(found) != len(parts):
        return None
    same = {(id(part.source), part.step) for part in found}
    if len(same) != 1:
        return None
    nodes = dict.fromkeys(node.name for part in found for node in part.nodes)
    return _Phases(
        found[0].source,
        found[0].step,
        tuple(part.offset for part in found),
        (*(graph.node(name) for name in nodes), writer),
    )


@dataclass(frozen=True)
class _Phase:
    source: Tensor
    step: int
    offset: tuple[int, int]
    nodes: tuple[Node, ...]


def _phase(graph: Graph, tensor: Tensor) -> _Phase | None:
    """What rows and columns of which tensor a chain of Slices selects."""
    selected: dict[int, tuple[int, int]] = {}
    nodes: list[Node] = []
    while (writer := graph.producer(tensor)) is not None and writer.op == "Slice":
        read = _slice(graph, writer)
        if read is None or set(read) & set(selected):
            return None
        selected |= read
        nodes.insert(0, writer)
        tensor = writer.inputs[0]
    if set(selected) != {_ROWS, _COLUMNS}:
        return None
    (row, step), (column, other) = selected[_ROWS], selected[_COLUMNS]
    if step != other or step < 2 or max(row, column) >= step:
        return None
    return _Phase(tensor, step, (row, column), tuple(nodes))


def _slice(graph: Graph, node: Node) -> dict[int, tuple[int, int]] | None:
    """First index and step along each axis; None where not all to the end is taken."""
    values = [graph.argument(node, name) for name in ("starts", "ends", "axes", "steps")]
    starts, ends, axes, steps = (None if v is None else np.ravel(v).tolist() for v in values)
    shape = graph.shape(node.inputs[0])
    if starts is None or ends is None or steps is None or shape is None or len(shape) != 4:
        return None
    read: dict[int, tuple[int, int]] = {}
    for index, (start, end, step) in enumerate(zip(starts, ends, steps, strict=True)):
        axis = (index if axes is None else axes[index]) % 4
        size = shape[axis]
        known = isinstance(size, int) and not graph.input_shapes  # for every run
        if start < 0 or end < (size if known else np.iinfo(np.int32).max):
            return None
        read[axis] = (start, step)
    return read


def _obstacle(graph: Graph, layer: Node, phases: _Phases) -> str:
    step = phases.step
    if len(set(phases.offsets)) != step * step or len(phases.offsets) != step * step:
        return f"it reads {len(set(phases.offsets))} of {step * step} phases"
    read = linear_layer(graph, layer)
    if isinstance(read, str) or read is None:
        return read or "no convolution"
    if layer.attrs.get("group", 1) != 1 or max(layer.attrs.get("dilations", [1])) > 1:
        return "the convolution has groups or dilations"
    automatic = layer.attrs.get("auto_pad", "NOTSET")
    if automatic not in ("NOTSET", "VALID", b"NOTSET", b"VALID"):
        return "the convolution pads by auto_pad"
    between = [tensor for node in phases.nodes for tensor in node.outputs]
    if not all(only_read_by(graph, tensor, _inside(tensor, phases, layer)) for tensor in between):
        return "a phase is also read elsewhere"
    return ""


def _inside(tensor: Tensor, phases: _Phases, layer: Node) -> int:
    return sum(read is tensor for node in (*phases.nodes, layer) for read in node.inputs)
