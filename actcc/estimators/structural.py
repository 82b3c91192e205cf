"""Estimators that read the graph and run nothing.

They count what layers with weights there are and how these are connected. A rewrite that touches
none of them leaves the figure as it is; for the others it is taken of the whole rewritten network.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from actcc.accuracy.estimate import Estimates, Key, plan_chunks
from actcc.errors import ActccError
from actcc.estimators.estimator import Subject, as_losses
from actcc.estimators.measured import late_keys
from actcc.graph import Graph
from actcc.graph.operators import HEAVY
from actcc.pass_api import apply_candidates
from actcc.site import OfferedSite


@dataclass(frozen=True)
class StructuralShift:
    """How far a figure of the graph is from the original's; picklable."""

    figure: Callable[[Graph], float]
    original: float

    def __call__(self, rewritten: Graph) -> float:
        """See `actcc.estimators.estimator.NetworkLoss`."""
        return abs(self.figure(rewritten) - self.original)


def structural_losses(subject: Subject, shift: StructuralShift, name: str) -> Estimates:
    """Losses of single changes from the figure of the network with each.

    A change that leaves the figure as it is has no estimate.
    """
    shifts: dict[Key, float] = {}
    chunks, failed = plan_chunks(subject.graph, subject.sites, subject.passes)
    works = [work for chunk in chunks for work in chunk]
    with subject.progress.stage(f"Scores by {name}", len(works)) as advance:
        for work in works:
            if time.monotonic() >= subject.deadline:
                break
            for key, part in zip(work.keys, work.rewritten.values(), strict=True):
                try:
                    found = _shift_of_one(subject, shift, work.offered, part, key)
                    if found > 0:
                        shifts[key] = found
                    else:
                        failed[key] = f"{name} stays the same, which says nothing of accuracy"
                except ActccError as error:
                    failed[key] = str(error)
            advance()
    wanted = [key for work in works for key in work.keys]
    late = late_keys(subject, wanted, Estimates(shifts, failed))
    return Estimates(as_losses(shifts), {**late, **failed})


def _shift_of_one(
    subject: Subject, shift: StructuralShift, offered: OfferedSite, part: Graph, key: Key
) -> float:
    """What one change does to the figure: nothing where no layer with weights is touched."""
    before = (subject.graph.node(name).op for name in offered.site.nodes)
    after = (node.op for node in part.nodes())
    if HEAVY.isdisjoint(before) and HEAVY.isdisjoint(after):
        return 0.0
    chosen = next(c.name for c in offered.candidates if not c.exact and c.computes == key[1])
    return shift(apply_candidates(subject.graph, subject.passes, [(offered, chosen)], check=False))
