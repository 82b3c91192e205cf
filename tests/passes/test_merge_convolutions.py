"""A convolution directly behind another."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from normalizing import graph_of
from onnx import helper

from actcc import optimize
from actcc.errors import PassError
from actcc.graph import Array, Graph, Interface, verify
from actcc.graph.compare import compare
from actcc.linear import as_operands, composition_inside, convolution_of
from actcc.pass_api import Survey, apply_candidates, find_sites
from actcc.passes.merge_convolutions import MergeConvolutions
from actcc.runtime import random_feeds
from actcc.site import Site
from actcc.targets import load_target

MERGE = MergeConvolutions()
TARGET = load_target("npu1")


def survey(graph: Graph) -> Survey:
    return find_sites(graph, [MERGE], TARGET, exact_only=True)


def merged(graph: Graph, tolerance: float = 1e-5) -> Graph:
    """The only site's candidate applied, and compared."""
    found = survey(graph)
    assert len(found.sites) == 1, found.refusals
    result = apply_candidates(graph, [MERGE], [(found.sites[0], "Conv")])
    verify(result, Interface.of(graph), ["merge-convolutions"])
    feeds = [random_feeds(graph, 3)]
    assert compare(graph, result, feeds, optimise=False).agrees(tolerance)
    return result


def refusal(graph: Graph) -> str:
    found = survey(graph)
    assert not found.sites
    (entry,) = found.refusals
    return entry[1].reason


@dataclass(frozen=True)
class Layer:
    outputs: int
    groups: int
    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]
    bias: bool

    def size(self, axis: int, size: int) -> int:
        rank = len(self.kernel)
        reach = self.dilations[axis] * (self.kernel[axis] - 1) + 1
        room = size + self.pads[axis] + self.pads[axis + rank] - reach
        return room // self.strides[axis] + 1 if room >= 0 else 0


@dataclass(frozen=True)
class Pair:
    inputs: int
    size: tuple[int, ...]
    first: Layer
    second: Layer
    known_size: bool
    seed: int

    def graph(self) -> Graph:
        nodes, weights = [], {}
        inputs, x = self.inputs, "x"
        random = np.random.default_rng(self.seed)
        for name, layer in (("first", self.first), ("second", self.second)):
            shape = (layer.outputs, inputs // layer.groups, *layer.kernel)
            weights[f"{name}_w"] = random.standard_normal(shape)
            operands = [x, f"{name}_w"]
            if layer.bias:
                weights[f"{name}_b"] = random.standard_normal(layer.outputs)
                operands.append(f"{name}_b")
            x, inputs = {"first": "between", "second": "y"}[name], layer.outputs
            attributes = {
                "group": layer.groups,
                "strides": layer.strides,
                "dilations": layer.dilations,
                "pads": layer.pads,
            }
            nodes.append(helper.make_node("Conv", operands, [x], name=name, **attributes))
        symbols = [f"size{axis}" for axis in range(len(self.size))]
        declared = (2, self.inputs, *(self.size if self.known_size else symbols))
        graph = model_of(nodes, declared, weights)
        return graph

    def feeds(self) -> dict[str, Array]:
        random = np.random.default_rng(self.seed + 1)
        return {"x": random.standard_normal((2, self.inputs, *self.size)).astype(np.float32)}


def model_of(
    nodes: list[onnx.NodeProto],
    x: tuple[int | str, ...],
    weights: dict[str, Array],
    outputs: tuple[str, ...] = ("y",),
    element: Any = np.float32,
) -> Graph:
    kind = helper.np_dtype_to_tensor_dtype(np.dtype(element))
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", kind, x)],
        [helper.make_tensor_value_info(name, kind, None) for name in outputs],
        [onnx.numpy_helper.from_array(v.astype(element), name) for name, v in weights.items()],
    )
    opsets = [helper.make_opsetid("", 17)]
    return Graph.load(helper.make_model(graph, opset_imports=opsets, ir_version=8))


@st.composite
def pairs(draw: st.DrawFn, exact: bool = True) -> Pair:
    rank = draw(st.integers(1, 3))

    def each(low: int, high: int, length: int = rank) -> tuple[int, ...]:
        return tuple(draw(st.integers(low, high)) for _ in range(length))

    def layer(inputs: int, padded: bool, bias: bool) -> Layer:
        divisors = [g for g in range(1, inputs + 1) if inputs % g == 0]
        groups = draw(st.sampled_from(divisors))
        return Layer(
            outputs=groups * draw(st.integers(1, 2)),
            groups=groups,
            kernel=each(1, 3),
            strides=each(1, 2),
            dilations=each(1, 2),
            pads=each(0, 2 if padded else 0, 2 * rank),
            bias=bias,
        )

    inputs = draw(st.integers(1, 6))
    padded = draw(st.booleans())
    first = layer(inputs, True, draw(st.booleans()) and not (padded and exact))
    second = layer(first.outputs, padded, draw(st.booleans()))
    size = each(5, 8)
    for axis in range(rank):
        assume(second.size(axis, first.size(axis, size[axis])) >= 1)
    return Pair(inputs, size, first, second, draw(st.booleans()), draw(st.integers(0, 2**16)))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(pairs())
