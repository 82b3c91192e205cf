"""Linear branches of one tensor that are added."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from branching import Net
from hypothesis import given, settings
from hypothesis import strategies as st

from actcc.graph import Array, Graph, Interface, verify
from actcc.graph.compare import compare
from actcc.passes.merge_parallel_convolutions import MergeParallelConvolutions
from actcc.runtime import random_feeds

LARGER = "more weights than those it is made of"


def merged(
    graph: Graph, tolerance: float = 1e-5, feeds: dict[str, Array] | None = None
) -> tuple[list[str], list[str]]:
    """Operators and notes of the pass's result, which is verified and compared."""
    result, notes = MergeParallelConvolutions().run(graph.copy())
    verify(result, Interface.of(graph), ["merge-parallel-convolutions"])
    samples = [feeds or random_feeds(graph, 3)]
    assert compare(graph, result, samples, optimise=False).agrees(tolerance)
    return [node.op for node in result.nodes()], notes


def assert_merged(graph: Graph, tolerance: float = 1e-5) -> None:
    operators, notes = merged(graph, tolerance)
    assert operators == ["Conv"], notes


def assert_kept(graph: Graph, reason: str) -> None:
    before = graph.to_proto().graph.node
    result, notes = MergeParallelConvolutions().run(graph.copy())
    assert list(result.to_proto().graph.node) == list(before)
    if reason:
        assert len(notes) == 1
        assert reason in notes[0]
    else:
        assert not notes


@dataclass(frozen=True)
class Block:
    """Branches of a tensor of `size`, which all make outputs of one size."""

    groups: int
    width: int
    stride: int
    size: tuple[int, ...]
    kernel: tuple[int, ...]
    branches: tuple[str, ...]
    joined: str
    known_size: bool
    seed: int

    @property
    def channels(self) -> int:
        return self.groups * self.width

    def net(self) -> Net:
        net, rank = Net(self.seed), len(self.size)
        plain = {"strides": [self.stride] * rank}
        channels, one = self.channels, [1] * rank

        def largest(**more: Any) -> str:
            return net.conv("x", self.kernel, channels, group=self.groups, **plain, **more)

        make = {
            "conv": largest,
            "conv without bias": lambda: largest(bias=False),
            "conv, norm": lambda: net.norm(largest(), channels),
            "pointwise": lambda: net.conv("x", one, channels, group=self.groups, **plain),
            "depthwise": lambda: net.conv("x", one, channels, group=channels, **plain),
            "pool": lambda: net.pool("x", self.kernel, **plain),
            "norm, pointwise": lambda: net.conv(
                net.norm("x", channels), one, channels, group=self.groups, **plain
            ),
            "norm": lambda: net.norm("x", channels),
            "identity": lambda: "x",
        }
        terms = [largest(), *(make[name]() for name in self.branches)]
        if self.joined == "Sum":
            net.add("Sum", *terms)
        else:
            # The largest convolution joins at the end, as in `identity + (small + large)`.
            total = terms.pop()
            for term in terms:
                total = net.add("Add", term, total)
        return net


@st.composite
def blocks(draw: st.DrawFn) -> Block:
    rank = draw(st.integers(1, 3))
    stride = draw(st.integers(1, 2))
    kinds = ["conv", "conv without bias", "conv, norm", "pointwise", "depthwise", "pool"]
    kinds.append("norm, pointwise")
    if stride == 1:
        kinds += ["norm", "identity"]
    return Block(
        groups=draw(st.integers(1, 3)),
        width=draw(st.integers(1, 3)),
        stride=stride,
        size=tuple(draw(st.integers(3, 6)) for _ in range(rank)),
        kernel=tuple(draw(st.sampled_from([1, 3, 5])) for _ in range(rank)),
        branches=tuple(draw(st.lists(st.sampled_from(kinds), min_size=1, max_size=4))),
        joined=draw(st.sampled_from(["Add", "Sum"])),
        known_size=draw(st.booleans()),
        seed=draw(st.integers(0, 2**16)),
    )


@settings(max_examples=40, deadline=None, derandomize=True)
@given(blocks())
def test_branches_beside_a_convolution_of_the_largest_kernel_become_one(block: Block) -> None:
    spatial = block.size if block.known_size else tuple(f"s{i}" for i in range(len(block.size)))
    graph = block.net().graph((2, block.channels, *spatial))
    random = np.random.default_rng(block.seed)
    feeds = random.standard_normal((2, block.channels, *block.size)).astype(np.float32)
    operators, notes = merged(graph, feeds={"x": feeds})
    assert operators == ["Conv"], notes


