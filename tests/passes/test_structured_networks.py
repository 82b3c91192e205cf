"""Whole networks as they are trained, in the form in which they run."""

from __future__ import annotations

from collections import Counter

import pytest
from structured_networks import BLOCKS, SMALL, network_of_blocks

from actcc.graph import Graph
from actcc.graph.compare import compare
from actcc.normalize import normalize
from actcc.runtime import random_feeds

pytestmark = pytest.mark.usefixtures("simplify_here")


def operators(graph: Graph) -> Counter[str]:
    return Counter(node.op for node in graph.nodes())


COUNT = sum(stage.blocks for stage in SMALL)
TAIL = {"GlobalAveragePool": 1, "Flatten": 1, "MatMul": 1}
AFTER = {
    "repvgg": {"Conv": COUNT, "Relu": COUNT, **TAIL},
    "qarepvgg": {"Conv": COUNT, "Relu": COUNT, **TAIL},
    "mobileone": {"Conv": 2 * COUNT, "Relu": 2 * COUNT, **TAIL},
    # Three of the blocks have a convolution in their shortcut, which reads another tensor.
    "residual": {"Conv": 2 * COUNT + 3, "Relu": 2 * COUNT, "Add": COUNT, **TAIL},
}


@pytest.mark.parametrize("block", BLOCKS)
def test_blocks_come_out_in_the_form_in_which_they_run(block: str) -> None:
    graph = Graph.load(network_of_blocks(block))
    result = normalize(graph)
    assert operators(result.graph) == AFTER[block], result.notes
    feeds = [random_feeds(graph, 1)]
    assert compare(graph, result.graph, feeds, optimise=False).agrees(1e-5)


@pytest.mark.parametrize("block", ["repvgg", "qarepvgg", "mobileone"])
def test_blocks_are_merged_without_simplifier(block: str) -> None:
    """onnx-simplifier folds BatchNormalization as well; none of this depends on it."""
    graph = Graph.load(network_of_blocks(block))
    result = normalize(graph, skip=["simplify"])
    assert operators(result.graph) == AFTER[block], result.notes


def test_a_merge_is_said() -> None:
    notes = normalize(Graph.load(network_of_blocks("repvgg"))).notes
    assert ("merge-parallel-convolutions", "merged 15 parallel branches into 6 Conv") in notes
