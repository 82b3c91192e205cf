"""Networks of one block each, between two layers, with what passes find in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from networks import Builder, images

from actcc.graph import Graph
from actcc.normalize import normalize
from actcc.pass_api import OfferedSite, Pass, apply_candidates, find_sites
from actcc.runtime import run, session
from actcc.targets import load_target

WIDTH = 8
Block = Callable[[Builder, str], str]


def inverted_residual(build: Builder, x: str, *, act: str = "Relu", residual: bool = True) -> str:
    inner = build.add(act, build.conv(x, WIDTH, 4 * WIDTH, kernel=1))
    inner = build.add(act, build.conv(inner, 4 * WIDTH, 4 * WIDTH, groups=4 * WIDTH))
    inner = build.conv(inner, 4 * WIDTH, WIDTH, kernel=1)
    return build.add("Add", x, inner) if residual else inner


def gated(build: Builder, x: str) -> str:
    inner = build.add("Relu", build.conv(x, WIDTH, 4 * WIDTH, kernel=1))
    inner = build.add("Relu", build.conv(inner, 4 * WIDTH, 4 * WIDTH, groups=4 * WIDTH))
    squeezed = build.add("Relu", build.conv(build.add("GlobalAveragePool", inner), 32, 8, 1))
    gate = build.add("Sigmoid", build.conv(squeezed, 8, 32, 1))
    return build.conv(build.add("Mul", inner, gate), 4 * WIDTH, WIDTH, kernel=1)


def bottleneck(build: Builder, x: str) -> str:
    inner = build.add("Relu", build.conv(x, WIDTH, 4, kernel=1))
    inner = build.silu(build.conv(inner, 4, 4))
    return build.add("Add", build.conv(inner, 4, WIDTH, kernel=1), x)


def pair(build: Builder, x: str) -> str:
    return build.conv(build.add("Relu", build.conv(x, WIDTH, WIDTH)), WIDTH, WIDTH)


def mlp(build: Builder, x: str) -> str:
    inner = build.add("Elu", build.conv(x, WIDTH, 4 * WIDTH, kernel=1))
    return build.conv(inner, 4 * WIDTH, WIDTH, kernel=1)


BLOCKS: Mapping[str, Block] = MappingProxyType(
    {
        "inverted residual": inverted_residual,
        "gated": gated,
        "bottleneck": bottleneck,
        "pair": pair,
        "mlp": mlp,
    }
)


def network(block: Block, size: int = 12) -> Graph:
    """An activation behind a layer, the block, and a layer behind an activation."""
    build = Builder()
    x = build.add("Tanh", build.conv("images", 3, WIDTH))
    x = build.add("Tanh", block(build, x))
    build.conv(x, WIDTH, 4, kernel=1)
    build.nodes[-1].output[0] = "map"
    model = build.model((1, 3, size, size), {"map": (1, 4, size, size)})
    return normalize(Graph.load(model)).graph


def offers(graph: Graph, found: Pass) -> dict[str, OfferedSite]:
    """Sites by what is there."""
    return {site.site.kind: site for site in find_sites(graph, [found], load_target("npu1")).sites}


def rewritten(graph: Graph, found: Pass, site: OfferedSite, candidate: str) -> Graph:
    return apply_candidates(graph, [found], [(site, candidate)])


def samples(count: int, seed: int = 1, size: int = 12) -> list[dict[str, np.ndarray]]:
    return [{"images": image[None]} for image in images(count, size, seed)]


def missed(original: Graph, other: Graph, feeds: list[dict[str, np.ndarray]]) -> float:
    """Share of the variance of the outputs that another network misses."""
    theirs, ours = (
        np.stack([run(session(graph), feed)["map"] for feed in feeds])
        for graph in (original, other)
    )
    return float(np.square(theirs - ours).mean() / theirs.var())
