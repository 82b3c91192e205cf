"""Max pooling with several windows of one tensor: one behind another, or side by side.

    SPPF:  y₁ = P_k(x), y₂ = P_k(y₁), y₃ = P_k(y₂)    =    SPP:  P_k(x), P_{2k-1}(x), P_{3k-2}(x)

A maximum of maxima is that of the union of the windows: kernels k and l one behind the other cover
k + l - 1, and pads add up. With stride 1 and padding that keeps the size (together k - 1), the
union at the border is the same too, since padding never wins. A chain compares less (k² elements
each time), parallel pooling does not wait; the prices say what either costs. (He et al. 2015, SPP;
Jocher 2021, SPPF.)

Requires: stride 1, no dilation, padding that keeps the size, no indices; the pooled tensors meet in
one Concat and are read nowhere else.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from actcc.errors import PassError
from actcc.graph import Graph, Node, Tensor
from actcc.linear.linear_layer import only_read_by
from actcc.pass_api import Pass, rewrite
from actcc.site import Candidate, Refusal, Site
from actcc.targets import Target

_CHAIN, _PARALLEL = "chain", "parallel"
_QUANTIZED = ("QuantizeLinear", "DequantizeLinear")


@rewrite("pooling-chain", exact=True)
class PoolingChain(Pass):
    """MaxPool behind MaxPool  ⇄  MaxPool with larger windows beside each other."""

    def sites(self, graph: Graph) -> Iterable[Site | Refusal]:
        """One site for each Concat of at least two poolings of one tensor."""
        for join in graph.nodes("Concat"):
            found = _pooled(graph, join)
            if isinstance(found, Refusal):
                yield found
            elif found is not None:
                kind = f"{len(found.nodes)} MaxPool {found.form}"
                nodes = [*found.nodes, join]
                yield Site(nodes, found.source, join.outputs[0], kind, {"form": found.form})

    def candidates(self, site: Site, target: Target) -> Iterable[Candidate | Refusal]:
        """The other form; both where the present one is neither."""
        for form in (_CHAIN, _PARALLEL):
            if form != site.facts["form"]:
                yield Candidate(form, computes=_CHAIN)

    def apply(self, graph: Graph, site: Site, candidate: Candidate) -> None:
        """Write the pooled tensors in the other form and join them instead."""
        join = graph.producer(site.writes)
        found = None if join is None else _pooled(graph, join)
        if join is None or found is None or isinstance(found, Refusal):
            raise PassError(
                f"site '{site.id}' was rewritten already; apply a plan to its own model"
            )
        written: dict[_Window, Tensor] = {}
        before, source = _Window.single(len(found.windows[0].kernel)), found.source
        for window in sorted(set(found.windows), key=lambda window: window.kernel):
            step = window.beyond(before) if candidate.name == _CHAIN else window
            written[window] = graph.insert(
                "MaxPool",
                [source],
                kernel_shape=list(step.kernel),
                strides=[1] * len(step.kernel),
                pads=[*step.before, *step.behind],
            )
            if candidate.name == _CHAIN:
                before, source = window, written[window]
        pooled = {
            node.outputs[0].name: w for node, w in zip(found.nodes, found.windows, strict=True)
        }
        inputs = [
            written[pooled[tensor.name]] if tensor.name in pooled else tensor
            for tensor in join.inputs
        ]
        graph.replace(site, "Concat", inputs, **join.attrs)


@dataclass(frozen=True)
class _Window:
    """Kernel and padding along each axis."""

    kernel: tuple[int, ...]
    before: tuple[int, ...]
    behind: tuple[int, ...]

    @classmethod
    def single(cls, axes: int) -> _Window:
        """One element."""
        return cls((1,) * axes, (0,) * axes, (0,) * axes)

    @property
    def keeps_size(self) -> bool:
        """Whether there are as many results as elements."""
        sides = zip(self.kernel, self.before, self.behind, strict=True)
        return all(size - 1 == before + behind for size, before, behind in sides)

    def then(self, other: _Window) -> _Window:
        """The window of both, one behind the other."""
        return _Window(
            tuple(a + b - 1 for a, b in zip(self.kernel, other.kernel, strict=True)),
            _sums(self.before, other.before),
            _sums(self.behind, other.behind),
        )

    def beyond(self, inner: _Window) -> _Window:
        """What has to follow `inner` to give this one."""
        return _Window(
            tuple(a - b + 1 for a, b in zip(self.kernel, inner.kernel, strict=True)),
            tuple(a - b for a, b in zip(self.before, inner.before, strict=True)),
            tuple(a - b for a, b in zip(self.behind, inner.behind, strict=True)),
        )

    def holds(self, inner: _Window) -> bool:
        """Whether the window reaches at least as far on every side."""
        rest = self.beyond(inner)
        return min(*rest.kernel, *(pad + 1 for pad in (*rest.before, *rest.behind))) >= 1


def _sums(first: Sequence[int], second: Sequence[int]) -> tuple[int, ...]:
    return tuple(a + b for a, b in zip(first, second, strict=True))


@dataclass(frozen=True)
class _Pooled:
    """Poolings of one tensor, and the window of each on that tensor."""

    source: Tensor
    nodes: tuple[Node, ...]
    windows: tuple[_Window, ...]
    form: str


def _pooled(graph: Graph, join: Node) -> _Pooled | Refusal | None:
    direct = [graph.producer(tensor) for tensor in join.inputs]
    pools = [node for node in direct if node is not None and node.op == "MaxPool"]
    if sum(_is_quantized_pool(graph, node) for node in direct) > 1:
        return Refusal(join.name, "poolings inside QDQ: their scales were calibrated one by one")
    names = {node.name for node in pools}
    if len(names) < 2:
        return None
    windows: dict[str, _Window] = {}
    roots: dict[str, Tensor] = {}
    for pool in (node for node in graph.nodes("MaxPool") if node.name in names):
        own = _window(pool)
        if own is None:
            return Refusal(
                join.name, f"'{pool.name}' has strides, dilations, indices or other pads"
            )
        writer = graph.producer(pool.inputs[0])
        behind = writer is not None and writer.name in windows
        windows[pool.name] = windows[writer.name].then(own) if behind and writer else own
        roots[pool.name] = roots[writer.name] if behind and writer else pool.inputs[0]
    if len({id(root) for root in roots.values()}) > 1:
        return None
    nodes = tuple(graph.node(name) for name in windows)
    for node in nodes:
        inside = [n for n in graph.consumers(node.outputs[0]) if n is join or n.name in windows]
        count = sum(read is node.outputs[0] for n in inside for read in n.inputs)
        if not only_read_by(graph, node.outputs[0], count):
            return Refusal(join.name, f"'{node.outputs[0].name}' is also read elsewhere")
    ordered = sorted(windows.values(), key=lambda window: window.kernel)
    if any(not b.holds(a) for a, b in itertools.pairwise(ordered)):
        return Refusal(join.name, "no window holds the others")
    return _Pooled(next(iter(roots.values())), nodes, tuple(windows.values()), _form(graph, nodes))


def _form(graph: Graph, nodes: Sequence[Node]) -> str:
    """How the poolings read each other now; empty for a mixture."""
    reads = [node.inputs[0] for node in nodes]
    if all(tensor is reads[0] for tensor in reads):
        return _PARALLEL
    follows = all(b.inputs[0] is a.outputs[0] for a, b in itertools.pairwise(nodes))
    return _CHAIN if follows else ""


def _window(pool: Node) -> _Window | None:
    """Kernel and padding of a pooling that keeps the size; None for others."""
    kernel = tuple(pool.attrs["kernel_shape"])
    axes = len(kernel)
    steps = [*pool.attrs.get("strides", [1]), *pool.attrs.get("dilations", [1])]
    if max(steps) > 1 or any(not tensor.is_empty() for tensor in pool.outputs[1:]):
        return None
    automatic = pool.attrs.get("auto_pad", "NOTSET")
    text = automatic.decode() if isinstance(automatic, bytes) else automatic
    pads = tuple(pool.attrs.get("pads", [0] * (2 * axes)))
    before, behind = pads[:axes], pads[axes:]
    if text.startswith("SAME"):
        smaller = tuple((size - 1) // 2 for size in kernel)
        larger = tuple(size - 1 - half for size, half in zip(kernel, smaller, strict=True))
        before, behind = (smaller, larger) if text == "SAME_UPPER" else (larger, smaller)
    window = _Window(kernel, before, behind)
    return window if window.keeps_size and text != "VALID" else None


def _is_quantized_pool(graph: Graph, node: Node | None) -> bool:
    while node is not None and node.op in _QUANTIZED:
        node = graph.producer(node.inputs[0])
        if node is not None and node.op == "MaxPool":
            return True
    return False
