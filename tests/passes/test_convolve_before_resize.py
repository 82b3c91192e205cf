"""1×1 convolutions of enlarged tensors."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from offering import NPU1, all_applied, survey
from onnx import helper

from actcc import optimize
from actcc.errors import PassError
from actcc.graph import Graph
from actcc.graph.compare import compare
from actcc.pass_api import apply_pass, find_sites
from actcc.passes.convolve_before_resize import ConvolveBeforeResize
from actcc.passes.swap_activation import SwapActivation
from actcc.rewriting import rewrite_network
from actcc.runtime import random_feeds

MOVE = ConvolveBeforeResize()
CANDIDATE = "Conv before Resize"
DOUBLED = {
    "mode": "nearest",
    "nearest_mode": "floor",
    "coordinate_transformation_mode": "asymmetric",
}


@dataclass
class Neck:
    """Convolutions of joined tensors, some of them resized; to be changed, then made a graph.

    Attributes:
        sources: channels and size of each tensor.
        size: of what is joined; a source of another size is resized.
        told: how a Resize is told the size: "scales"; "sizes"; those of "axes" behind the channels,
            or of "channels" and what is behind them.
        layers: output channels of each convolution.
        channels: that the convolutions read, where they are not those of the sources.
    """

    sources: Sequence[tuple[int, tuple[int, ...]]] = ((4, (3, 4)), (3, (6, 8)))
    size: tuple[int, ...] = (6, 8)
    layers: Sequence[int] = (5, 2)
    told: str = "scales"
    bias: bool = True
    opset: int = 13
    batch: int | str = 2
    element: Any = np.float32
    channels: int = 0
    more: Sequence[onnx.NodeProto] = ()
    outputs: Sequence[str] = ()

    def __post_init__(self) -> None:
        self.resize: dict[str, Any] = dict(DOUBLED)
        self.layer: dict[str, Any] = {}
        self.kernel: tuple[int, ...] = (1,) * len(self.size)
        self.axis = 1
        self._random = np.random.default_rng(0)
        self._weights: list[onnx.TensorProto] = []

    def graph(self) -> Graph:
        kind = helper.np_dtype_to_tensor_dtype(np.dtype(self.element))
        inputs, nodes, joined = [], [], []
        for index, (channels, size) in enumerate(self.sources):
            shape = (self.batch, channels, *size)
            inputs.append(helper.make_tensor_value_info(f"x{index}", kind, shape))
            joined.append(f"x{index}")
            if size != self.size:
                nodes.append(self._resized(f"x{index}", f"r{index}", channels, size))
                joined[-1] = f"r{index}"
        read = joined[0]
        if len(joined) > 1:
            nodes.append(helper.make_node("Concat", joined, ["c"], axis=self.axis))
            read = "c"
        channels = self.channels or sum(count for count, _ in self.sources)
        channels //= self.layer.get("group", 1)
        for index, outputs in enumerate(self.layers):
            values = self._random.standard_normal((outputs, channels, *self.kernel))
            operands = [read, self._constant(f"w{index}", values.astype(self.element))]
            if self.bias:
                bias = self._random.standard_normal(outputs).astype(self.element)
                operands.append(self._constant(f"b{index}", bias))
            nodes.append(helper.make_node("Conv", operands, [f"y{index}"], **self.layer))
        names = self.outputs or [f"y{index}" for index in range(len(self.layers))]
        results = [helper.make_tensor_value_info(name, kind, None) for name in names]
        nodes += self.more
        graph = helper.make_graph(nodes, "neck", inputs, results, self._weights)
        opsets = [helper.make_opsetid("", self.opset)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
        shapes = {f"x{i}": (2, count, *size) for i, (count, size) in enumerate(self.sources)}
        return Graph.load(model, shapes if isinstance(self.batch, str) else None)

    def _constant(self, name: str, values: Any) -> str:
        self._weights.append(onnx.numpy_helper.from_array(np.asarray(values), name))
        return name

    def _resized(self, x: str, y: str, channels: int, size: tuple[int, ...]) -> onnx.NodeProto:
        scales = [
            1.0,
            1.0,
            *(after / before for after, before in zip(self.size, size, strict=True)),
        ]
        if self.opset < 9:
            return helper.make_node("Upsample", [x], [y], mode="nearest", scales=scales)
        axes: dict[str, Any] = {}
        # Since opset 13 what is not asked for may be left out.
        empty = "" if self.opset > 12 else self._constant(f"{y}_none", np.zeros(0, np.float32))
        operands = [x] if self.opset < 11 else [x, empty]
        if self.told == "scales":
            operands.append(self._constant(f"{y}_scales", np.float32(scales)))
        else:
            sizes = [2, channels, *self.size]
            if self.told != "sizes":
                first = 1 if self.told == "channels" else 2
                sizes = sizes[first:]
                axes["axes"] = [index - len(sizes) for index in range(len(sizes))]
            operands += [empty, self._constant(f"{y}_sizes", np.int64(sizes))]
        op = "Upsample" if self.opset < 10 else "Resize"
        given = {"mode": self.resize["mode"]} if self.opset < 11 else self.resize
        return helper.make_node(op, operands, [y], **given, **axes)


def changed(neck: Neck, **changes: Any) -> Graph:
    """The graph of a neck whose Resize, layers or Concat are others."""
    neck.resize |= changes.pop("resize", {})
    vars(neck).update(changes)
    return neck.graph()


def with_weight(graph: Graph, name: str, values: np.ndarray) -> Graph:
    """The same network with other values in an initializer."""
    model = graph.to_proto()
    (weight,) = (entry for entry in model.graph.initializer if entry.name == name)
    weight.CopyFrom(onnx.numpy_helper.from_array(values, name))
    return Graph.load(model)


def with_computed(graph: Graph, name: str, op: str, operands: Sequence[np.ndarray]) -> Graph:
    """The same network, in which a node computes what an initializer held."""
    model = graph.to_proto()
    model.graph.value_info.extend(onnx.shape_inference.infer_shapes(model).graph.value_info)
    (weight,) = (entry for entry in model.graph.initializer if entry.name == name)
    model.graph.initializer.remove(weight)
    names = [f"{name}_{index}" for index in range(len(operands))]
    model.graph.initializer.extend(map(onnx.numpy_helper.from_array, operands, names))
    model.graph.node.insert(0, helper.make_node(op, names, [name]))
    return Graph.load(model)


def refusal(graph: Graph) -> str:
    found = survey(graph, MOVE)
    assert not found.sites
    ((_, entry),) = found.refusals
    return entry.reason


def operators(graph: Graph) -> dict[str, int]:
    return dict(Counter(node.op for node in graph.nodes()))


@st.composite
def necks(draw: st.DrawFn) -> Neck:
    opset = draw(st.sampled_from([7, 9, 10, 11, 13, 18, 19]))
    told = draw(
        st.sampled_from(
            ["scales"] + ["sizes"] * (opset >= 11) + ["axes", "channels"] * (opset >= 18)
        )
    )
    modes = ["nearest"] + ["linear", "cubic"] * (opset >= 11)
    mode = draw(st.sampled_from(modes))
    rank = draw(st.integers(1, 2)) if mode == "nearest" else 2
    # Scales of these are exact, so that they give the size.
    parts = st.sampled_from([2, 3, 4, 6]) if told == "scales" else st.integers(1, 6)
    size = (6,) * rank
    shape = st.one_of(st.just(size), st.tuples(*[parts] * rank))
    sources = draw(st.lists(st.tuples(st.integers(1, 4), shape), min_size=1, max_size=4))
    assume(any(own != size for _, own in sources))
    layers = draw(st.lists(st.integers(1, 5), min_size=1, max_size=2))
    neck = Neck(sources, size, layers, told, draw(st.booleans()), opset)
    coordinates = ["half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric"]
    coordinates += ["half_pixel_symmetric"] * (opset >= 19)
    neck.resize = {
        "mode": mode,
        "coordinate_transformation_mode": draw(st.sampled_from(coordinates)),
    }
    if mode == "nearest":
        rounding = ["round_prefer_floor", "round_prefer_ceil", "floor", "ceil"]
        neck.resize["nearest_mode"] = draw(st.sampled_from(rounding))
    if mode == "cubic":
        neck.resize["exclude_outside"] = draw(st.integers(0, 1))
    if mode != "nearest" and opset >= 18:
        neck.resize["antialias"] = draw(st.integers(0, 1))
    return neck


@settings(max_examples=150, deadline=None, derandomize=True)
@given(necks())
def test_any_mode_and_number_of_parts_is_exact(neck: Neck) -> None:
    graph = neck.graph()
    (result,) = all_applied(graph, MOVE)
    enlarged = sum(size != neck.size for _, size in neck.sources)
    rest = len(neck.sources) - enlarged
    terms, layers = enlarged + bool(rest), len(neck.layers)
    resize = "Upsample" if neck.opset < 10 else "Resize"
    expected = {
        "Conv": terms * layers,
        resize: enlarged * layers,
        "Add": (terms - 1) * layers,
        "Concat": int(rest > 1),
    }
    assert operators(result) == {op: count for op, count in expected.items() if count}


def test_convolutions_read_the_small_tensor_and_the_sum_keeps_the_name() -> None:
    (result,) = all_applied(Neck().graph(), MOVE)
    sums = list(result.nodes("Add"))
    assert [node.outputs[0].name for node in sums] == ["y0", "y1"]
    for node in sums:
        beside, enlarged = (result.producer(tensor) for tensor in node.inputs)
        assert beside is not None
        assert enlarged is not None
        assert (beside.op, beside.inputs[0].name, len(beside.inputs)) == ("Conv", "x1", 3)
        small = result.producer(enlarged.inputs[0])
        assert small is not None
        assert (small.op, small.inputs[0].name, len(small.inputs)) == ("Conv", "x0", 2)


def test_without_a_concat_nothing_is_added() -> None:
    (result,) = all_applied(Neck(sources=[(4, (3, 4))], layers=[5]).graph(), MOVE)
    assert [node.op for node in result.nodes()] == ["Conv", "Resize"]


def test_what_does_not_enlarge_is_joined_with_the_rest() -> None:
    sources = [(4, (3, 4)), (3, (12, 16)), (2, (6, 8))]
    (result,) = all_applied(Neck(sources, layers=[5]).graph(), MOVE)
    assert operators(result) == {"Conv": 2, "Resize": 2, "Concat": 1, "Add": 1}


def test_any_batch_will_do() -> None:
    graph = Neck(batch="n", layers=[5]).graph()
    feed = random_feeds(Neck(batch=3, layers=[5]).graph(), 1)
    (result,) = all_applied(graph, MOVE, feed=feed)
    assert operators(result) == {"Conv": 2, "Resize": 1, "Add": 1}


def test_half_precision_stays_half_precision() -> None:
    (result,) = all_applied(Neck(element=np.float16).graph(), MOVE, tolerance=4e-3)
    weights = [node.inputs[1].values.dtype for node in result.nodes("Conv")]
    assert set(weights) == {np.dtype(np.float16)}


READS = helper.make_node("Neg", ["c"], ["z"])
RESIZED = helper.make_node("Neg", ["r0"], ["z"])
ALL = ["y0", "y1", "z"]


@pytest.mark.parametrize(
    ("graph", "reason"),
    [
        (changed(Neck(more=[READS], outputs=ALL)), "also read by others"),
        (changed(Neck(outputs=["y0", "y1", "c"])), "also read by others"),
        (changed(Neck(more=[RESIZED], outputs=ALL)), "also read by others"),
        (changed(Neck(), kernel=(3, 3)), "several taps"),
        (changed(Neck(), layer={"strides": [2, 2]}), "a stride"),
        (changed(Neck(), layer={"pads": [0, 0, 1, 0]}), "padding"),
        (
            changed(Neck(sources=[(4, (3, 4)), (2, (6, 8))], layers=[2]), layer={"group": 2}),
            "groups",
        ),
        (changed(Neck(sources=[(4, (12, 16)), (3, (6, 8))])), "does not enlarge"),
        (
            changed(
                Neck([(4, (3, 4))], layers=[5], told="sizes", opset=19, channels=8),
                resize={"keep_aspect_ratio_policy": "not_smaller"},
            ),
            "ratio",
        ),
        (
            changed(
                Neck(told="sizes"), resize={"coordinate_transformation_mode": "tf_crop_and_resize"}
            ),
            "a value of its own",
        ),
        (
            with_weight(
                Neck([(4, (3, 4))], layers=[5], bias=False, channels=8).graph(),
                "r0_scales",
                np.float32([1, 2, 2, 2]),
            ),
            "resizes the channels",
        ),
        (
            with_computed(Neck().graph(), "r0_scales", "Neg", [np.float32([-1, -1, -2, -2])]),
            "not constant",
        ),
        (
            with_computed(
                Neck(layers=[5]).graph(),
                "w0",
                "DequantizeLinear",
                [np.ones((5, 7, 1, 1), np.int8), np.float32(0.1)],
            ),
            "weights or bias are not constant",
        ),
    ],
)
def test_what_is_not_offered_and_why(graph: Graph, reason: str) -> None:
    assert reason in refusal(graph)


def test_a_concat_of_rows_is_not_offered() -> None:
    rows = np.ones((2, 3, 1, 1), np.float32)
    graph = changed(Neck([(3, (3, 4)), (3, (6, 8))], layers=[2]), axis=2)
    assert "does not join channels" in refusal(with_weight(graph, "w0", rows))


def test_a_resize_that_wider_layers_read_is_no_place() -> None:
    neck = Neck([(4, (3, 4))], more=[helper.make_node("Neg", ["r0"], ["z"])], outputs=["z"])
    assert not survey(changed(neck, layers=[]), MOVE).refusals


def test_a_place_cannot_be_rewritten_twice() -> None:
    graph = Neck().graph()
    (site,) = survey(graph, MOVE).sites
    apply_pass(MOVE, graph, site.site, site.candidates[0])
    with pytest.raises(PassError, match="rewritten already"):
        apply_pass(MOVE, graph, site.site, site.candidates[0])


def test_layers_are_moved_with_the_weights_that_the_repair_gave_them() -> None:
    """The repair still finds the layers of the original, beside a swap of what stands behind."""
    swish = helper.make_node("HardSwish", ["y0"], ["z"])
    graph = Neck(layers=[5], opset=14, more=[swish], outputs=["z"]).graph()
    passes = [MOVE, SwapActivation()]
    swap, move = sorted(
        find_sites(graph, passes, NPU1).sites, key=lambda site: site.pass_name, reverse=True
    )
    repaired: list[Graph] = []

    def repair(before: Graph, after: Graph) -> Graph:
        doubled = 2 * np.asarray(after.constant("w0"))
        repaired.append(with_weight(after, "w0", doubled))
        return repaired[0]

    chosen = [(move, CANDIDATE), (swap, "Relu")]
    result = rewrite_network(graph, passes, chosen, repair=repair, samples=None).graph
    assert operators(result) == {"Conv": 2, "Resize": 1, "Add": 1, "Relu": 1}
    assert compare(repaired[0], result, [random_feeds(graph, 1)], optimise=False).agrees(1e-5)


def test_it_is_chosen_where_it_pays_and_not_where_it_does_not() -> None:
    """Many channels that are enlarged save products; a few that become many are more to resize."""
    chosen = {}
    for small, outputs in ((128, 64), (8, 256)):
        neck = Neck([(small, (20, 20)), (32, (40, 40))], (40, 40), [outputs], batch=1)
        with ThreadPoolExecutor(1) as pool:
            options = {"skip": ("simplify",), "max_trials": 1, "cache": False}
            result = optimize(neck.graph().to_proto(), NPU1, executor=pool, **options)
        chosen[outputs] = result.plan.chosen["convolve-before-resize:c"]
    assert chosen == {64: CANDIDATE, 256: "keep"}
