"""The predicted front and its plot."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from actcc.plan import CandidateFigures, LatencyFigures, Plan, SitePlan
from actcc.report.front import predicted_front
from actcc.report.plot import HEIGHT, LEFT, RIGHT, TOP, WIDTH, trade_off
from actcc.result import Result


def site(name: str, chosen: str, *candidates: tuple[float, float]) -> SitePlan:
    """A site on a node of its own; candidates are (nanoseconds against keep, loss)."""
    figures = tuple(
        CandidateFigures(f"c{index}", False, difference, 0.0, loss)
        for index, (difference, loss) in enumerate(candidates)
    )
    return SitePlan(f"pass:{name}", "pass", "Silu", "", (name,), chosen, figures)


SITES = (
    site("a", "c0", (-100.0, 0.01), (-300.0, 0.05), (-310.0, 0.30)),
    site("b", "keep", (-50.0, 0.0), (-80.0, 0.02)),
    site("c", "keep", (40.0, 0.0), (-200.0, 0.20)),
)


@pytest.fixture
def plan(result: Result) -> Plan:
    return replace(result.plan, sites=SITES, predicted_latency_ns=900.0)


def all_plans(sites: tuple[SitePlan, ...]) -> list[tuple[float, float]]:
    """(latency, loss) of every combination; keep everywhere takes 1000 ns."""
    options = [
        [(0.0, 0.0), *((c.difference_ns or 0.0, c.loss or 0.0) for c in one.candidates)]
        for one in sites
    ]
    return [
        (1000.0 + sum(d for d, _ in combination), sum(loss for _, loss in combination))
        for combination in itertools.product(*options)
    ]


def test_the_front_is_the_lower_hull_of_all_plans(plan: Plan) -> None:
    front = [(point.latency_ns, point.loss) for point in predicted_front(plan)]
    plans = all_plans(SITES)
    for point in front:
        assert any(point == pytest.approx(one) for one in plans)
    for (x0, y0), (x1, y1) in itertools.pairwise(front):
        for x, y in plans:
            if y0 <= y <= y1 and y1 > y0:
                line = x0 + (x1 - x0) * (y - y0) / (y1 - y0)
                assert x >= line - 1e-6
    assert front[0] == pytest.approx((1000.0, 0.0))
    assert front[-1][0] == pytest.approx(min(x for x, _ in plans))


def test_of_sites_that_share_nodes_one_is_rewritten(plan: Plan) -> None:
    rival = replace(SITES[0], id="other:a", candidates=SITES[0].candidates[:1])
    both = replace(plan, sites=(*SITES, rival), predicted_latency_ns=800.0)
    assert predicted_front(both)[-1].latency_ns == pytest.approx(800.0 + 200.0 - 590.0)


@pytest.mark.parametrize(("saved", "best"), [(350.0, 410.0), (500.0, 300.0)])
def test_a_block_counts_against_all_the_sites_in_it(plan: Plan, saved: float, best: float) -> None:
    """The sites a and b save 390 ns together."""
    block = replace(site("block", "keep", (-saved, 0.3)), nodes=("a", "b"))
    whole = replace(plan, sites=(*SITES, block))
    assert predicted_front(whole)[-1].latency_ns == pytest.approx(best)


def test_candidates_without_price_or_loss_are_not_on_the_front(plan: Plan) -> None:
    unknown = (
        CandidateFigures("Relu", False, None, None, 0.1, "unpriced: no kernel"),
        CandidateFigures("Gelu", False, -500.0, 0.0, None, "no estimate"),
    )
    one = replace(SITES[1], candidates=unknown)
    assert len(predicted_front(replace(plan, sites=(one,)))) == 1


def test_a_model_that_cannot_be_priced_has_no_front_and_no_plot(result: Result) -> None:
    plan = replace(result.plan, latency=None, predicted_latency_ns=None)
    assert predicted_front(plan) == ()
    assert trade_off(plan, (), None) == ()


def test_the_chosen_plan_is_marked_with_its_interval(result: Result) -> None:
    measured, predicted = trade_off(result.plan, result.trials, 0)
    (mark,) = (mark for mark in measured.marks if mark.style == "chosen")
    assert mark.label == "1"
    assert min(mark.reach) > 0
    assert [mark.style for mark in predicted.marks] == ["chosen", "predicted"]
    assert predicted.front.startswith("M")


def test_a_drop_far_beyond_the_budget_is_drawn_at_the_edge(result: Result) -> None:
    measured = trade_off(result.plan, result.trials, 0)[0]
    (far,) = (mark for mark in measured.marks if mark.style == "fails")
    assert far.beyond
    assert far.y == TOP
    assert measured.budget is not None
    assert TOP < measured.budget.at < HEIGHT


def test_everything_lies_inside_the_panel(result: Result) -> None:
    for panel in trade_off(result.plan, result.trials, 0):
        for mark in panel.marks:
            assert LEFT <= mark.x <= WIDTH - RIGHT
            assert TOP <= mark.y <= HEIGHT
        assert 3 <= len(panel.x_ticks) <= 8
        assert 3 <= len(panel.y_ticks) <= 8


def test_both_panels_share_the_latency_axis(result: Result) -> None:
    measured, predicted = trade_off(result.plan, result.trials, 0)
    assert measured.x_ticks == predicted.x_ticks


def test_equal_latencies_and_no_drop_still_have_axes(result: Result) -> None:
    same = LatencyFigures(2e6, 2e6, 1.0, 0.0, "estimated")
    figures = result.plan.accuracy
    assert figures is not None
    unchanged = replace(figures, result=figures.original, least_drop=0.0, most_drop=0.0)
    trial = replace(result.trials[0], latency=same, accuracy=unchanged, predicted_loss=0.0)
    accuracy = None
    plan = replace(result.plan, latency=same, accuracy=accuracy, sites=())
    (panel,) = trade_off(plan, (trial,), None)
    assert len(panel.y_ticks) > 1
    assert len(panel.x_ticks) > 1
