"""The layout of the network, its bytes, and what is refused."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import Builder, residual_network

pytest.importorskip("ethosu", reason="needs the extra 'ethos-u'")

from actcc.backends.ethos_u.flatbuffer import write_flatbuffer
from actcc.backends.ethos_u.lowering import lower
from actcc.backends.ethos_u.network import int8_range
from actcc.errors import PricingError
from actcc.graph import Graph
from actcc.graph.axes import axis_groups
from actcc.normalize import normalize

IMAGE = (1, 8, 12, 12)


def codes(build: Builder, shape: tuple[int, ...]) -> list[str]:
    build.nodes[-1].output[0] = "y"
    network = lower(Graph.load(build.model(IMAGE, {"y": shape})))
    return [operator.code for operator in network.operators]


def test_the_same_graph_gives_the_same_bytes() -> None:
    graph = Graph.load(residual_network())
    assert write_flatbuffer(lower(graph)) == write_flatbuffer(lower(graph.copy()))


def test_convolutions_need_no_transpose() -> None:
    graph = Graph.load(residual_network())
    assert "TRANSPOSE" not in {operator.code for operator in lower(graph).operators}


def test_a_transpose_to_channels_last_is_free() -> None:
    build = Builder()
    rows = build.add("Transpose", build.conv("images", 8, 8), perm=[0, 2, 3, 1])
    build.add("MatMul", rows, build.weight(np.ones((8, 5))))
    assert codes(build, (1, 12, 12, 5)) == ["CONV_2D", "FULLY_CONNECTED"]


def test_an_input_with_channels_last_stays_as_it_is() -> None:
    build = Builder()
    build.add("Relu", build.conv(build.add("Transpose", "images", perm=[0, 3, 1, 2]), 8, 4))
    build.nodes[-1].output[0] = "y"
    network = lower(Graph.load(build.model((1, 12, 12, 8), {"y": (1, 4, 12, 12)})))
    assert [operator.code for operator in network.operators] == ["CONV_2D"]
    assert network.orders["images"] == (0, 1, 2, 3)


def test_pooled_channels_are_flattened_without_moving_them() -> None:
    build = Builder()
    build.add("Flatten", build.add("GlobalAveragePool", "images"))
    assert codes(build, (1, 8)) == ["MEAN", "RESHAPE"]


def test_an_operator_without_int8_form_is_refused_by_name() -> None:
    build = Builder()
    build.add("Erf", "images")
    with pytest.raises(PricingError, match=r"operator Erf is not lowered"):
        codes(build, IMAGE)


def test_an_activation_without_int8_form_is_refused_by_name() -> None:
    build = Builder()
    build.add("Softsign", "images")
    with pytest.raises(PricingError, match=r"Softsign .*no int8 operators"):
        codes(build, IMAGE)


def test_a_computed_divisor_is_refused() -> None:
    build = Builder()
    build.add("Div", "images", build.conv("images", 8, 8))
    with pytest.raises(PricingError, match=r"\(Div\) divides by what is computed"):
        codes(build, IMAGE)


@pytest.mark.parametrize("least", [1e-44, 1e-40, 1e-36])
def test_a_channel_of_next_to_no_weight_is_one_of_zeros(least: float) -> None:
    build = Builder()
    weights = np.full((2, 3, 1, 1), least)
    weights[1] = 1.0
    build.add("Conv", "images", build.weight(weights), output="y")
    network = lower(Graph.load(build.model((1, 3, 8, 8), {"y": (1, 2, 8, 8)})))
    (stored, biases) = [found for found in network.tensors if found.data is not None]
    assert stored.quantization is not None
    assert min(stored.quantization.scales) == pytest.approx(1 / 127)
    assert stored.data is not None
    assert stored.data.reshape(2, 3).tolist() == [[0, 0, 0], [127, 127, 127]]
    assert biases.data is not None
    assert biases.data.tolist() == [0, 0]


def test_an_integer_input_is_refused() -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17]> g (int64[1] x) => (float[1] y)'
        " { y = Cast<to = 1>(x) }"
    )
    with pytest.raises(PricingError, match="input 'x' is of int64"):
        lower(Graph.load(model))


@given(st.floats(-100, 100), st.floats(-100, 100))
def test_zero_is_exact_and_the_range_is_covered(one: float, other: float) -> None:
    low, high = min(one, other), max(one, other)
    found = int8_range(low, high)
    step = found.scale
    assert found.dequantize(found.quantize(np.zeros(1))) == 0
    assert found.low <= min(low, 0) + step
    assert found.high >= max(high, 0) - step


@settings(max_examples=60)
@given(st.lists(st.sampled_from([1, 2, 3, 4, 6]), min_size=1, max_size=4), st.data())
def test_axes_that_go_over_into_each_other_hold_equally_many(sizes: list[int], data) -> None:
    total, after = math.prod(sizes), list[int]()
    while total > 1:
        factor = data.draw(st.sampled_from([d for d in range(2, total + 1) if total % d == 0]))
        after.append(factor)
        total //= factor
    groups = axis_groups(tuple(sizes), tuple(after))
    for before_axes, after_axes in groups:
        assert math.prod(sizes[i] for i in before_axes) == math.prod(after[i] for i in after_axes)
    assert [i for axes, _ in groups for i in axes] == [i for i, s in enumerate(sizes) if s != 1]


@pytest.mark.shared
@pytest.mark.parametrize(
    ("name", "transposes"),
    [("mobilenet_v2", 0), ("yolox_nano_416", 0), ("FastestDet", 0), ("ultraface_rfb_320", 0)],
)
def test_real_networks_are_lowered(name: str, transposes: int, shared: Path) -> None:
    # The simplifier takes seconds, and the lowering does not need it here.
    plain = normalize(Graph.load(shared / "models" / f"{name}.onnx"), skip=("simplify",))
    found = [operator.code for operator in lower(plain.graph).operators]
    assert found.count("TRANSPOSE") == transposes
