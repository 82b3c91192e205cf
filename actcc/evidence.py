"""Everything that is known before the first solve: prices, losses, live memory."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import replace
from pathlib import Path

from actcc.accuracy.estimate import Estimates, merge, plan_tasks, reference_outputs, run_task
from actcc.accuracy.fidelity import FidelityReference
from actcc.budget import Budget
from actcc.calibration import SampleSet
from actcc.graph import Graph
from actcc.pass_api import Pass
from actcc.prices import Price
from actcc.pricing import SitePrices, price_sites
from actcc.program import Evidence
from actcc.progress import Progress
from actcc.site import Candidate, OfferedSite
from actcc.site_memory import memory_steps
from actcc.targets import Target
from actcc.tasks import map_tasks

# One site at a time needs few samples: the ranking of sites is what counts (see docs/how-it-works).
ESTIMATE_SAMPLES = 16
# A site that alone loses this many times the whole budget is of no use.
_HOPELESS = 10.0


def gather_evidence(
    original: Graph,
    graph: Graph,
    sites: Sequence[OfferedSite],
    passes: Sequence[Pass],
    target: Target,
    budget: Budget,
    calibration: SampleSet | None,
    executor: Executor,
    progress: Progress,
    cache: bool,
) -> Evidence:
    """Price every candidate, estimate every loss, time the network as it is."""
    from actcc.price_cache import default_cache_path

    location: Path | None = default_cache_path() if cache else None
    prices = price_sites(graph, sites, passes, target, executor, progress, location)
    estimates: Estimates | None = None
    if calibration is not None:
        worth = [_worth_estimating(site, prices[site.id], budget) for site in sites]
        estimates = _estimate(graph, worth, passes, budget, calibration, executor, progress)
    with progress.stage("Timing the model"):
        before, timing = target.backend.time_models([original, graph])
    limited = budget.max_memory is not None
    memory = memory_steps(graph, sites, passes, target.backend) if limited else ()
    return Evidence(
        sites, prices, estimates, before.latency_ns, timing.latency_ns, before.peak_bytes, memory
    )


def _worth_estimating(site: OfferedSite, prices: SitePrices, budget: Budget) -> OfferedSite:
    """The site with the candidates that may be chosen: those that save time, or memory."""

    def may_be_chosen(candidate: Candidate) -> bool:
        price = prices.get(candidate.name)
        return isinstance(price, Price) and (
            price.difference_ns < 0 or budget.max_memory is not None
        )

    return replace(site, candidates=tuple(c for c in site.candidates if may_be_chosen(c)))


def _estimate(
    graph: Graph,
    sites: Sequence[OfferedSite],
    passes: Sequence[Pass],
    budget: Budget,
    calibration: SampleSet,
    executor: Executor,
    progress: Progress,
) -> Estimates:
    few = calibration.take(ESTIMATE_SAMPLES)
    reference = FidelityReference(reference_outputs(graph, few))
    allowed = 1.0 if budget.max_drop is None else budget.max_drop.value
    tasks, failed = plan_tasks(graph, sites, passes, few, reference, _HOPELESS * allowed)
    with progress.stage("Estimating accuracy", len(tasks)) as advance:
        found = merge(map_tasks(executor, run_task, tasks, advance))
    return Estimates(found.losses, {**failed, **found.failed})
