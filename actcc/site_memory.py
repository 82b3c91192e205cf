"""Live memory at each site under each candidate, for the peak-memory budget.

The schedule of the network does not change with an activation, so the bytes alive beside a site are
those of the original; what a candidate changes is the peak inside the site (a spelled-out SiLU
holds one tensor more than a HardSwish).
"""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence

from actcc.errors import ActccError, ModelError
from actcc.graph import Graph, extract
from actcc.neighbourhood import holds_subgraph
from actcc.pass_api import Pass, apply_pass
from actcc.prices import Backend
from actcc.selection import MemoryStep
from actcc.site import KEEP, OfferedSite


def memory_steps(
    graph: Graph, sites: Sequence[OfferedSite], passes: Sequence[Pass], backend: Backend
) -> tuple[MemoryStep, ...]:
    """One step for each site, and one for the highest step outside all sites.

    Where another site that shares nodes with it is rewritten, a site stays as it is by name only:
    its step is void then, and the other's counts.
    """
    live = dict(backend.memory(graph).steps)
    by_name = {found.name: found for found in passes}
    parts = {offered.id: _with_writers(graph, offered) for offered in sites}
    claims = {offered.id: frozenset(offered.site.nodes) for offered in sites}
    around = {name for nodes in parts.values() for name in nodes}
    outside = max((size for name, size in live.items() if name not in around), default=0)
    steps = [MemoryStep("outside all sites", outside, ())]
    for offered in sites:
        nodes = parts[offered.id]
        alive = max(live.get(name, 0) for name in nodes)
        peaks = _local_peaks(extract(graph, nodes), offered, by_name, backend)
        beside = alive - peaks.get(KEEP, 0)
        own = [(offered.id, name, size) for name, size in peaks.items()]
        void = [
            (other.id, candidate.name, -max(alive, 0))
            for other in sites
            if other is not offered and not claims[other.id].isdisjoint(claims[offered.id])
            for candidate in other.candidates
        ]
        steps.append(MemoryStep(offered.id, max(beside, 0), (*own, *void)))
    return tuple(steps)


def _with_writers(graph: Graph, offered: OfferedSite) -> set[str]:
    """The site and the layers that feed it, into which it may fuse."""
    nodes = [graph.node(name) for name in offered.site.nodes]
    read = [tensor for node in nodes for tensor in node.inputs if not tensor.is_empty()]
    writers = [graph.producer(tensor) for tensor in read]
    layers = {node.name for node in writers if node is not None and not holds_subgraph(node)}
    return {*offered.site.nodes, *layers}


def _local_peaks(
    part: Graph, offered: OfferedSite, passes: Mapping[str, Pass], backend: Backend
) -> dict[str, int]:
    """Peak inside the part by candidate; empty where the part by itself cannot be sized."""
    peaks: dict[str, int] = {}
    with contextlib.suppress(ModelError):
        peaks[KEEP] = backend.memory(part).peak_bytes
        for candidate in offered.candidates:
            rewritten = part.copy()
            peaks[candidate.name] = peaks[KEEP]  # where it cannot be sized by itself
            with contextlib.suppress(ActccError):
                apply_pass(passes[offered.pass_name], rewritten, offered.site, candidate)
                peaks[candidate.name] = backend.memory(rewritten).peak_bytes
    return peaks
