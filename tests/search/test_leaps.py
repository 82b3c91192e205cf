"""Where candidates lose less together than apart, a search looks beyond its first plans."""

from __future__ import annotations

from dataclasses import replace

from simulated_search import many_sites, simulate

from actcc.selection import PairTerm

BUDGET = 0.01


def drop_of_few(loss: float) -> float:
    """What is lost by candidates that only pay, and only keep the budget, where there are many."""
    if not loss:
        return 0.0
    return 2 * BUDGET if loss < 0.015 else 0.5 * BUDGET


def test_a_search_leaps_over_plans_that_fail() -> None:
    alone = many_sites()
    grouped = replace(alone, pairs=(PairTerm("s0", "cheap", "s1", "cheap", -10),))
    found = simulate("cpsat", grouped, drop=drop_of_few).trials
    assert found.best is not None
    assert found.best.predicted_loss >= 0.015
    # Two plans fail first; without groups it stays there.
    assert [trial.verdict.holds for trial in found.done][:3] == [False, False, True]
    assert all(
        t.predicted_loss < 0.015 for t in simulate("cpsat", alone, drop=drop_of_few).trials.done
    )


def test_a_search_that_holds_leaps_nowhere() -> None:
    grouped = replace(many_sites(), pairs=(PairTerm("s0", "cheap", "s1", "cheap", -10),))
    with_groups = simulate("cpsat", grouped, drop=lambda loss: 0.9 * loss)
    assert max(trial.predicted_loss for trial in with_groups.trials.done) < 2 * BUDGET


def test_leaps_that_fail_leave_the_search_where_it_was() -> None:
    grouped = replace(many_sites(), pairs=(PairTerm("s0", "cheap", "s1", "cheap", 0),))
    leaping = simulate("cpsat", grouped, drop=lambda loss: 20 * loss, most=12).attempted
    plain = simulate("cpsat", many_sites(), drop=lambda loss: 20 * loss, most=12).attempted
    # Two plans fail, two leaps do, and then it goes on as it would have.
    assert leaping[:2] == plain[:2]
    assert leaping[4:] == plain[2 : len(leaping) - 2]


def test_a_leap_that_holds_is_where_the_search_goes_on() -> None:
    grouped = replace(many_sites(), pairs=(PairTerm("s0", "cheap", "s1", "cheap", 0),))
    done = simulate("cpsat", grouped, drop=drop_of_few, most=6).trials.done
    assert all(trial.predicted_loss >= 0.015 for trial in done[2:])