def test_what_is_offered_is_exact(pair: Pair) -> None:
    graph = pair.graph()
    found = survey(graph)
    for site in found.sites:
        result = apply_candidates(graph, [MERGE], [(site, "Conv")])
        assert [node.op for node in result.nodes()] == ["Conv"]
        assert compare(graph, result, [pair.feeds()], optimise=False).agrees(1e-5)
    assume(found.sites)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(pairs(exact=False))
def test_a_second_layer_without_padding_is_always_taken(pair: Pair) -> None:
    graph = pair.graph()
    assume(not any(pair.second.pads))
    result = apply_candidates(graph, [MERGE], [(survey(graph).sites[0], "Conv")])
    assert compare(graph, result, [pair.feeds()], optimise=False).agrees(1e-5)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(pairs(exact=False))
def test_what_is_refused_at_the_border_would_have_differed(pair: Pair) -> None:
    """With the size known, refusals are as few as they can be, whatever the weights."""
    graph = Pair(**{**vars(pair), "known_size": True}).graph()
    found = survey(graph)
    assume(not found.sites)
    first, second = graph.nodes()
    one, two = (convolution_of(graph, node, graph.types) for node in (first, second))
    wrong = composition_inside(one, two)
    twin = graph.copy()
    inputs, attributes = as_operands(twin, wrong, twin.tensor("x"), np.dtype(np.float32), "w")
    twin.replace(Site(["first", "second"], "x", "y"), "Conv", inputs, **attributes)
    assert not compare(graph, twin, [pair.feeds()], optimise=False).agrees(1e-5)


RANDOM = np.random.default_rng(0)
DENSE = RANDOM.standard_normal((4, 4, 3, 3))
POINT = RANDOM.standard_normal((6, 4, 1, 1))


