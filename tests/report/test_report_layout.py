"""The layered drawing: edges point down, boxes stay apart, and what can be straight is."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ortools.linear_solver import pywraplp

from actcc.report.layout import Edge, Layout, Size, layered_layout

BOX = Size(100.0, 30.0)


@st.composite
def acyclic_graphs(draw: st.DrawFn) -> tuple[list[Size], list[Edge]]:
    count = draw(st.integers(1, 12))
    pairs = [(tail, head) for head in range(count) for tail in range(head)]
    edges = draw(st.lists(st.sampled_from(pairs), unique=True)) if pairs else []
    widths = draw(st.lists(st.integers(20, 200), min_size=count, max_size=count))
    return [Size(float(width), 30.0) for width in widths], sorted(edges)


def overlaps(layout: Layout, sizes: list[Size]) -> list[tuple[int, int]]:
    """Pairs of boxes that share area; a tenth of a pixel is rounding."""
    found = []
    for one, (x, y) in enumerate(layout.centres):
        for other, (u, v) in enumerate(layout.centres[:one]):
            apart_x = (sizes[one].width + sizes[other].width) / 2
            apart_y = (sizes[one].height + sizes[other].height) / 2
            if abs(x - u) < apart_x - 0.1 and abs(y - v) < apart_y - 0.1:
                found.append((other, one))
    return found


@settings(max_examples=60, deadline=None)
@given(acyclic_graphs())
def test_boxes_stay_apart_and_edges_point_down(drawn: tuple[list[Size], list[Edge]]) -> None:
    sizes, edges = drawn
    layout = layered_layout(sizes, edges)
    assert overlaps(layout, sizes) == []
    for (tail, head), route in zip(edges, layout.routes, strict=True):
        assert route[0] == layout.centres[tail]
        assert route[-1] == layout.centres[head]
        assert all(below[1] > above[1] for above, below in itertools.pairwise(route))
    for size, (x, y) in zip(sizes, layout.centres, strict=True):
        assert size.width / 2 - 0.1 <= x <= layout.width - size.width / 2 + 0.1
        assert size.height / 2 - 0.1 <= y <= layout.height - size.height / 2 + 0.1


def test_a_chain_is_a_straight_column() -> None:
    layout = layered_layout([BOX] * 5, [(i, i + 1) for i in range(4)])
    assert len({x for x, _ in layout.centres}) == 1
    assert layout.width == BOX.width


def test_branches_stand_side_by_side() -> None:
    layout = layered_layout([BOX] * 4, [(0, 1), (0, 2), (1, 3), (2, 3)])
    assert layout.centres[1][1] == layout.centres[2][1]
    assert abs(layout.centres[1][0] - layout.centres[2][0]) >= BOX.width


def test_branches_do_not_cross() -> None:
    edges = [(0, 1), (0, 2), (1, 4), (2, 3), (3, 5), (4, 5)]
    (_, one, other, behind_other, behind_one, _) = layered_layout([BOX] * 6, edges).centres
    assert (one[0] < other[0]) == (behind_one[0] < behind_other[0])


def test_a_shortcut_passes_beside_what_it_skips() -> None:
    layout = layered_layout([BOX] * 3, [(0, 1), (1, 2), (0, 2)])
    (_, beside, _) = layout.routes[2]
    assert abs(beside[0] - layout.centres[1][0]) >= BOX.width / 2
    assert beside[1] == layout.centres[1][1]


def test_a_huge_graph_is_drawn_without_overlap_too() -> None:
    edges = [(i, i + 1) for i in range(299)] + [(i, 299) for i in range(0, 250, 3)]
    layout = layered_layout([BOX] * 300, edges)
    assert overlaps(layout, [BOX] * 300) == []


def test_the_same_graph_is_drawn_the_same_way() -> None:
    edges = [(0, 2), (1, 2), (2, 3), (2, 4), (0, 4)]
    assert layered_layout([BOX] * 5, edges) == layered_layout([BOX] * 5, edges)


def test_nothing_takes_no_room() -> None:
    assert layered_layout([], []) == Layout((), (), 0.0, 0.0)


def test_without_a_solution_every_box_still_has_a_place(monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(self: pywraplp.Solver, *parameters: object) -> int:
        return int(pywraplp.Solver.ABNORMAL)

    monkeypatch.setattr(pywraplp.Solver, "Solve", failing)
    sizes, edges = [BOX] * 4, [(0, 1), (1, 2), (0, 2), (0, 3)]
    layout = layered_layout(sizes, edges)
    assert overlaps(layout, sizes) == []
    rows = [y for _, y in layout.centres]
    assert rows[0] < rows[1] == rows[3] < rows[2]
