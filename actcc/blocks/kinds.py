"""What kind of block the layers of a chain make up, by kernels, groups and widths alone.

| kind | layers |
| --- | --- |
| inverted residual | 1×1 to more channels, depthwise k×k, 1×1 to fewer (Sandler et al. 2018) |
| bottleneck | 1×1 to fewer channels, k×k, 1×1 to more (He et al. 2016) |
| bottleneck pair | 1×1, k×k: the bottleneck of a C3 or C2f |
| separable pair | depthwise k×k, 1×1, or the other way about |
| convolution pair | k×k, k×k |
| MLP | two fully connected layers, or 1×1 convolutions, wider in between |

Batch normalization is folded before, activations may be spelled in any way, and quantize and
dequantize nodes are passed over.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from actcc.blocks.chains import Chain, Link, find_chains
from actcc.blocks.gates import find_gates
from actcc.errors import PricingError
from actcc.graph import Graph, Node
from actcc.graph.macs import node_macs


@dataclass(frozen=True)
class Block:
    """Layers that belong together.

    Attributes:
        kind: see the module.
        layers: names of its layers in order.
        nodes: names of all its nodes, without those behind its last layer.
        shapes: kernels and channels, "1x1 16→96, dw 3x3 96, 1x1 96→24".
        has_gate: whether a squeeze-and-excitation stands in it.
        has_residual: whether what it reads is added to what it gives.
        macs: products of its layers; None where a shape is not known.
    """

    kind: str
    layers: tuple[str, ...]
    nodes: tuple[str, ...]
    shapes: str
    has_gate: bool
    has_residual: bool
    macs: int | None


@dataclass(frozen=True)
class LayerShape:
    """What a layer looks like from outside.

    Attributes:
        kernel: taps a spatial axis; none for a fully connected layer.
        inputs, outputs: channels.
    """

    kernel: tuple[int, ...]
    inputs: int
    outputs: int
    groups: int

    @property
    def is_pointwise(self) -> bool:
        """Whether it maps each position by itself."""
        return self.groups == 1 and math.prod(self.kernel) == 1

    @property
    def is_depthwise(self) -> bool:
        """Whether each channel is mapped by itself."""
        return self.groups == self.inputs > 1

    @property
    def is_spatial(self) -> bool:
        """Whether it maps several positions, and channels together."""
        return math.prod(self.kernel) > 1 and not self.is_depthwise

    @property
    def widens(self) -> bool:
        """Whether it writes more channels than it reads."""
        return self.outputs > self.inputs

    @property
    def narrows(self) -> bool:
        """Whether it writes fewer."""
        return self.outputs < self.inputs

    def __str__(self) -> str:
        kernel = "x".join(str(taps) for taps in self.kernel) or "full"
        if self.is_depthwise:
            return f"dw {kernel} {self.outputs}"
        groups = f" /{self.groups}" if self.groups > 1 else ""
        return f"{kernel} {self.inputs}→{self.outputs}{groups}"


_Rule = tuple[str, int, Callable[[Sequence[LayerShape]], bool]]
# In the order in which they are tried: the longest first.
_RULES: tuple[_Rule, ...] = (
    (
        "inverted residual",
        3,
        lambda s: s[0].is_pointwise and s[1].is_depthwise and s[2].is_pointwise and s[2].narrows,
    ),
    (
        "bottleneck",
        3,
        lambda s: s[0].is_pointwise and s[1].is_spatial and s[2].is_pointwise and s[2].widens,
    ),
    ("MLP", 2, lambda s: s[0].is_pointwise and s[1].is_pointwise and s[0].widens and s[1].narrows),
    ("separable pair", 2, lambda s: s[0].is_depthwise and s[1].is_pointwise),
    ("separable pair", 2, lambda s: s[0].is_pointwise and s[1].is_depthwise),
    ("bottleneck pair", 2, lambda s: s[0].is_pointwise and s[1].is_spatial),
    ("convolution pair", 2, lambda s: s[0].is_spatial and s[1].is_spatial),
)


def find_blocks(graph: Graph) -> list[Block]:
    """Blocks in topological order; no layer is in two of them."""
    inside_gates = {name for gate in find_gates(graph) for name in gate.nodes}
    found: list[Block] = []
    for chain in find_chains(graph):
        links = [link for link in chain if link.layer not in inside_gates]
        at = 0
        while at < len(links):
            block = _block(graph, links[at:])
            if block is not None:
                found.append(block)
            at += 1 if block is None else len(block.layers)
    return found


def _block(graph: Graph, links: Sequence[Link]) -> Block | None:
    """The block that begins with the first link."""
    for kind, count, fits in _RULES:
        shapes = [layer_shape(graph, link) for link in links[:count]]
        known = [shape for shape in shapes if shape is not None]
        if len(known) < count or not fits(known):
            continue
        members = tuple(links[:count])
        nodes = [name for link in members[:-1] for name in link.nodes]
        nodes += members[-1].nodes[: members[-1].own]
        residual = residual_of(graph, members)
        return Block(
            kind,
            tuple(link.layer for link in members),
            (*nodes, *([] if residual is None else [residual.name])),
            ", ".join(map(str, known)),
            any(link.gated for link in members[:-1]),
            residual is not None,
            _macs(graph, members),
        )
    return None


def residual_of(graph: Graph, links: Chain) -> Node | None:
    """The Add of what the first layer reads to what the last one gives, if that is all its use."""
    first, last = links[0], links[-1]
    given = graph.tensor(last.gives)
    readers = graph.consumers(given)
    if not last.is_bare or len(readers) != 1 or graph.is_output(given):
        return None
    names = sorted(tensor.name for tensor in readers[0].inputs)
    same = readers[0].op == "Add" and names == sorted([first.reads, last.gives])
    return readers[0] if same and graph.shape(first.reads) == graph.shape(last.gives) else None


def layer_shape(graph: Graph, link: Link) -> LayerShape | None:
    """Kernel and channels of a link's layer; None where the shape of its weights says neither."""
    node = graph.node(link.layer)
    weights = graph.shape(node.inputs[1])
    if weights is None or not all(isinstance(size, int) for size in weights):
        return None
    sizes = [int(size) for size in weights if size is not None]
    if node.op == "Conv" and len(sizes) > 2:
        groups = int(node.attrs.get("group", 1))
        return LayerShape(tuple(sizes[2:]), sizes[1] * groups, sizes[0], groups)
    if node.op in ("Gemm", "MatMul") and len(sizes) == 2:
        inputs, outputs = sizes if not node.attrs.get("transB", 0) else sizes[::-1]
        return LayerShape((), inputs, outputs, 1)
    return None


def _macs(graph: Graph, links: Chain) -> int | None:
    try:
        return sum(node_macs(graph, graph.node(link.layer)) for link in links)
    except PricingError:
        return None