@dataclass(frozen=True)
class Any1d:
    """Two convolutions of one axis whose outputs have the same size, however that comes."""

    size: int
    stride: int
    kernels: tuple[int, int]
    dilations: tuple[int, int]
    pads: tuple[tuple[int, int], tuple[int, int]]
    seed: int

    def outputs(self, index: int) -> int:
        room = self.size + sum(self.pads[index])
        room -= self.dilations[index] * (self.kernels[index] - 1) + 1
        return room // self.stride + 1 if room >= 0 else 0


@st.composite
def pairs_of_one_axis(draw: st.DrawFn) -> Any1d:
    def two(low: int, high: int) -> tuple[int, int]:
        return draw(st.integers(low, high)), draw(st.integers(low, high))

    stride = draw(st.integers(1, 3))
    made = st.builds(
        Any1d,
        st.integers(4, 9),
        st.just(stride),
        st.just(two(1, 4)),
        st.just(two(1, 3)),
        st.tuples(st.just(two(0, 4)), st.just(two(0, 4))),
        st.integers(0, 2**16),
    )
    return draw(made.filter(lambda pair: pair.outputs(0) == pair.outputs(1) > 0))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(pairs_of_one_axis())
def test_pads_and_dilations_need_not_be_written_alike(pair: Any1d) -> None:
    net = Net(pair.seed)
    terms = [
        net.conv("x", [k], 2, strides=[pair.stride], dilations=[d], pads=list(p))
        for k, d, p in zip(pair.kernels, pair.dilations, pair.pads, strict=True)
    ]
    net.add("Add", *terms)
    operators, notes = merged(net.graph((2, 2, pair.size)))
    assert operators == ["Conv"] or LARGER in notes[0]


def test_a_sum_that_adds_something_else_keeps_that() -> None:
    net = Net()
    other = net.add("Relu", "x")
    total = net.add("Add", net.conv(), other)
    net.add("Add", total, net.conv(kernel=(1, 1)))
    operators, notes = merged(net.graph())
    assert sorted(operators) == ["Add", "Conv", "Relu"]
    assert notes == ["merged 2 parallel branches into 1 Conv"]


def test_branches_of_two_tensors_become_two_convolutions() -> None:
    net = Net()
    other = net.add("Relu", "x")
    terms = [net.conv(), net.conv(kernel=(1, 1)), net.conv(other), other, net.norm(other)]
    net.add("Sum", *terms)
    operators, notes = merged(net.graph())
    assert sorted(operators) == ["Add", "Conv", "Conv", "Relu"]
    assert notes == ["merged 5 parallel branches into 2 Conv"]


def test_a_residual_connection_over_one_convolution_is_free() -> None:
    net = Net()
    net.add("Add", "x", net.conv())
    assert_merged(net.graph())
    net = Net()
    net.add("Add", net.conv(group=4), "x")
    assert_merged(net.graph())


def test_the_result_is_a_branch_of_the_next_sum() -> None:
    net = Net()
    relu = net.add("Relu", "x")
    inner = net.add("Add", net.conv(relu), relu)
    net.add("Relu", net.add("Add", inner, net.add("Add", net.conv(relu), net.norm(relu))))
    assert merged(net.graph())[0] == ["Relu", "Conv", "Relu"]


def test_a_kernel_of_even_size_is_laid_where_its_pads_put_it() -> None:
    net = Net()
    net.add("Add", net.conv(kernel=(2, 2), pads=[1, 0, 0, 1]), net.conv())
    assert_merged(net.graph())


def test_pads_that_follow_from_the_size_are_resolved() -> None:
    net = Net()
    same = {"auto_pad": "SAME_UPPER", "strides": [2, 2]}
    net.add("Add", net.conv(**same), net.conv(kernel=(1, 1), **same))
    assert_merged(net.graph((1, 4, 8, 8)))
    assert_kept(net.graph((1, 4, "h", "w")), "depends on a size that is not fixed")


def test_dilated_kernels_take_in_a_single_tap() -> None:
    net = Net()
    net.add("Add", net.conv(dilations=[2, 2]), "x")
    assert_merged(net.graph())


def test_half_precision_is_computed_in_double_and_cast_back() -> None:
    net = Net(element=np.float16)
    net.add("Add", net.conv(), net.conv(kernel=(1, 1)))
    assert_merged(net.graph(), tolerance=4e-3)


