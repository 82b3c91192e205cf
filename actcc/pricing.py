"""Prices of all sites: every distinct neighbourhood once, from the cache or the backend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

from actcc.graph import Graph
from actcc.latency_models import Profile
from actcc.neighbourhood import Finish, as_it_is, neighbourhoods
from actcc.network_pricing import price_in_network
from actcc.pass_api import Pass
from actcc.price_cache import PriceCache, cached_price
from actcc.prices import NetworkBackend, Price, PriceQuery, Unpriced
from actcc.progress import PRICING, Progress
from actcc.site import KEEP, OfferedSite
from actcc.targets import Target
from actcc.tasks import map_tasks

SitePrices = Mapping[str, Price | Unpriced]


@dataclass(frozen=True)
class PriceTask:
    """One query for one target; picklable. Without a cache path nothing is remembered."""

    profile: Profile
    query: PriceQuery
    cache: Path | None


def run_price_task(task: PriceTask) -> dict[str, Price | Unpriced]:
    """Price one neighbourhood."""
    backend = Target(task.profile).backend
    if task.cache is None or not backend.cacheable:
        return backend.price(task.query)
    return cached_price(PriceCache(task.cache), backend, task.query)


def price_sites(
    graph: Graph,
    sites: Sequence[OfferedSite],
    passes: Sequence[Pass],
    target: Target,
    executor: Executor,
    progress: Progress,
    cache: Path | None,
    *,
    stage: str = PRICING,
    finish: Finish = as_it_is,
) -> dict[str, SitePrices]:
    """Prices by site id and candidate name; every candidate of every site has an entry.

    Args:
        stage: what the progress calls it.
        finish: what is done to all of the network behind the rewrite of its sites; not for backends
            that price networks as a whole.
    """
    backend = target.backend
    kept = cache if cache is not None and backend.cacheable and PriceCache(cache).usable() else None
    if isinstance(backend, NetworkBackend):
        known = None if kept is None else PriceCache(kept)
        return dict(price_in_network(graph, sites, passes, backend, executor, progress, known))
    groups, failed = neighbourhoods(graph, sites, passes, finish)
    prices: dict[str, SitePrices] = {}
    by_id = {offered.id: offered for offered in sites}
    for identity, reason in failed.items():
        names = [KEEP, *(c.name for c in by_id[identity].candidates)]
        prices[identity] = dict.fromkeys(names, reason)
    tasks = [PriceTask(target.profile, g.query, kept) for g in groups]
    # Measurements would disturb each other; the rest is arithmetic and runs wherever there is room.
    measured = backend.source == "measured"
    with progress.stage(stage, len(tasks)) as advance:
        answers = map_tasks(
            executor, run_price_task, tasks, advance, concurrency=1 if measured else None
        )
    for group, answer in zip(groups, answers, strict=True):
        for identity in group.sites:
            prices[identity] = {**answer, **group.failed}
    return prices
