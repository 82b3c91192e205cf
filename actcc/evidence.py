"""Everything that is known before the first solve: prices, losses, live memory."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from concurrent.futures import Executor
from dataclasses import replace
from pathlib import Path

from actcc.accuracy.estimate import (
    Estimates,
    Task,
    merge,
    plan_chunks,
    reference_outputs,
    run_task,
)
from actcc.accuracy.fidelity import FidelityReference
from actcc.budget import Budget
from actcc.calibration import SampleSet
from actcc.errors import BudgetError, ModelError
from actcc.graph import Graph
from actcc.pass_api import Pass
from actcc.prices import Backend, Price
from actcc.pricing import SitePrices, price_sites
from actcc.program import Evidence
from actcc.progress import Progress
from actcc.selection import MemoryStep
from actcc.site import Candidate, OfferedSite
from actcc.site_memory import memory_steps
from actcc.targets import Target
from actcc.tasks import map_tasks

# One site at a time needs few samples: the ranking of sites is what counts (see docs/how-it-works).
ESTIMATE_SAMPLES = 16
# A site that alone loses this many times the whole budget is of no use.
_HOPELESS = 10.0


def gather_evidence(
    baseline: Graph,
    graph: Graph,
    sites: Sequence[OfferedSite],
    passes: Sequence[Pass],
    target: Target,
    budget: Budget,
    calibration: SampleSet | None,
    executor: Executor,
    progress: Progress,
    cache: bool,
    deadline: float = math.inf,
) -> Evidence:
    """Price every candidate, estimate every loss, time the network as it is.

    Args:
        baseline: the model as it was given; see `priced_baseline`.
        deadline: of the estimates, on `time.monotonic()`; what is not estimated by then is not
            offered.

    Raises:
        BudgetError: a memory budget, where the peak is not known.
        PricingError: the target cannot time the network.
    """
    from actcc.price_cache import default_cache_path

    with progress.stage("Timing the model"):
        feeds = None if calibration is None else calibration[0].inputs
        before, timing = target.backend.time_models([baseline, graph], feeds)
    location: Path | None = default_cache_path() if cache else None
    prices = price_sites(graph, sites, passes, target, executor, progress, location)
    estimates: Estimates | None = None
    if calibration is not None:
        worth = [_worth_estimating(site, prices[site.id], budget) for site in sites]
        estimates = _estimate(
            graph, worth, passes, budget, calibration, executor, progress, deadline
        )
    memory: tuple[MemoryStep, ...] = ()
    if budget.max_memory is not None:
        if before.peak_bytes is None:
            raise BudgetError(
                "--max-memory: sizes of tensors depend on data, so the peak is not known; "
                "leave the memory budget out"
            )
        with progress.stage("Sizing live memory"):
            priced = [s for s in sites if any(isinstance(p, Price) for p in prices[s.id].values())]
            memory = memory_steps(graph, priced, passes, target.backend)
    return Evidence(
        sites, prices, estimates, before.latency_ns, timing.latency_ns, before.peak_bytes, memory
    )


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
    deadline: float,
) -> Estimates:
    few = calibration.take(ESTIMATE_SAMPLES)
    allowed = min(budget.drop_limit.value, 1.0)
    chunks, failed = plan_chunks(graph, sites, passes)
    with (
        tempfile.TemporaryDirectory(prefix="actcc-estimates-") as folder,
        progress.stage("Estimating accuracy", len(chunks)) as advance,
    ):
        path = Path(folder) / "normalized.onnx"
        graph.save(path, external=graph.external)
        reference = FidelityReference(reference_outputs(graph, few))
        tasks = [
            Task(path, graph.input_shapes, chunk, few, reference, _HOPELESS * allowed)
            for chunk in chunks
        ]
        found = merge(map_tasks(executor, run_task, tasks, advance, deadline=deadline))
    wanted = [key for chunk in chunks for work in chunk for key in work.keys]
    late = [key for key in wanted if key not in found.losses and key not in found.failed]
    if late:
        progress.note(
            f"time limit: {len(late)} of {len(wanted)} candidates were not estimated and are not "
            "offered; raise --time-limit"
        )
    reason = "the time limit came first; raise --time-limit"
    return Estimates(found.losses, {**dict.fromkeys(late, reason), **failed, **found.failed})
