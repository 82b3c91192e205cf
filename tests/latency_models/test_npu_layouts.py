"""How feature maps lie in an NPU's memory."""

from __future__ import annotations

import onnx
import pytest

from actcc.backends.analytic import AnalyticBackend
from actcc.graph import Graph
from actcc.latency_models import load_profile
from actcc.latency_models.npu_layouts import stored_orders
from actcc.latency_models.npu_maps import Access, FeatureMap, deepened, moved_bytes
from actcc.latency_models.npu_operations import lower
from actcc.latency_models.npu_settings import npu_settings


def load(body: str, inputs: str, outputs: str) -> Graph:
    text = f'<ir_version: 8, opset_import: ["" : 17]> g ({inputs}) => ({outputs}) {{ {body} }}'
    model = onnx.parser.parse_model(text)
    for index, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}{index}"
    return Graph.load(model)


@pytest.mark.parametrize(
    ("seen", "expected"), [((1, 4420, 2), (17, 13, 40)), ((1, 64, 8), (1, 64, 8))]
)
def test_few_channels_become_more_in_an_elementwise_operation(
    seen: tuple[int, int, int], expected: tuple[int, int, int]
) -> None:
    # Vela 5.2.0 takes 1 x 1 x 4420 x 2 as 1 x 17 x 13 x 40.
    assert deepened(*seen) == expected


@pytest.mark.parametrize(
    ("linear", "channels", "factor"), [(False, 8, 1), (True, 8, 16), (True, 2, 1), (True, 32, 4)]
)
def test_a_constant_in_flash_is_read_in_bursts_of_what_lies_side_by_side(
    linear: bool, channels: int, factor: int
) -> None:
    # Bursts of 128 bytes; a feature map of 2 channels.
    settings = npu_settings(load_profile("npu1"))
    seen = FeatureMap(1, 4420, 2, linear=linear, outside=True)
    access = Access(64, channels, reading=True)
    assert moved_bytes(seen, 8840, access, settings) == 8840 * factor


def test_axes_lie_where_transposes_and_reshapes_leave_them() -> None:
    graph = load(
        "t = Transpose<perm = [0, 2, 3, 1]>(x)  y = Identity(t)  "
        "r = Flatten<axis = 2>(x)  z = Identity(r)",
        "float[1,4,5,6] x",
        "float[1,5,6,4] y, float[4,30] z",
    )
    orders = stored_orders(graph)
    assert orders["x"] == (0, 2, 3, 1)
    assert orders["y"] == (0, 1, 2, 3)
    assert orders["z"] == (1, 0)


@pytest.mark.parametrize(("channels", "linear"), [(16, False), (8, True)])
def test_a_join_that_starts_within_a_brick_lies_in_the_hosts_layout(
    channels: int, linear: bool
) -> None:
    graph = load(
        "a = Abs(x)  b = Abs(z)  c = Concat<axis = 1>(a, b)  y = Abs(c)",
        f"float[1,{channels},4,4] x, float[1,16,4,4] z",
        f"float[1,{channels + 16},4,4] y",
    )
    program = lower(graph, npu_settings(load_profile("npu1")))
    assert ({"a", "b", "c"} <= program.linear) == linear


@pytest.mark.parametrize(
    ("body", "shape"),
    [
        ("y = Mul(x, x)", "0,3,4,4"),
        ("y = Softmax<axis = 1>(x)", "2,0"),
        ("s = Shape(x)  y = Reshape<allowzero = 1>(x, s)", "4,0"),
        ("y = Flatten<axis = 0>(x)", "4,0"),
    ],
)
def test_tensors_without_elements_cost_nothing(body: str, shape: str) -> None:
    after = "1,0" if "Flatten" in body else shape
    graph = load(
        f"{body}  b = Neg(a)", f"float[{shape}] x, float[1,8] a", f"float[{after}] y, float[1,8] b"
    )
    alone = load("b = Neg(a)", "float[1,8] a", "float[1,8] b")
    backend = AnalyticBackend(load_profile("npu1"))
    both, one = backend.time_models([graph, alone])
    assert both.latency_ns == one.latency_ns


def test_a_join_within_a_join_lies_where_the_outer_one_does() -> None:
    weights = ",".join(["0.1"] * 256)
    joined, apart = (
        Graph.load(
            onnx.parser.parse_model(
                f"""<ir_version: 8, opset_import: ["" : 17]>
                g (float[1,16,8,8] x) => (float[1,32,8,8] y, float[1,16,8,8] z)
                <float[16,16,1,1] w = {{{weights}}}> {{
                    a = Conv(x, w)  {body}  z = Neg(x)
                }}"""
            )
        )
        for body in (
            "c = Concat<axis = 1>(a, x)  y = Concat<axis = 1>(c)",
            "y = Concat<axis = 1>(a, x)",
        )
    )
    layers = [AnalyticBackend(load_profile("npu2")).layers(graph) for graph in (joined, apart)]
    found = [[row.latency_ns for row in rows if row.op == "Conv"] for rows in layers]
    assert found[0] == found[1]
