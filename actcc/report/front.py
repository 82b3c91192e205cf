"""The predicted trade-off between latency and loss, from the figures of a plan alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from actcc.plan import Plan, SitePlan


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
    plans on the true front, never below the line that joins them. Of sites that share nodes, as a
    block and the activations in it do, those are taken that save more together. Other budgets are
    left out of account. Empty where the target cannot price the model.
    """
    if plan.predicted_latency_ns is None:
        return ()
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
    """From `keep` to the fastest choice along the hull: (loss more, nanoseconds saved)."""
    options = _options(place[0]) if len(place) == 1 else _joint_options(place)
    steps: list[tuple[float, float]] = []
    loss, difference = 0.0, 0.0
    while True:
        faster = [(lost - loss, difference - d) for lost, d in options if d < difference]
        if not faster:
            return steps
        steepest = min(faster, key=_rank)
        steps.append(steepest)
        loss, difference = loss + steepest[0], difference - steepest[1]


def _options(site: SitePlan) -> list[tuple[float, float]]:
    """Loss and difference in latency of each candidate of a site that has both."""
    return [
        (candidate.loss, candidate.difference_ns)
        for candidate in site.candidates
        if candidate.loss is not None and candidate.difference_ns is not None
    ]


def _joint_options(place: Sequence[SitePlan]) -> list[tuple[float, float]]:
    """Totals of choices for sites that share nodes, one for each price of loss at which the choice
    may change: the best one where blocks are nested, a good one where they overlap.
    """
    options = {site.id: [(0.0, 0.0), *_options(site)] for site in place}
    rates = {-d / loss for found in options.values() for loss, d in found if loss > 0 > d}
    found = []
    for rate in (0.0, *sorted(rates)):
        best = {
            identity: min(choices, key=lambda choice: choice[1] + rate * choice[0])
            for identity, choices in options.items()
        }
        taken: dict[str, tuple[SitePlan, float]] = {}
        for site in sorted(place, key=lambda site: len(site.nodes)):
            loss, difference = best[site.id]
            gain = -difference - rate * loss
            rivals = {
                k: g for k, (t, g) in taken.items() if not set(t.nodes).isdisjoint(site.nodes)
            }
            if gain > sum(rivals.values()):
                taken = {k: v for k, v in taken.items() if k not in rivals}
                taken[site.id] = (site, gain)
        totals = [best[identity] for identity in taken]
        found.append((sum(loss for loss, _ in totals), sum(d for _, d in totals)))
    return found


def _rank(step: tuple[float, float]) -> tuple[float, float]:
    """What saves most for what it loses comes first; of equals, what saves most at once."""
    loss, saved = step
    return (-saved / loss if loss > 0 else float("-inf"), -saved)
