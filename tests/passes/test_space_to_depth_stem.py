"""Space-to-depth and a convolution as one strided convolution."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from normalizing import graph_of, operators
from offering import all_applied, survey

from actcc.graph import Graph
from actcc.normalize import normalize
from actcc.passes.space_to_depth_stem import SpaceToDepthStem

STEM = SpaceToDepthStem()
END = 2**31 - 1


def focus(
    form: str = "both",
    order: tuple[tuple[int, int], ...] = ((0, 0), (1, 0), (0, 1), (1, 1)),
    layer: str = "pads = [1, 1, 1, 1]",
    kernel: tuple[int, int] = (3, 3),
    x: tuple[int, ...] = (1, 3, 8, 6),
    ends: int = END,
    more: str = "",
    outputs: str = "y",
) -> Graph:
    """Phases by Slices over both axes at once, rows first or columns first, or by SpaceToDepth."""
    random = np.random.default_rng(0)
    constants: dict[str, object] = {
        "w": random.standard_normal((5, 12, *kernel)).astype(np.float32),
        "b": random.standard_normal(5).astype(np.float32),
        "end": np.array([ends]),
        "ends": np.array([ends, ends]),
        "two": np.array([2]),
        "twos": np.array([2, 2]),
        "rows": np.array([2]),
        "columns": np.array([-1]),
        "both": np.array([2, 3]),
    }
    lines = []
    for index, (row, column) in enumerate(order):
        constants |= {f"r{row}": np.array([row]), f"c{column}": np.array([column])}
        constants[f"p{index}"] = np.array([row, column])
        slices = {
            "both": f"s{index} = Slice(x, p{index}, ends, both, twos)",
            "rows": f"h{index} = Slice(x, r{row}, end, rows, two) "
            f"s{index} = Slice(h{index}, c{column}, end, columns, two)",
            "columns": f"h{index} = Slice(x, c{column}, end, columns, two) "
            f"s{index} = Slice(h{index}, r{row}, end, rows, two)",
        }
        lines.append(slices.get(form, ""))
    names = ", ".join(f"s{index}" for index in range(len(order)))
    lines.append(f"f = Concat <axis = 1> ({names})")
    if form == "operator":
        lines = ["f = SpaceToDepth <blocksize = 2> (x)"]
    body = f"{' '.join(lines)} y = Conv <{layer}> (f, w, b) {more}"
    used = {name: v for name, v in constants.items() if f"{name}," in body or f"{name})" in body}
    return graph_of(body, x, used, outputs)


ORDERS = st.permutations(list(itertools.product((0, 1), (0, 1))))


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    st.sampled_from(["both", "rows", "columns", "operator"]),
    ORDERS,
    st.tuples(st.integers(1, 3), st.integers(1, 3)),
    st.lists(st.integers(0, 2), min_size=4, max_size=4),
    st.tuples(st.integers(1, 3), st.integers(1, 2)),
)
def test_any_order_of_the_phases_is_one_convolution(
    form: str,
    order: list[tuple[int, int]],
    kernel: tuple[int, int],
    pads: list[int],
    strides: tuple[int, int],
) -> None:
    layer = f"pads = {pads}, strides = {list(strides)}"
    graph = focus(form, tuple(order), layer, kernel, (2, 3, 8, 6))
    (result,) = all_applied(graph, STEM)
    (convolution,) = result.nodes()
    assert convolution.attrs["kernel_shape"] == [2 * size for size in kernel]
    assert convolution.attrs["strides"] == [2 * stride for stride in strides]


def test_three_by_three_phases_are_one_convolution() -> None:
    weights = np.random.default_rng(1).standard_normal((2, 18, 2, 2)).astype(np.float32)
    body = "f = SpaceToDepth <blocksize = 3> (x) y = Conv <pads = [1, 0, 0, 1]> (f, w)"
    (result,) = all_applied(graph_of(body, (1, 2, 9, 6), {"w": weights}), STEM)
    assert operators(result) == ["Conv"]


@pytest.mark.parametrize(
    ("graph", "reason"),
    [
        (focus(order=((0, 0), (0, 0), (0, 1), (1, 1))), "3 of 4 phases"),
        (focus(layer="dilations = [2, 2], pads = [2, 2, 2, 2]"), "dilations"),
        (focus(layer='auto_pad = "SAME_LOWER"'), "auto_pad"),
        (focus(more="z = Neg(s1)", outputs="y z"), "read elsewhere"),
    ],
)
def test_what_is_not_offered_and_why(graph: Graph, reason: str) -> None:
    found = survey(graph, STEM)
    assert not found.sites
    ((_, refusal),) = found.refusals
    assert reason in refusal.reason


def test_slices_that_leave_something_out_are_no_phases() -> None:
    assert not survey(focus(ends=4), STEM).sites


@pytest.mark.shared
def test_the_stem_of_yolox_is_one_convolution(shared: Path, simplify_here: None) -> None:
    graph = normalize(Graph.load(shared / "models" / "yolox_nano_416.onnx")).graph
    pixels = np.random.default_rng(0).uniform(0, 255, (1, 3, 416, 416)).astype(np.float32)
    (result,) = all_applied(graph, STEM, feed={"images": pixels})
    assert not list(result.nodes("Slice"))
    assert next(result.nodes("Conv")).attrs["kernel_shape"] == [6, 6]
