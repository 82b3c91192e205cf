"""The activation of a narrow layer goes, and no other."""

from __future__ import annotations

from block_networks import WIDTH, network, rewritten
from networks import Builder

from actcc.pass_api import find_sites
from actcc.passes.linear_bottleneck import LinearBottleneck
from actcc.targets import load_target

LINEAR = LinearBottleneck()


def narrowing(build: Builder, x: str) -> str:
    inner = build.silu(build.conv(x, WIDTH, 3, kernel=1))
    inner = build.silu(build.conv(inner, 3, WIDTH))
    return build.silu(build.conv(inner, WIDTH, WIDTH, kernel=1))


def test_the_activation_of_the_narrow_layer_alone_is_offered() -> None:
    graph = network(narrowing)
    (site,) = find_sites(graph, [LINEAR], load_target("npu1")).sites
    assert graph.shape(site.site.writes) == (1, 3, 12, 12)
    before = sum(node.op == "Sigmoid" for node in graph.nodes())
    linear = rewritten(graph, LINEAR, site, "Identity")
    assert sum(node.op == "Sigmoid" for node in linear.nodes()) == before - 1


def test_where_no_layer_is_narrow_nothing_is_offered() -> None:
    def wide(build: Builder, x: str) -> str:
        return build.conv(build.silu(build.conv(x, WIDTH, WIDTH)), WIDTH, WIDTH)

    assert find_sites(network(wide), [LINEAR], load_target("npu1")).sites == ()
