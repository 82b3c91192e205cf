"""Predicted against compiled latency of mixed plans on Ethos-U, and the time that pricing takes.

    python tests/backends/ethos_u/benchmark_ethos_u.py [--structure] [MODEL.onnx …]

Every network is priced for every target; a mixed plan takes at each site one of the candidates
(or `keep`) by a seeded draw. Its predicted latency is that of the network plus what the chosen
candidates save; its compiled latency is Vela's for the rewritten network. Networks whose clamps
leave nothing to choose are priced with SiLU in their place, which has every candidate. Plans are of
activations alone, and with --structure of all passes.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from actcc.graph import Graph
from actcc.normalize import normalize
from actcc.pass_api import Pass, apply_pass, find_sites, select_passes
from actcc.passes.swap_activation import activation_sites
from actcc.prices import Price
from actcc.pricing import SitePrices, price_sites
from actcc.progress import Silent
from actcc.site import OfferedSite, Site
from actcc.targets import load_target
from actcc.tasks import default_workers, process_pool

STRUCTURE = "--structure"
ACTIVATIONS = ("swap-activation", "move-activation")

EXAMPLES = Path(__file__).resolve().parents[3] / "examples"
OWN = (
    EXAMPLES / "fashion_mnist" / "fashion_mnist.onnx",
    EXAMPLES / "garment_detector" / "garment_detector.onnx",
)
TARGETS = ("ethos-u55-256", "ethos-u65-512", "ethos-u85-256")
CLAMPS = frozenset({"Relu", "Relu6", "Clip"})
KEPT_SHARE = 0.3


@dataclass(frozen=True)
class Row:
    """One network on one target."""

    network: str
    target: str
    candidates: int
    pricing_s: float
    original_ms: float
    predicted_ms: float
    compiled_ms: float

    def __str__(self) -> str:
        error = 100 * (self.predicted_ms / self.compiled_ms - 1)
        return (
            f"| {self.network} | {self.target} | {self.candidates} | {self.pricing_s:.1f} | "
            f"{self.original_ms:.3f} | {self.predicted_ms:.3f} | {self.compiled_ms:.3f} | "
            f"{error:+.2f} |"
        )


def main(models: Sequence[str]) -> None:
    """Print one row for each network and target."""
    print(
        "| network | target | candidates | priced in s | original ms | predicted ms | compiled ms "
        "| error % |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for path in (*OWN, *map(Path, models)):
        name, graph = path.stem, normalize(Graph.load(path)).graph
        sites = [found for found in activation_sites(graph) if isinstance(found, Site)]
        if all(site.kind in CLAMPS for site in sites):
            name, graph = f"{name} with SiLU", with_silu(graph, sites)
        for target in TARGETS:
            print(measure(name, graph, target), flush=True)


def with_silu(graph: Graph, sites: Sequence[Site]) -> Graph:
    """The network with x·sigmoid(x) at every activation."""
    changed = graph.copy()
    for site in sites:
        gate = changed.insert("Sigmoid", [site.reads])
        changed.replace(site, "Mul", [site.reads, gate])
    return changed


def measure(name: str, graph: Graph, target_name: str) -> Row:
    """Price a network, draw a mixed plan, and compile it."""
    target = load_target(target_name)
    passes = [p for p in select_passes(None) if STRUCTURE in sys.argv or p.name in ACTIVATIONS]
    sites = find_sites(graph, passes, target).sites
    with process_pool(default_workers()) as executor:
        started = time.perf_counter()
        prices = price_sites(graph, sites, passes, target, executor, Silent(), None)
        seconds = time.perf_counter() - started
    mixed, saved_ns = mixed_plan(graph, sites, passes, prices)
    before, after = target.backend.time_models([graph, mixed])
    return Row(
        name,
        target_name,
        len({(site.pass_name, c.name) for site in sites for c in site.candidates}),
        seconds,
        before.latency_ns / 1e6,
        (before.latency_ns + saved_ns) / 1e6,
        after.latency_ns / 1e6,
    )


def mixed_plan(
    graph: Graph,
    sites: Sequence[OfferedSite],
    passes: Sequence[Pass],
    prices: dict[str, SitePrices],
) -> tuple[Graph, float]:
    """The network under a seeded draw of candidates, and the sum of their differences in ns."""
    draw, mixed, difference = random.Random(0), graph.copy(), 0.0
    by_name = {found.name: found for found in passes}
    claimed: set[str] = set()
    for offered in sites:
        found = prices[offered.id]
        # Spellings that compile to the same are one candidate, lest they crowd out the others.
        distinct: dict[int, str] = {}
        for candidate in offered.candidates:
            price = found[candidate.name]
            if isinstance(price, Price):
                distinct.setdefault(round(price.difference_ns), candidate.name)
        if not distinct or draw.random() < KEPT_SHARE or claimed & set(offered.site.nodes):
            continue
        chosen = draw.choice(list(distinct.values()))
        rewrite = by_name[offered.pass_name]
        apply_pass(rewrite, mixed, offered.site, offered.candidate(chosen))
        claimed.update(offered.site.nodes)
        price = found[chosen]
        assert isinstance(price, Price)
        difference += price.difference_ns
    return mixed, difference


if __name__ == "__main__":
    main([argument for argument in sys.argv[1:] if argument != STRUCTURE])
