"""Everything that is known before the first solve: prices, losses, live memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from actcc.accuracy.estimate import Estimates
from actcc.budget import Budget
from actcc.errors import BudgetError, ModelError
from actcc.estimators import Subject
from actcc.estimators.choice import choose_estimator, require_ranking
from actcc.estimators.noise import value_ranges
from actcc.estimators.record import default_folder
from actcc.graph import Array, Graph
from actcc.graph.size import file_bytes, model_bytes
from actcc.job import Data, Job
from actcc.neighbour_pricing import GroupTerm, price_neighbours
from actcc.neighbourhood import Finish, as_it_is
from actcc.prices import Backend, Price, Timing
from actcc.pricing import SitePrices, price_sites
from actcc.program import Evidence
from actcc.selection import MemoryStep
from actcc.site import Candidate, OfferedSite
from actcc.site_memory import memory_steps
from actcc.site_sizes import SiteSizes, site_sizes

# A site that alone loses this many times the whole budget is of no use.
_HOPELESS = 10.0


def gather_evidence(
    job: Job,
    baseline: Graph,
    graph: Graph,
    sites: Sequence[OfferedSite],
) -> Evidence:
    """Price every candidate, estimate every loss, time the network as it is.

    Args:
        baseline: the model as it was given; see `priced_baseline`.
        graph: the normalized network.

    Raises:
        BudgetError: a memory budget, where the peak is not known.
        DataError: the estimator needs more data than there is.
        PricingError: the target cannot time the network.
    """
    from actcc.price_cache import default_cache_path

    target, budget = job.target, job.budget
    folder = default_folder() if job.cache else None
    finish: Finish = as_it_is if job.whole_int8 is None else job.whole_int8.for_prices
    network = job.finished(graph)
    if job.data is not None:
        require_ranking(job.estimator, graph, job.data.calibration, job.metric.name, folder)
    with job.progress.stage("Timing the model"):
        before, timing = target.backend.time_models([baseline, network], _feeds(job.data))
    location: Path | None = default_cache_path() if job.cache else None
    prices = price_sites(
        graph, sites, job.passes, target, job.executor, job.progress, location, finish=finish
    )
    groups = price_neighbours(
        graph, sites, prices, job.passes, target, job.executor, job.progress, location
    )
    sizes = _sizes(job, graph, sites, finish)
    worth = [_worth_estimating(site, prices[site.id], groups, sizes, budget) for site in sites]
    estimates, estimator = _losses(job, graph, worth, folder)
    memory: tuple[MemoryStep, ...] = ()
    if budget.max_memory is not None:
        memory = _live_memory(job, graph, sites, prices, (before, timing))
    return Evidence(
        sites,
        prices,
        estimates,
        before.latency_ns,
        timing.latency_ns,
        before.peak_bytes,
        memory,
        estimator,
        before.dram_bytes,
        groups,
        before.noise_ns + timing.noise_ns,
        sizes,
        file_bytes(job.source),
        model_bytes(network),
    )


def _losses(
    job: Job, graph: Graph, sites: Sequence[OfferedSite], folder: Path | None
) -> tuple[Estimates | None, str]:
    """What candidates lose, and the estimator that says so; no losses where there is no data."""
    if job.data is None:
        return None, job.estimator
    subject = _subject(job, job.data, graph, sites)
    chosen = choose_estimator(job.estimator, subject, job.metric.name, folder)
    return chosen.losses(subject), chosen.name


def _sizes(job: Job, graph: Graph, sites: Sequence[OfferedSite], finish: Finish) -> SiteSizes:
    """What each candidate adds to the file; empty where size does not count."""
    if not job.budget.size_counts:
        return {}
    with job.progress.stage("Sizing weights"):
        return site_sizes(graph, sites, job.passes, finish)


def _live_memory(
    job: Job,
    graph: Graph,
    sites: Sequence[OfferedSite],
    prices: Mapping[str, SitePrices],
    timings: tuple[Timing, Timing],
) -> tuple[MemoryStep, ...]:
    """Live memory by step; empty where it says nothing of the peak.

    Args:
        timings: of the model as it was given, and of the normalized network.
    """
    peaks = [timing.peak_bytes for timing in timings if timing.peak_bytes is not None]
    if len(peaks) < len(timings):
        raise BudgetError(
            "--max-memory: sizes of tensors depend on data, so the peak is not known; "
            "leave the memory budget out"
        )
    backend = job.target.backend
    if peaks[-1] < backend.memory(graph).peak_bytes:
        return ()  # not all that is alive lies in the memory in question: the trials will tell
    with job.progress.stage("Sizing live memory"):
        priced = [s for s in sites if any(isinstance(p, Price) for p in prices[s.id].values())]
        return memory_steps(graph, priced, job.passes, backend)


def priced_baseline(original: Graph, normalized: Graph, backend: Backend) -> Graph:
    """What the result is timed against: the model as it was given.

    Where the backend cannot price it, because it calls functions, or computes shapes at run time
    until they are folded, the normalized network stands for it.
    """
    try:
        backend.memory(original)
    except ModelError:
        measured = backend.source == "measured"  # which needs no shapes inside
        return original if measured else normalized
    return original


def _worth_estimating(
    site: OfferedSite,
    prices: SitePrices,
    groups: Sequence[GroupTerm],
    sizes: SiteSizes,
    budget: Budget,
) -> OfferedSite:
    """The site with the candidates that may be chosen: those that save time, memory or bytes."""

    def may_be_chosen(candidate: Candidate) -> bool:
        price = prices.get(candidate.name)
        if not isinstance(price, Price):
            return False
        own = (group for group in groups if group.others(site.id, candidate.name) is not None)
        beside = sum(min(group.cost_ns, 0) for group in own)
        saves = price.difference_ns + beside < 0 or sizes.get((site.id, candidate.name), 0) < 0
        return saves or budget.max_memory is not None

    return replace(site, candidates=tuple(c for c in site.candidates if may_be_chosen(c)))


def _feeds(data: Data | None) -> Mapping[str, Array] | None:
    """A sample to time with; None where there is none."""
    return None if data is None else (data.calibration or data.evaluation)[0].inputs


def _subject(job: Job, data: Data, graph: Graph, sites: Sequence[OfferedSite]) -> Subject:
    return Subject(
        graph,
        sites,
        job.passes,
        data.calibration,
        job.executor,
        value_ranges(data.calibration or data.evaluation),
        job.seed,
        _HOPELESS * min(job.budget.drop_limit.value, 1.0),
        job.estimates_deadline,
        job.progress,
        job.effort.estimate_samples,
        job.journal,
        job.repairs,
    )
