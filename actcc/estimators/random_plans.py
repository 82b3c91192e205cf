"""Random plans to compare estimators on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from actcc.accuracy.estimate import Key
from actcc.errors import ActccError
from actcc.site import OfferedSite

_DRAWS_A_PLAN = 20


@dataclass(frozen=True)
class DrawnPlan:
    """A plan of approximate candidates.

    Attributes:
        chosen: candidate by site id, without `keep`.
        functions: what each of them computes, by site id.
    """

    chosen: Mapping[str, str]
    functions: Mapping[str, str]

    @property
    def keys(self) -> list[Key]:
        """The changes, one a site."""
        return list(self.functions.items())


def approximate_functions(site: OfferedSite) -> dict[str, str]:
    """By what it computes, the first approximate candidate of a site that computes it."""
    return {c.computes: c.name for c in reversed(site.candidates) if not c.exact}


def draw_plans(sites: Sequence[OfferedSite], count: int, seed: int) -> list[DrawnPlan]:
    """Different plans; fewer where there are not so many.

    The share of sites that a plan rewrites is log-uniform between one site and all, in as many
    even steps as there are plans, so that their accuracies spread. Each plan draws the functions
    that it may use; each site takes one of these.

    Raises:
        ActccError: no site has an approximate candidate.
    """
    open_sites = [site for site in sites if approximate_functions(site)]
    if not open_sites:
        raise ActccError(
            "no site has an approximate candidate, so that there are no plans to compare; "
            "`actcc inspect --explain` says why"
        )
    random = np.random.default_rng(seed)
    plans: dict[tuple[Key, ...], DrawnPlan] = {}
    for step in range(count):
        for _ in range(_DRAWS_A_PLAN):
            share = (step + random.uniform()) / count
            plan = _draw(open_sites, round(len(open_sites) ** share), random)
            if plan.keys and tuple(plan.keys) not in plans:
                plans[tuple(plan.keys)] = plan
                break
    return list(plans.values())


def _draw(sites: Sequence[OfferedSite], count: int, random: np.random.Generator) -> DrawnPlan:
    known = sorted({function for site in sites for function in approximate_functions(site)})
    allowed = {known[i] for i in random.permutation(len(known))[: random.integers(len(known)) + 1]}
    claimed: set[str] = set()
    chosen: dict[str, tuple[str, str]] = {}
    for index in random.permutation(len(sites)):
        site = sites[index]
        names = approximate_functions(site)
        functions = [function for function in names if function in allowed]
        if len(chosen) == count or not functions or not claimed.isdisjoint(site.site.nodes):
            continue
        function = functions[random.integers(len(functions))]
        claimed.update(site.site.nodes)
        chosen[site.id] = function, names[function]
    ordered = [site.id for site in sites if site.id in chosen]
    return DrawnPlan(
        {identity: chosen[identity][1] for identity in ordered},
        {identity: chosen[identity][0] for identity in ordered},
    )
