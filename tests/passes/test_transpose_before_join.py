"""Transposes behind joined and flattened feature maps are done before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import Builder
from offering import NPU1, all_applied, survey
from onnx import TensorProto, helper, numpy_helper
from quantizing import CPU, kernels, seen

from actcc.errors import PassError
from actcc.graph import Graph
from actcc.graph.compare import compare
from actcc.neighbourhood import neighbourhoods
from actcc.pass_api import apply_candidates, apply_pass, find_sites
from actcc.passes.move_activation import MoveActivation
from actcc.passes.quantize_layers import QuantizeLayers
from actcc.passes.transpose_before_join import TransposeBeforeJoin
from actcc.runtime import random_feeds

MOVE = TransposeBeforeJoin()
QUANTIZE = QuantizeLayers()
CANDIDATE = "Transpose before Concat"
# Orders of N, C and the flattened rest.
ORDERS = [(0, 2, 1), (2, 0, 1), (1, 2, 0), (2, 1, 0), (1, 0, 2)]


@dataclass
class Head:
    """Maps of several sizes, joined, flattened, joined again and turned.

    Attributes:
        sizes: of each scale, behind batch and channels.
        channels: of the maps of each scale; together as many for all.
        told: the shape that a Reshape is given for a scale of `n` elements; None for all numbers.
    """

    sizes: Sequence[tuple[int, ...]] = ((4, 6), (2, 3))
    channels: Sequence[Sequence[int]] = ((4, 1, 3), (5, 3))
    order: tuple[int, ...] | None = (0, 2, 1)
    batch: int | str = 2
    told: Sequence[int] | None = None
    more: Sequence[onnx.NodeProto] = ()
    outputs: Sequence[str] = ("y",)

    def graph(self) -> Graph:
        inputs: list[Any] = []
        nodes: list[onnx.NodeProto] = []
        shapes, feeds = [], {}
        for scale, (size, counts) in enumerate(zip(self.sizes, self.channels, strict=True)):
            names = [f"x{scale}_{index}" for index in range(len(counts))]
            for name, count in zip(names, counts, strict=True):
                kind = TensorProto.FLOAT
                inputs.append(helper.make_tensor_value_info(name, kind, (self.batch, count, *size)))
                feeds[name] = (2, count, *size)
            joined = names[0]
            if len(names) > 1:
                joined = f"c{scale}"
                nodes.append(helper.make_node("Concat", names, [joined], joined, axis=1))
            told = self.told or (2, sum(counts), prod(size))
            shapes.append(numpy_helper.from_array(np.array(told, np.int64), f"s{scale}"))
            nodes.append(helper.make_node("Reshape", [joined, f"s{scale}"], [f"f{scale}"]))
        flat = [f"f{scale}" for scale in range(len(self.sizes))]
        read = flat[0]
        if len(flat) > 1:
            read = "joined"
            nodes.append(helper.make_node("Concat", flat, [read], read, axis=2))
        order = {} if self.order is None else {"perm": self.order}
        nodes.append(helper.make_node("Transpose", [read], ["y"], "turn", **order))
        results = [
            helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in self.outputs
        ]
        graph = helper.make_graph([*nodes, *self.more], "head", inputs, results, shapes)
        opsets = [helper.make_opsetid("", 17)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
        return Graph.load(model, feeds if isinstance(self.batch, str) else None)


def operators(graph: Graph) -> list[str]:
    return [node.op for node in graph.nodes()]


heads = st.builds(
    lambda channels, sizes, order: Head(sizes[: len(channels)], channels, order),
    st.lists(
        st.sampled_from([(8,), (1, 7), (3, 4, 1), (2, 2, 2, 2)]), min_size=1, max_size=3
    ).filter(lambda counts: len(counts) > 1 or len(counts[0]) > 1),
    st.sampled_from(
        [((4, 6), (2, 3), (1, 1)), ((5,), (1,), (3,)), ((2, 3, 4), (1, 3, 1), (2, 1, 1))]
    ),
    st.sampled_from([*ORDERS, None]),
)


@given(heads)
@settings(max_examples=40)
def test_outputs_are_the_same_to_the_bit(head: Head) -> None:
    graph = head.graph()
    (moved,) = all_applied(graph, MOVE, tolerance=0)
    found = operators(moved)
    maps = sum(map(len, head.channels))
    assert found.count("Transpose") == maps
    assert found[-1] in ("Concat", "Reshape")
    assert sorted(op for op in found if op != "Transpose") == sorted(
        op for op in operators(graph) if op != "Transpose"
    )


@pytest.mark.parametrize("told", [(0, 8, -1), (-1, 8, 24)])
def test_the_first_axis_may_have_any_size(told: Sequence[int]) -> None:
    head = Head(sizes=((4, 6), (6, 4)), batch="n", told=told)
    (site,) = survey(head.graph(), MOVE).sites
    moved = apply_candidates(head.graph(), [MOVE], [(site, CANDIDATE)])
    for batch in (1, 3):
        feeds = [
            {name: values[:1].repeat(batch, 0) for name, values in feed.items()}
            for feed in [random_feeds(head.graph(), 1)]
        ]
        assert compare(head.graph(), moved, feeds, optimise=False).worst_relative == 0


REFUSED = {
    "the first axis moves and has any size": Head(
        sizes=((4, 6), (6, 4)), batch="n", told=(-1, 8, 24), order=(1, 2, 0)
    ),
    "a Reshape splits an axis": Head(sizes=((4, 6),), channels=((4, 4),), told=(2, 4, 48)),
    "the first axis has no elements": Head(((3, 8),), ((0, 0),), batch=4, told=(-1, 3, 8)),
    "no Concat": Head(sizes=((4, 6),), channels=((8,),)),
    "what is turned is read by others": Head(
        more=[helper.make_node("Relu", ["joined"], ["z"])], outputs=("y", "z")
    ),
    "what is turned is an output": Head(outputs=("y", "joined")),
}


@pytest.mark.parametrize("head", REFUSED.values(), ids=list(REFUSED))
def test_left_as_it_is(head: Head) -> None:
    assert survey(head.graph(), MOVE).sites == ()


def test_what_others_read_is_turned_where_it_is() -> None:
    read = Head(more=[helper.make_node("Relu", ["c0"], ["z"])], outputs=("y", "z"))
    (moved,) = all_applied(read.graph(), MOVE, tolerance=0)
    assert operators(moved).count("Transpose") == 1 + len(read.channels[1])


def test_a_site_is_rewritten_once() -> None:
    graph = Head().graph()
    (site,) = find_sites(graph, [MOVE], NPU1).sites
    moved = apply_candidates(graph, [MOVE], [(site, CANDIDATE)])
    assert survey(moved, MOVE).sites == ()
    with pytest.raises(PassError, match="rewritten already"):
        apply_pass(MOVE, moved, site.site, site.candidate(CANDIDATE))


def test_a_join_that_comes_up_later_stays_where_it_is() -> None:
    build = Builder()
    maps = [build.conv("images", 3, 4, kernel=1) for _ in range(2)]
    x = build.add("Relu", build.add("Concat", *maps, axis=1))
    build.weights.append(numpy_helper.from_array(np.array([1, 8, 16]), "shape"))
    flat = [build.add("Reshape", x, "shape"), build.weight(np.ones((1, 8, 3)))]
    build.add("Transpose", build.add("Concat", *flat, axis=2), output="y", perm=[0, 2, 1])
    graph = Graph.load(build.model((1, 3, 4, 4), {"y": (1, 19, 8)}))
    both = [MoveActivation(), MOVE]
    chosen = find_sites(graph, both, NPU1, exact_only=True).first_candidates
    assert [site.pass_name for site, _ in chosen] == [found.name for found in both]
    rewritten = apply_candidates(graph, both, chosen)
    feeds = [random_feeds(graph, 1)]
    assert compare(graph, rewritten, feeds, optimise=False).worst_relative == 0
    assert operators(rewritten).count("Transpose") == len(flat)


def test_sizes_that_only_the_neighbourhood_knows_do_not_keep_the_price_away() -> None:
    kind, names = TensorProto.FLOAT, ("a", "b", "c", "d")
    shapes = [(1, 3, 4, 5)] * 2 + [(1, 3, "h", "w")] * 2
    inputs = [
        helper.make_tensor_value_info(name, kind, shape)
        for name, shape in zip(names, shapes, strict=True)
    ]
    nodes = []
    for scale, pair in enumerate(("ab", "cd")):
        nodes.append(helper.make_node("Concat", list(pair), [f"c{scale}"], f"c{scale}", axis=1))
        nodes.append(helper.make_node("Reshape", [f"c{scale}", "s"], [f"f{scale}"], f"f{scale}"))
    nodes.append(helper.make_node("Concat", ["f0", "f1"], ["joined"], "joined", axis=2))
    nodes.append(helper.make_node("Transpose", ["joined"], ["y"], "turn", perm=[0, 2, 1]))
    results = [helper.make_tensor_value_info("y", kind, None)]
    weights = [numpy_helper.from_array(np.array([1, 6, -1]), "s")]
    proto = helper.make_graph(nodes, "head", inputs, results, weights)
    opsets = [helper.make_opsetid("", 17)]
    model = helper.make_model(proto, opset_imports=opsets, ir_version=8)
    graph = Graph.load(model, dict.fromkeys(names, (1, 3, 4, 5)))
    (site,) = survey(graph, MOVE).sites
    assert site.site.nodes == ("c0", "f0", "joined", "turn")
    ((found,), failed) = neighbourhoods(graph, [site], [MOVE])
    assert not failed
    assert not found.failed


def detector() -> Graph:
    """Two scales of a box, an objectness and classes, as YOLOX writes them."""
    build = Builder()
    flat, x = [], "images"
    for size, channels in ((16, 3), (8, 16)):
        x = build.add("Relu", build.conv(x, channels, 16, stride=16 // size))
        maps = [build.conv(x, 16, 4, kernel=1)]
        maps += [build.add("Sigmoid", build.conv(x, 16, n, kernel=1)) for n in (1, 11)]
        shape = f"shape{size}"
        build.weights.append(numpy_helper.from_array(np.array([1, 16, size * size]), shape))
        flat.append(build.add("Reshape", build.add("Concat", *maps, axis=1), shape))
    build.add("Transpose", build.add("Concat", *flat, axis=2), output="y", perm=[0, 2, 1])
    return Graph.load(build.model((1, 3, 16, 16), {"y": (1, 320, 16)}))


def test_layers_in_int8_have_nothing_to_move_behind_them(tmp_path: Path) -> None:
    graph = detector()
    survey_ = find_sites(graph, [MOVE, QUANTIZE], CPU, samples=seen(graph))
    int8 = [s for s in survey_.sites if s.pass_name == QUANTIZE.name and s.site.kind == "Conv"]
    (turn,) = (s for s in survey_.sites if s.pass_name == MOVE.name)
    chosen = [(site, site.candidates[0].name) for site in int8]
    without = apply_candidates(graph, [QUANTIZE], chosen)
    turned = apply_candidates(graph, [MOVE], [(turn, CANDIDATE)])
    beside = apply_candidates(turned, [QUANTIZE], chosen)
    before, after = kernels(without, tmp_path), kernels(beside, tmp_path)
    assert before["QLinearConv"] == after["QLinearConv"]
    assert after["Transpose"] < before["Transpose"] - 4


def test_a_layer_whose_maps_are_joined_twice_is_priced_once() -> None:
    build = Builder()
    x = build.conv("images", 3, 4, kernel=1)
    joined = build.add("Concat", build.add("Sigmoid", x), build.add("Tanh", x), axis=1)
    build.weights.append(numpy_helper.from_array(np.array([1, 8, 16]), "shape"))
    build.add("Transpose", build.add("Reshape", joined, "shape"), output="y", perm=[0, 2, 1])
    graph = Graph.load(build.model((1, 3, 4, 4), {"y": (1, 16, 8)}))
    sites = find_sites(graph, [MOVE, QUANTIZE], CPU, samples=seen(graph)).sites
    (group,) = MOVE.neighbours(graph, sites)
    assert [site.site.kind for site, _ in group] == ["Conv", "Reshape+Concat+Transpose"]


def test_it_is_priced_together_with_what_writes_the_maps_in_int8() -> None:
    graph = detector()
    sites = find_sites(graph, [MOVE, QUANTIZE], CPU, samples=seen(graph)).sites
    groups = list(MOVE.neighbours(graph, sites))
    assert [len(members) for members in groups] == [4, 4, 7]
    assert {site.site.kind for site, _ in groups[-1][:-1]} == {"Conv"}
    assert {members[-1][0].pass_name for members in groups} == {MOVE.name}