def conv(inputs: list[str], output: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node("Conv", inputs, [output], **attributes)


def net(first: Array, second: Array, **changes: Any) -> Graph:
    """Two 2-d convolutions without padding or bias, with some things changed."""
    weights = {"w": first, "v": second, **changes.pop("weights", {})}
    nodes = [
        conv(["x", "w", *changes.pop("bias", [])], "a", **changes.pop("one", {})),
        conv(["a", "v"], "y", **changes.pop("two", {})),
        *changes.pop("more", []),
    ]
    shape = (1, changes.pop("channels", first.shape[1]), 9, 9)
    return model_of(nodes, shape, weights, **changes)


def test_a_pointwise_layer_takes_in_a_padded_one_before_it() -> None:
    layer = next(merged(net(DENSE, POINT, one={"pads": [1] * 4})).nodes())
    assert layer.attrs["pads"] == [1] * 4
    assert layer.inputs[1].values.shape == (6, 4, 3, 3)


def test_depthwise_and_pointwise_become_one_regular_convolution() -> None:
    depthwise = RANDOM.standard_normal((4, 1, 3, 3))
    result = merged(net(depthwise, POINT, one={"group": 4, "strides": [2, 2]}, channels=4))
    layer = next(result.nodes())
    assert (layer.attrs["group"], layer.attrs["strides"]) == (1, [2, 2])


def test_two_depthwise_layers_stay_depthwise() -> None:
    first, second = RANDOM.standard_normal((2, 4, 1, 3, 3))
    result = merged(net(first, second, one={"group": 4}, two={"group": 4}, channels=4))
    layer = next(result.nodes())
    assert layer.inputs[1].values.shape == (4, 1, 5, 5)


def test_pads_that_follow_from_the_size_are_resolved() -> None:
    merged(net(DENSE, POINT, one={"auto_pad": "SAME_UPPER", "strides": [2, 2]}))
    merged(net(DENSE, POINT, one={"auto_pad": "SAME_LOWER", "strides": [2, 2]}))
    merged(net(DENSE, POINT, one={"auto_pad": "VALID"}))


def test_pads_that_follow_from_a_size_that_only_one_run_has_stop_it() -> None:
    same = {"auto_pad": "SAME_UPPER", "strides": [2, 2]}
    model = net(DENSE, POINT, one=same).to_proto()
    for axis, size in enumerate(("height", "width"), start=2):
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = size
    model.graph.output[0].type.tensor_type.ClearField("shape")
    channels = DENSE.shape[1]
    graph = Graph.load(model, {"x": (1, channels, 8, 8)})
    assert "a size that is not fixed" in refusal(graph)


def test_half_precision_is_computed_in_double_and_cast_back() -> None:
    result = merged(net(0.1 * DENSE, POINT, element=np.float16), tolerance=4e-3)
    assert next(result.nodes()).inputs[1].values.dtype == np.float16


def test_a_layer_that_shares_the_weights_keeps_them() -> None:
    twin = helper.make_node("Conv", ["x", "w"], ["z"], name="twin")
    result = merged(net(DENSE, POINT, more=[twin], outputs=("y", "z")))
    assert [tensor.name for tensor in result.node("twin").inputs] == ["x", "w"]


def test_a_chain_is_offered_as_pairs() -> None:
    third = helper.make_node("Conv", ["y", "u"], ["z"])
    weights = {"u": RANDOM.standard_normal((3, 6, 1, 1))}
    graph = net(DENSE, POINT, more=[third], weights=weights, outputs=("z",))
    found = survey(graph)
    assert [site.site.writes for site in found.sites] == ["y", "z"]
    once = apply_candidates(graph, [MERGE], [(found.sites[0], "Conv")])
    assert [node.op for node in merged(once).nodes()] == ["Conv"]


def test_a_bias_before_padding_stops_it() -> None:
    biased = {"bias": ["b"], "weights": {"b": np.ones(4)}}
    graph = net(POINT[:4], DENSE, two={"pads": [1] * 4}, **biased)
    assert "the first layer has a bias and the second pads" in refusal(graph)
    merged(net(POINT[:4], DENSE, two={"pads": [1] * 4}))


def test_kernels_that_would_touch_the_input_beyond_the_border_stop_it() -> None:
    graph = net(DENSE, DENSE, one={"pads": [1] * 4}, two={"pads": [1] * 4})
    assert "would touch the input" in refusal(graph)


def test_a_value_that_is_read_elsewhere_stops_it() -> None:
    more = [helper.make_node("Relu", ["a"], ["z"])]
    assert "also read elsewhere" in refusal(net(DENSE, POINT, more=more, outputs=("y", "z")))
    assert "also read elsewhere" in refusal(net(DENSE, POINT, outputs=("y", "a")))


def test_weights_that_a_caller_may_override_stop_it() -> None:
    proto = net(DENSE, POINT).to_proto()
    shape = proto.graph.initializer[0].dims
    kind = onnx.TensorProto.FLOAT
    proto.graph.input.append(helper.make_tensor_value_info("w", kind, shape))
    assert "the first layer: weights or bias are not constant" in refusal(Graph.load(proto))


def test_quantized_weights_stop_it() -> None:
    dequantize = helper.make_node("DequantizeLinear", ["q", "scale"], ["w"])
    weights = {"v": POINT, "scale": np.array(0.1)}
    nodes = [dequantize, conv(["x", "w"], "a"), conv(["a", "v"], "y")]
    proto = model_of(nodes, (1, 4, 9, 9), weights).to_proto()
    values = np.ones((4, 4, 3, 3), np.int8)
    proto.graph.initializer.append(onnx.numpy_helper.from_array(values, "q"))
    assert "not constant" in refusal(Graph.load(proto))


def test_weights_that_could_overflow_stop_it() -> None:
    graph = net(np.full((4, 4, 3, 3), 1e4), 10 * np.ones((6, 4, 1, 1)), element=np.float16)
    assert "may overflow" in refusal(graph)


def test_weights_that_half_precision_would_round_to_nothing_are_not_written() -> None:
    small = np.full((4, 4, 1, 1), 1e-4, np.float16)
    graph = graph_of("a = Conv(x, w) y = Conv(a, w)", constants={"w": small}, element="float16")
    (site,) = survey(graph).sites
    with pytest.raises(PassError, match="lose digits"):
        apply_candidates(graph, [MERGE], [(site, "Conv")])


def test_a_convolution_with_too_many_weights_is_not_offered() -> None:
    depthwise, dense = np.ones((4096, 1, 3, 3)), np.ones((4096, 4096, 1, 1))
    graph = net(depthwise, dense, one={"group": 4096}, channels=4096)
    assert "150,994,944 weights" in refusal(graph)


def test_layers_with_something_between_are_no_site() -> None:
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"]),
        helper.make_node("Relu", ["a"], ["r"]),
        helper.make_node("Conv", ["r", "w"], ["y"]),
    ]
    found = survey(model_of(nodes, (1, 4, 9, 9), {"w": DENSE}))
    assert found == Survey((), ())


def test_a_merge_is_chosen_where_it_pays_and_not_where_it_does_not() -> None:
    """Through many channels and back there are fewer products in one layer, and more elsewhere."""
    random = np.random.default_rng(0)
    weights = {
        "wide": random.standard_normal((256, 128, 1, 1)),
        "back": random.standard_normal((128, 256, 1, 1)),
        "narrow": random.standard_normal((16, 128, 1, 1)),
        "out": random.standard_normal((128, 16, 1, 1)),
    }
    nodes = [
        conv(["x", "wide"], "a"),
        conv(["a", "back"], "b"),
        helper.make_node("Relu", ["b"], ["r"]),
        conv(["r", "narrow"], "c"),
        conv(["c", "out"], "y"),
    ]
    graph = model_of(nodes, (1, 128, 32, 32), weights)
    with ThreadPoolExecutor(1) as pool:
        options = {"skip": ("simplify",), "max_trials": 1, "cache": False}
        chosen = optimize(graph.to_proto(), TARGET, executor=pool, **options).plan.chosen
    assert chosen["merge-convolutions:b"] == "Conv"
    assert chosen["merge-convolutions:y"] == "keep"
