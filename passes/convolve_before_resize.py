"""Pointwise convolutions of an enlarged tensor are computed before it is enlarged.

    W ∗ Concat(R(x), y) + b  =  R(V ∗ x) + (U ∗ y + b)        W ∗ R(x) + b  =  R(W ∗ x + b)

V and U are the columns of W for the channels of x and y. R is a Resize or Upsample, which writes
means of pixels with the same weights for all channels (`actcc.linear.resizing`). A 1×1 convolution
is the same sum over channels at each pixel, so the two change places, the bias included, since the
weights of a mean add up to 1. Where R makes n pixels of one, there are n times fewer products with
V, and no Concat copies what R wrote; the Add is new, which runtimes compute within the convolution
before it. (The necks of YOLO, after Liu et al. 2018, PANet, section 3.1.)

Requires: all that reads the Concat, or R where there is none, are convolutions with constant
weights, one tap, stride 1, no padding and no groups; R enlarges and is read by the Concat alone. A
Concat may join several such tensors. Late, so that the repair fits layers that the original has.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np

from actcc.errors import PassError
from actcc.graph import Array, Graph, Node, Tensor
from actcc.graph.operators import ONNX_DOMAINS
from actcc.linear import (
    Convolution,
    Obstacle,
    Types,
    as_operands,
    convolution_of,
    element_of,
    fixed_channels,
    is_resize,
    only_read_by,
    resize_arguments,
    resize_obstacle,
    types_in_every_run,
)
from actcc.pass_api import Pass, rewrite
from actcc.site import Candidate, Refusal, Site
from actcc.targets import Target

_JOIN, _CHANNELS = "Concat", 1


@rewrite("convolve-before-resize", exact=True)
class ConvolveBeforeResize(Pass):
    """Resize, Concat, 1×1 Conv  →  1×1 Conv, Resize, Add."""

    late = True

    def sites(self, graph: Graph) -> Iterable[Site | Refusal]:
        """One site for all convolutions of one tensor, and why others are not offered."""
        types = types_in_every_run(graph)
        for node in graph.nodes():
            place = _place(graph, node, types)
            if isinstance(place, Obstacle):
                yield Refusal(node.outputs[0].name, place.reason)
            elif place is not None:
                yield place.site

    def candidates(self, site: Site, target: Target) -> Iterable[Candidate | Refusal]:
        """The other order."""
        yield Candidate("Conv before Resize")

    def apply(self, graph: Graph, site: Site, candidate: Candidate) -> None:
        """Write each convolution as the sum of its parts; what it read goes with the last."""
        node = graph.producer(graph.node(site.nodes[-1]).inputs[0])
        place = None if node is None else _place(graph, node, types_in_every_run(graph))
        if place is None or isinstance(place, Obstacle):
            raise PassError(
                f"site '{site.id}' was rewritten already; apply a plan to its own model"
            )
        parts = [part for part in place.parts if part.resize is not None]
        rest = [part for part in place.parts if part.resize is None]
        if len(rest) > 1:
            joined = graph.insert(_JOIN, [part.source for part in rest], axis=_CHANNELS)
            rest = [_Part(joined, np.concatenate([part.channels for part in rest]))]
        for layer, convolution in place.layers:
            _write(graph, layer, convolution, [*rest, *parts])


@dataclass(frozen=True, eq=False)
class _Part:
    """Some of the channels that convolutions read: `source`, enlarged if there is a `resize`."""

    source: Tensor
    channels: Array
    resize: Node | None = None


@dataclass(frozen=True, eq=False)
class _Place:
    """All convolutions of what `node` writes, and the parts of that in the order of channels."""

    node: Node
    parts: tuple[_Part, ...]
    layers: tuple[tuple[Node, Convolution], ...]

    @property
    def site(self) -> Site:
        resizes = [part.resize for part in self.parts if part.resize is not None]
        nodes = [*resizes, self.node] if self.node.op == _JOIN else resizes
        layers = [layer for layer, _ in self.layers]
        count = f"{len(layers)} Conv" if len(layers) > 1 else "Conv"
        kind = "+".join([*dict.fromkeys(node.op for node in nodes), count])
        reads, writes = resizes[0].inputs[0], layers[0].outputs[0]
        return Site([*nodes, *layers], reads, writes, kind, id=self.node.outputs[0].name)


def _place(graph: Graph, node: Node, types: Types) -> _Place | Obstacle | None:
    """The place at a Concat or Resize, why there is none, or None where nothing is resized."""
    if node.domain not in ONNX_DOMAINS or not (node.op == _JOIN or is_resize(node)):
        return None
    written = node.outputs[0]
    branches = list(node.inputs) if node.op == _JOIN else [written]
    resizes = [w for t in branches if (w := graph.producer(t)) is not None and is_resize(w)]
    layers = [reader for reader in graph.consumers(written) if reader.op == "Conv"]
    if not layers or not resizes:
        return None
    if not only_read_by(graph, written, len(layers)):
        return Obstacle("what the convolutions read is also read by others")
    convolutions: list[Convolution] = []
    for layer in layers:
        found = _pointwise(graph, layer, types)
        if isinstance(found, Obstacle):
            return found
        convolutions.append(found)
    if node.op == _JOIN and node.attrs["axis"] % (convolutions[0].rank + 2) != _CHANNELS:
        return Obstacle("the Concat does not join channels")
    parts = _parts(
        graph, branches, {r.name: _obstacle(graph, r, node, types) for r in resizes}, types
    )
    if isinstance(parts, Obstacle):
        return parts
    return _Place(node, tuple(parts), tuple(zip(layers, convolutions, strict=True)))


def _pointwise(graph: Graph, layer: Node, types: Types) -> Convolution | Obstacle:
    found = convolution_of(graph, layer, types)
    if isinstance(found, Obstacle):
        return Obstacle(f"'{layer.name}': {found.reason}")
    one_to_one = {*found.weights.shape[2:], *found.strides} == {1} and not any(found.pads)
    if one_to_one and found.groups == 1:
        return found
    return Obstacle(f"'{layer.name}' has several taps, a stride, padding or groups")


def _obstacle(graph: Graph, resize: Node, reader: Node, types: Types) -> str:
    """Why a Resize stays in front; empty where it does not."""
    if reader is not resize and not only_read_by(graph, resize.outputs[0]):
        return "what it writes is also read by others"
    sizes = [graph.types.get(tensor.name) for tensor in (resize.inputs[0], resize.outputs[0])]
    before, after = (s.elements if s is not None and s.is_static else None for s in sizes)
    if before is None or after is None:
        return "the sizes around it are not known; give them with --shape"
    return resize_obstacle(graph, resize, types) if before < after else "it does not enlarge"


def _parts(
    graph: Graph, branches: list[Tensor], obstacles: dict[str, str], types: Types
) -> list[_Part] | Obstacle:
    """The parts; why there are none, where nothing that is resized can be told apart."""
    if all(obstacles.values()):
        return Obstacle("; ".join(f"'{name}': {why}" for name, why in obstacles.items()))
    parts: list[_Part] = []
    start = 0
    for tensor in branches:
        count, writer = fixed_channels(tensor, types), graph.producer(tensor)
        if count is None:
            return Obstacle(f"the number of channels of '{tensor.name}' is not fixed")
        channels = np.arange(start, start + count)
        if writer is not None and obstacles.get(writer.name) == "":
            parts.append(_Part(writer.inputs[0], channels, writer))
        else:
            parts.append(_Part(tensor, channels))
        start += count
    return parts


def _write(graph: Graph, layer: Node, convolution: Convolution, parts: list[_Part]) -> None:
    """What adds up to a convolution, in its place; the first part has the bias."""
    written = Site([layer], layer.inputs[0], layer.outputs[0])
    element, stem, bias = element_of(graph, layer), layer.inputs[1].name, convolution.bias
    terms: list[Tensor] = []
    for part in parts:
        share = replace(convolution, weights=convolution.weights[:, part.channels], bias=bias)
        inputs, attributes = as_operands(graph, share, part.source, element, stem)
        term, bias = graph.insert("Conv", inputs, **attributes), np.zeros_like(bias)
        if part.resize is not None:
            operands = [term, *resize_arguments(graph, part.resize, convolution.outputs)]
            if len(parts) == 1:
                graph.replace(written, part.resize.op, operands, **part.resize.attrs)
                return
            term = graph.insert(part.resize.op, operands, **part.resize.attrs)
        terms.append(term)
    while len(terms) > 2:
        terms[:2] = [graph.insert("Add", terms[:2])]
    graph.replace(written, "Add", terms)
