"""Max pooling in a chain or side by side."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from normalizing import graph_of
from offering import all_applied, survey

from actcc.graph import Graph
from actcc.passes.pooling_chain import PoolingChain

POOLING = PoolingChain()


def pool(size: int, reads: str, writes: str, more: str = "") -> str:
    before = (size - 1) // 2
    pads = [before, before, size - 1 - before, size - 1 - before]
    kernel = f"kernel_shape = [{size}, {size}], pads = {pads}"
    return f"{writes} = MaxPool <{kernel}{more}> ({reads})"


def joined(*pools: str, more: str = "") -> Graph:
    names = ", ".join(f"p{index}" for index in range(len(pools)))
    outputs = "y z" if more else "y"
    body = f"c = Neg(x) {' '.join(pools)} y = Concat <axis = 1> (c, {names}) {more}"
    return graph_of(body, (1, 3, 9, 7), outputs=outputs)


def kernels(graph: Graph) -> list[tuple[str, int]]:
    return sorted(
        (n.inputs[0].inputs[0].op, n.attrs["kernel_shape"][0]) for n in graph.nodes("MaxPool")
    )


def test_a_chain_becomes_parallel_pooling_of_larger_windows() -> None:
    chain = joined(pool(5, "c", "p0"), pool(5, "p0", "p1"), pool(5, "p1", "p2"))
    (result,) = all_applied(chain, POOLING, tolerance=0)
    assert kernels(result) == [("Neg", 5), ("Neg", 9), ("Neg", 13)]


def test_parallel_pooling_becomes_a_chain() -> None:
    parallel = joined(pool(13, "c", "p0"), pool(5, "c", "p1"), pool(9, "c", "p2"))
    (result,) = all_applied(parallel, POOLING, tolerance=0)
    assert kernels(result) == [("MaxPool", 5), ("MaxPool", 5), ("Neg", 5)]


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    st.lists(st.tuples(st.integers(1, 6), st.integers(-1, 3)), min_size=2, max_size=4),
)
def test_every_form_gives_the_same_bits(steps: list[tuple[int, int]]) -> None:
    pools = []
    for index, (size, before) in enumerate(steps):
        reads = "c" if before < 0 or not index else f"p{before % index}"
        pools.append(pool(size, reads, f"p{index}"))
    graph = joined(*pools)
    found = survey(graph, POOLING)
    assert found.sites or found.refusals
    all_applied(graph, POOLING, tolerance=0)


@pytest.mark.parametrize("mode", ["SAME_UPPER", "SAME_LOWER"])
def test_automatic_padding_is_written_out(mode: str) -> None:
    pools = [
        f'{w} = MaxPool <kernel_shape = [4, 3], auto_pad = "{mode}"> ({r})'
        for r, w in (("c", "p0"), ("p0", "p1"))
    ]
    assert len(all_applied(joined(*pools), POOLING, tolerance=0)) == 1


@pytest.mark.parametrize(
    ("graph", "reason"),
    [
        (joined(
            pool(3, "c", "p0", ", dilations = [1, 1], strides = [1, 1]"),
            "p1 = MaxPool <kernel_shape = [3, 3], pads = [2, 2, 2, 2], dilations = [2, 2]> (c)",
        ),
         "dilations"),
        (joined(pool(3, "c", "p0"), pool(3, "p0", "p1"), more="z = Relu(p1)"), "read elsewhere"),
        (joined(
            "p0 = MaxPool <kernel_shape = [1, 3], pads = [0, 1, 0, 1]> (c)",
            "p1 = MaxPool <kernel_shape = [3, 1], pads = [1, 0, 1, 0]> (c)",
        ), "no window holds"),
    ],
)  # fmt: skip
def test_what_is_not_offered_and_why(graph: Graph, reason: str) -> None:
    found = survey(graph, POOLING)
    assert not found.sites
    ((_, refusal),) = found.refusals
    assert reason in refusal.reason


def test_one_pooling_alone_is_no_site() -> None:
    found = survey(joined(pool(3, "c", "p0")), POOLING)
    assert not found.sites
    assert not found.refusals
