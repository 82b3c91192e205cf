"""From sites, prices and losses to the integer program, and why a candidate was left out of it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from actcc.accuracy.estimate import Estimates
from actcc.budget import Objective
from actcc.neighbour_pricing import GroupTerm
from actcc.pass_api import Survey
from actcc.plan import CandidateFigures, SitePlan
from actcc.prices import Unpriced
from actcc.pricing import SitePrices
from actcc.selection import Choice, MemoryStep, Option, PairTerm, Problem
from actcc.site import KEEP, Candidate, OfferedSite
from actcc.site_sizes import SiteSizes

_PPM = 1_000_000
_TOGETHER = "together"


@dataclass(frozen=True)
class Evidence:
    """All that is known before the first solve.

    Attributes:
        sites: in topological order.
        prices: by site and candidate.
        estimates: losses of approximate candidates; None where there is no calibration data.
        original_latency_ns: of the model as it was given.
        base_latency_ns: of the normalized network with `keep` everywhere, in the same run; in int8
            where all is to be.
        peak_bytes: peak of the original's activations; None if it depends on data.
        memory: live bytes by schedule step and candidate; empty without a memory budget.
        estimator: what the losses were estimated by.
        dram_bytes: peak use of the memory outside the chip by the original, where it is known.
        groups: what neighbouring sites cost together beyond what each costs alone.
        latency_noise_ns: half width of the interval in which the difference of the two latencies
            lies.
        sizes: what candidates add to the file; empty where size does not count.
        size_bytes: of the original's file.
        base_size_bytes: of the normalized network's.
    """

    sites: Sequence[OfferedSite]
    prices: Mapping[str, SitePrices]
    estimates: Estimates | None
    original_latency_ns: float
    base_latency_ns: float
    peak_bytes: int | None
    memory: tuple[MemoryStep, ...] = ()
    estimator: str = "fidelity"
    dram_bytes: int | None = None
    groups: tuple[GroupTerm, ...] = ()
    latency_noise_ns: float = 0.0
    sizes: SiteSizes = field(default_factory=dict)
    size_bytes: int = 0
    base_size_bytes: int = 0

    def figures(self, site: OfferedSite, candidate: Candidate) -> CandidateFigures:
        """Price and loss of a candidate; `reason` is set if it cannot be offered."""
        price = self.prices[site.id].get(candidate.name)
        loss, reason = self._loss(site, candidate)
        if price is None or isinstance(price, Unpriced):
            why = "not priced" if price is None else f"unpriced: {price.reason}"
            return CandidateFigures(candidate.name, bool(candidate.exact), None, None, loss, why)
        size = self.sizes.get((site.id, candidate.name))
        if loss is None and price.difference_ns >= 0 and (size or 0) >= 0:
            reason = _no_faster(price.difference_ns, price.noise_ns)
        return CandidateFigures(
            candidate.name,
            bool(candidate.exact),
            price.difference_ns,
            price.noise_ns,
            loss,
            reason,
            size,
        )

    def _loss(self, site: OfferedSite, candidate: Candidate) -> tuple[float | None, str]:
        if candidate.exact:
            return 0.0, ""
        key = (site.id, candidate.computes)
        if self.estimates is None:
            return None, "approximate, and there is no calibration data"
        if key in self.estimates.losses:
            return self.estimates.losses[key], ""
        return None, f"no estimate: {self.estimates.failed.get(key, 'it was not run')}"


def build_problem(evidence: Evidence) -> Problem:
    """The integer program without budgets: nanoseconds, parts per million and bytes."""
    choices = []
    beside = _named_beside_late(evidence)
    for site in evidence.sites:
        options = [Option(KEEP, 0, 0)]
        for candidate in site.candidates:
            figures = evidence.figures(site, candidate)
            if figures.reason or figures.difference_ns is None or figures.loss is None:
                continue
            options.append(
                Option(
                    candidate.name,
                    round(figures.difference_ns),
                    round(figures.loss * _PPM),
                    _claims(site, (site.id, candidate.name) in beside),
                    figures.size_bytes or 0,
                )
            )
        choices.append(Choice(site.id, tuple(options)))
    groups, pairs = _group_terms(evidence.groups, choices)
    return Problem(
        (*choices, *groups),
        pairs=pairs,
        memory=_memory_of(evidence.memory, choices),
        base_cost_ns=round(evidence.base_latency_ns),
        base_size_bytes=evidence.base_size_bytes,
    )


def _named_beside_late(evidence: Evidence) -> frozenset[tuple[str, str]]:
    """Candidates that a late pass can build upon: a group names them beside one of its sites that
    stands on the same nodes.
    """
    sites = {site.id: site for site in evidence.sites}
    found: set[tuple[str, str]] = set()
    for group in evidence.groups:
        for identity, names in group.members:
            nodes = set(sites[identity].site.nodes)
            others = (sites[other] for other, _ in group.members if other != identity)
            if any(other.late and nodes.intersection(other.site.nodes) for other in others):
                found.update((identity, name) for name in names)
    return frozenset(found)


def _claims(site: OfferedSite, stays: bool) -> frozenset[str]:
    """What a candidate claims of its nodes: the rewrite before the repair, the one behind, or both.

    Args:
        stays: whether a late pass can rewrite what the candidate makes of them.
    """
    nodes = site.site.nodes
    later = frozenset(f"{name}, behind the repair" for name in nodes)
    if site.late:
        return later
    return frozenset(nodes) if stays else later.union(nodes)


def _group_terms(
    groups: Sequence[GroupTerm], choices: Sequence[Choice]
) -> tuple[list[Choice], tuple[PairTerm, ...]]:
    """Groups as pairs; a larger one as a choice of its own.

    What a larger group saves is the choice's cost. Beside any other option of a member the choice
    costs as much again, so that it pays only where all members are chosen. Groups that cost more
    together are told by their pairs.
    """
    options = {choice.id: [option.name for option in choice.options] for choice in choices}
    found: list[Choice] = []
    pairs: list[PairTerm] = []
    for group in groups:
        members = [
            (site, [name for name in names if name in options.get(site, ())])
            for site, names in group.members
        ]
        if not all(names for _, names in members):
            continue
        if len(members) == 2:
            (site, names), (other, others) = members
            pairs += [
                PairTerm(site, one, other, another, group.cost_ns)
                for one in names
                for another in others
                if group.cost_ns
            ]
        elif group.cost_ns < 0:
            identity = " and ".join(f"{site} {names[0]}" for site, names in members)
            found.append(
                Choice(identity, (Option(KEEP, 0, 0), Option(_TOGETHER, group.cost_ns, 0)))
            )
            pairs += [
                PairTerm(identity, _TOGETHER, site, other, -group.cost_ns)
                for site, names in members
                for other in options[site]
                if other not in names
            ]
    return found, tuple(pairs)


def _memory_of(memory: Sequence[MemoryStep], choices: Sequence[Choice]) -> tuple[MemoryStep, ...]:
    offered = {(choice.id, option.name) for choice in choices for option in choice.options}
    return tuple(
        replace(step, terms=tuple(term for term in step.terms if term[:2] in offered))
        for step in memory
    )


def with_choices(problem: Problem, choices: Sequence[Choice]) -> Problem:
    """The program with other choices; what is said of options that are not there is left out."""
    offered = {(choice.id, option.name) for choice in choices for option in choice.options}
    return replace(
        problem,
        choices=tuple(choices),
        pairs=tuple(pair for pair in problem.pairs if offered.issuperset(pair.ends)),
        memory=_memory_of(problem.memory, choices),
    )


def within(
    problem: Problem,
    *,
    max_loss: float | None,
    max_latency_ns: float | None,
    max_peak_bytes: float | None,
    max_size_bytes: float | None = None,
    objective: Objective = "latency",
) -> Problem:
    """The same program under budgets; losses as a share of fidelity."""
    return replace(
        problem,
        max_loss_ppm=None if max_loss is None else int(max_loss * _PPM),
        max_cost_ns=None if max_latency_ns is None else math.ceil(max_latency_ns),
        max_peak_bytes=None if max_peak_bytes is None else int(max_peak_bytes),
        max_size_bytes=None if max_size_bytes is None else int(max_size_bytes),
        objective=objective,
    )


def site_plans(evidence: Evidence, chosen: Mapping[str, str]) -> tuple[SitePlan, ...]:
    """What was chosen at each site and, for every other candidate, why not."""
    plans = []
    for site in evidence.sites:
        name = chosen.get(site.id, KEEP)
        alone = [evidence.figures(site, candidate) for candidate in site.candidates]
        figures = [_beside(f, site.id, evidence.groups, chosen) for f in alone]
        best = next((f for f in figures if f.name == name), None)
        estimator = evidence.estimator
        explained = tuple(
            f if f.reason or f.name == name else replace(f, reason=_why_not(f, best, estimator))
            for f in figures
        )
        plans.append(_site_plan(site, name, explained))
    return tuple(plans)


def _beside(
    figures: CandidateFigures, site: str, groups: Sequence[GroupTerm], chosen: Mapping[str, str]
) -> CandidateFigures:
    """Figures with what the candidate costs beside the chosen neighbours.

    What chosen neighbours cost together is shared out among them evenly.
    """
    if figures.difference_ns is None:
        return figures
    beside = 0.0
    for group in groups:
        others = group.others(site, figures.name)
        if others is not None and all(chosen.get(place) in names for place, names in others):
            share = len(group.members) if chosen.get(site) == figures.name else 1
            beside += group.cost_ns / share
    return replace(figures, difference_ns=figures.difference_ns + beside)


def unpriced_site_plans(sites: Sequence[OfferedSite], reason: str) -> tuple[SitePlan, ...]:
    """Every site kept, for a model that its target cannot price."""
    why = f"unpriced: {reason}"
    return tuple(
        _site_plan(
            site,
            KEEP,
            tuple(
                CandidateFigures(candidate.name, bool(candidate.exact), None, None, None, why)
                for candidate in site.candidates
            ),
        )
        for site in sites
    )


def applied_everywhere(survey: Survey | None) -> tuple[SitePlan, ...]:
    """What was rewritten behind the repair without having been chosen, and so without a price."""
    pairs = () if survey is None else survey.first_candidates
    return tuple(
        _site_plan(site, name, (CandidateFigures(name, False, None, None, None, ""),))
        for site, name in pairs
    )


def _site_plan(
    site: OfferedSite, chosen: str, candidates: tuple[CandidateFigures, ...]
) -> SitePlan:
    place = site.site
    spelling = str(place.facts.get("spelling", ""))
    return SitePlan(site.id, site.pass_name, place.kind, spelling, place.nodes, chosen, candidates)


def _why_not(figures: CandidateFigures, best: CandidateFigures | None, estimator: str) -> str:
    difference, noise = figures.difference_ns or 0.0, figures.noise_ns or 0.0
    size = figures.size_bytes or 0
    if difference >= 0 and size >= 0:
        return _no_faster(difference, noise)
    better = best is not None and (best.difference_ns or 0.0) <= difference
    if best is not None and better and (best.size_bytes or 0) <= size:
        return f"{best.name} saves as much and loses no more"
    loss = share_of_loss(figures.loss or 0.0, estimator)
    saved = [f"{-difference / 1e3:.1f} µs"] if difference < 0 else []
    saved += [f"{-size / 2**10:.1f} KiB"] if size < 0 else []
    return f"saves {' and '.join(saved)} for {loss}: spent better elsewhere"


def share_of_loss(loss: float, estimator: str) -> str:
    """A loss for people; other estimators than fidelity say nothing but which loss is larger."""
    if estimator != "fidelity":
        return f"{100 * loss:.3g} by the estimator {estimator}"
    return "all of the fidelity" if loss >= 1.0 else f"{100 * loss:.3g} % of the fidelity"


def _no_faster(difference_ns: float, noise_ns: float) -> str:
    if difference_ns == 0:
        within = f" (difference within ±{noise_ns / 1e3:.1f} µs)" if noise_ns else ""
        return f"no faster than keep{within}"
    return f"slower than keep by {difference_ns / 1e3:.1f} µs"
