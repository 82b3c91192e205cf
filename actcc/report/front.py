"""The predicted trade-off between latency and loss, from the figures of a plan alone."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from actcc.plan import Plan, SitePlan
from actcc.site import KEEP


@dataclass(frozen=True)
class FrontPoint:
    """One predicted plan.

    Attributes:
        latency_ns: of the whole model.
        loss: sum of the single losses of fidelity; 1 is all of it.
    """

    latency_ns: float
    loss: float


def predicted_front(plan: Plan) -> tuple[FrontPoint, ...]:
    """The lower convex hull of all plans by prediction, by growing loss.

    Each point is an optimum of latency + λ · loss for some λ; between two of them there may be
    plans on the true front, never below the line that joins them. Sites that share nodes count
    as one of which one is rewritten; other budgets are left out of account.
    """
    steps = [step for place in _places(plan.sites) for step in _hull_steps(place)]
    steps.sort(key=_rank)
    chosen = sum(_difference(site) for site in plan.sites)
    points = [FrontPoint(plan.predicted_latency_ns - chosen, 0.0)]
    for loss, saved in steps:
        last = points[-1]
        points.append(FrontPoint(last.latency_ns - saved, last.loss + loss))
    return tuple(points)


def _difference(site: SitePlan) -> float:
    return sum(c.difference_ns or 0.0 for c in site.candidates if c.name == site.chosen)


def _places(sites: Sequence[SitePlan]) -> Iterable[list[SitePlan]]:
    """Sites grouped by what they share nodes with."""
    places: list[tuple[set[str], list[SitePlan]]] = []
    holder: dict[str, int] = {}
    for site in sites:
        touching = sorted({holder[node] for node in site.nodes if node in holder})
        nodes, members = set(site.nodes), [site]
        for index in touching:
            nodes |= places[index][0]
            members = places[index][1] + members
            places[index] = (set(), [])
        holder.update((node, len(places)) for node in nodes)
        places.append((nodes, members))
    return [members for _, members in places if members]


def _hull_steps(place: Sequence[SitePlan]) -> list[tuple[float, float]]:
    """From `keep` to the fastest candidate along the hull: (loss more, nanoseconds saved)."""
    options = sorted(
        (candidate.loss, candidate.difference_ns)
        for site in place
        for candidate in site.candidates
        if candidate.name != KEEP and candidate.loss is not None and candidate.difference_ns
    )
    hull: list[tuple[float, float]] = [(0.0, 0.0)]
    for loss, difference in options:
        if difference >= hull[-1][1]:
            continue
        while len(hull) > 1 and _slope(hull[-2], hull[-1]) >= _slope(hull[-2], (loss, difference)):
            hull.pop()
        hull.append((loss, difference))
    pairs = itertools.pairwise(hull)
    return [(after[0] - before[0], before[1] - after[1]) for before, after in pairs]


def _rank(step: tuple[float, float]) -> tuple[float, float]:
    """What saves most for what it loses comes first."""
    loss, saved = step
    return (-saved / loss if loss > 0 else float("-inf"), loss)


def _slope(one: tuple[float, float], other: tuple[float, float]) -> float:
    """Nanoseconds a unit of loss; the steepest fall where nothing is lost."""
    loss = other[0] - one[0]
    return (other[1] - one[1]) / loss if loss > 0 else float("-inf")