def test_shared_weights_stay_for_the_other_layer() -> None:
    net = Net()
    net.add("Add", net.conv(), "x", output="y")
    net.add("Conv", "x", "w0", output="z")
    graph = net.graph(outputs=["y", "z"])
    assert merged(graph)[0] == ["Conv", "Conv"]


def test_a_branch_that_is_read_elsewhere_is_not_taken() -> None:
    net = Net()
    small = net.conv(kernel=(1, 1))
    net.add("Add", net.conv(), small, output="y")
    net.add("Relu", small, output="z")
    assert_kept(net.graph(outputs=["y", "z"]), "")
    assert_kept(net.graph(outputs=["y", small]), "")


def test_a_larger_convolution_than_its_branches_is_not_made() -> None:
    net = Net()
    net.add("Add", net.conv(group=4), net.conv(kernel=(1, 1)))
    assert_kept(net.graph(), LARGER)
    net = Net()
    net.add("Add", net.conv(kernel=(3, 1)), net.conv(kernel=(1, 3)))
    assert_kept(net.graph(), LARGER)
    net = Net()
    net.add("Add", net.conv(kernel=(1, 1)), net.pool())
    assert_kept(net.graph(), LARGER)


def test_what_fits_is_merged_where_another_branch_does_not() -> None:
    net = Net()
    terms = [net.conv(group=4), "x", net.conv(kernel=(1, 1))]
    net.add("Sum", *terms)
    operators, notes = merged(net.graph())
    assert operators.count("Conv") == 2
    assert LARGER in notes[1]


def test_a_pool_that_does_not_count_its_padding_stays() -> None:
    net = Net()
    net.add("Add", net.conv(), net.pool(count_include_pad=0))
    assert_kept(net.graph(), "divides by fewer elements at the padded border")


def test_a_pool_whose_last_window_is_cut_stays() -> None:
    net = Net()
    pool = net.pool(kernel=(2, 2), pads=[0] * 4, strides=[2, 2], ceil_mode=1)
    net.add("Add", net.conv(strides=[2, 2]), pool)
    assert_kept(net.graph(), "reaches beyond the padding")
    assert_merged(net.graph((1, 4, 8, 8)))


def test_different_strides_stop_it() -> None:
    net = Net()
    net.add("Add", net.conv(strides=[7, 7]), net.conv(kernel=(7, 7), pads=[0] * 4))
    assert_kept(net.graph(), "their strides differ")


def test_outputs_that_are_broadcast_stop_it() -> None:
    net = Net()
    net.add("Add", net.conv(), net.conv(kernel=(7, 7), pads=[0] * 4))
    assert_kept(net.graph(), "outputs differ in size")
    net = Net()
    net.add("Add", net.conv(), net.conv(outputs=1))
    assert_kept(net.graph(), "different numbers of channels")


def test_a_bias_before_padding_stays_where_it_is() -> None:
    net = Net()
    inner = net.conv(net.conv(kernel=(1, 1)))
    net.add("Add", net.conv(kernel=(5, 5)), inner)
    assert_kept(net.graph(), "the first layer has a bias")


def test_training_mode_stops_it() -> None:
    net = Net()
    net.add("Add", net.conv(), net.norm(training_mode=1))
    result, notes = MergeParallelConvolutions().run(net.graph())
    assert "it is in training mode" in notes[0]
    assert "BatchNormalization" in [node.op for node in result.nodes()]


def test_weights_that_a_run_computes_stop_it() -> None:
    net = Net()
    kernel = net.add("Abs", net.weight(np.ones((4, 4, 3, 3))))
    net.add("Add", "x", net.add("Conv", "x", kernel, pads=[1] * 4))
    assert_kept(net.graph(), "weights or bias are not constant")


def test_quantized_layers_stay() -> None:
    net = Net()
    net.weights["q"] = np.ones((4, 4, 3, 3), np.int8)
    kernel = net.add("DequantizeLinear", "q", net.weight(np.float32(0.1)))
    net.add("Add", "x", net.add("Conv", "x", kernel, pads=[1] * 4))
    assert_kept(net.graph(), "weights or bias are not constant")


def test_weights_that_would_overflow_stop_it() -> None:
    net = Net(element=np.float16)
    net.add("Add", net.conv(), net.conv())
    for values in net.weights.values():
        values[:] = 6e4
    assert_kept(net.graph(), "would overflow")


@pytest.mark.parametrize("op", ["Mul", "Sub", "Max"])
def test_other_operators_are_not_sums(op: str) -> None:
    net = Net()
    net.add(op, net.conv(), "x")
    assert_kept(net.graph(), "")
