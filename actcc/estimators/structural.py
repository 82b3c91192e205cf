"""Estimators that read the graph and run nothing.

Most rewrites leave what they count as it is. Sites whose rewrite does not are told apart by a
figure of the whole rewritten network.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from actcc.accuracy.estimate import Estimates, Key
from actcc.errors import ActccError
from actcc.estimators.estimator import Subject, as_losses
from actcc.graph import Graph
from actcc.pass_api import apply_candidates


@dataclass(frozen=True)
class StructuralDrop:
    """How far a figure of the graph falls below the original's; picklable."""

    figure: Callable[[Graph], float]
    original: float

    def __call__(self, rewritten: Graph) -> float:
        """See `actcc.estimators.estimator.NetworkLoss`."""
        return self.original - self.figure(rewritten)


def structural_losses(subject: Subject, drop: StructuralDrop, title: str) -> Estimates:
    """Losses of single changes from the figure of the network with each."""
    drops: dict[Key, float] = {}
    failed: dict[Key, str] = {}
    with subject.progress.stage(title, len(subject.sites)) as advance:
        for offered in subject.sites:
            if time.monotonic() >= subject.deadline:
                break
            functions = {c.computes: c.name for c in reversed(offered.candidates) if not c.exact}
            for function, name in functions.items():
                try:
                    rewritten = apply_candidates(
                        subject.graph, subject.passes, [(offered, name)], check=False
                    )
                    drops[offered.id, function] = drop(rewritten)
                except ActccError as error:
                    failed[offered.id, function] = str(error)
            advance()
    return Estimates(as_losses(drops), failed)
