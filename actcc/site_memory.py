"""Live memory at each site under each candidate, for the peak-memory budget.

The schedule of the network does not change with an activation, so the bytes alive beside a site are
those of the original; what a candidate changes is the peak inside the site (a spelled-out SiLU
holds one tensor more than a HardSwish).
"""

from __future__ import annotations

from collections.abc import Sequence

from actcc.errors import ActccError
from actcc.graph import Graph, extract
from actcc.memory import peak_memory
from actcc.pass_api import Pass
from actcc.selection import MemoryStep
from actcc.site import KEEP, OfferedSite


def memory_steps(
    graph: Graph, sites: Sequence[OfferedSite], passes: Sequence[Pass]
) -> tuple[MemoryStep, ...]:
    """One step for each site, and one for the highest step outside all sites."""
    live = dict(peak_memory(graph).steps)
    by_name = {found.name: found for found in passes}
    claimed = {name for offered in sites for name in offered.site.nodes}
    outside = max((size for name, size in live.items() if name not in claimed), default=0)
    steps = [MemoryStep("outside all sites", outside, ())]
    for offered in sites:
        inside = max(live.get(name, 0) for name in offered.site.nodes)
        peaks = _local_peaks(graph, offered, by_name[offered.pass_name])
        beside = inside - peaks[KEEP]
        terms = tuple((offered.id, name, size) for name, size in peaks.items())
        steps.append(MemoryStep(offered.id, max(beside, 0), terms))
    return tuple(steps)


def _local_peaks(graph: Graph, offered: OfferedSite, found: Pass) -> dict[str, int]:
    part = extract(graph, offered.site.nodes)
    peaks = {KEEP: peak_memory(part).peak_bytes}
    for candidate in offered.candidates:
        rewritten = part.copy()
        try:
            found.apply(rewritten, offered.site, candidate)
        except ActccError:
            continue  # it has no price either, and so is not offered
        peaks[candidate.name] = peak_memory(rewritten).peak_bytes
    return peaks
