"""What the solver answers: a plan with its totals and the proof behind it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Literal

from actcc.selection.problem import Objective, ProblemError

Status = Literal["optimal", "feasible"]


@dataclass(frozen=True)
class Solution:
    """The chosen option of every site; equal to another if the plan and its proof are equal.

    Attributes:
        chosen: option by site.
        cost_ns, loss_ppm, peak_bytes, size_bytes: totals of the plan, bases included.
        bound: no plan within the budgets has a smaller objective; in ns for the objective
            `latency`, in ppm for `accuracy`, in bytes for `size`.
        gap: (objective - bound) as a share of the objective itself or of the distance to `keep`
            everywhere, whichever is smaller; 0 if proved optimal. See `relative_gap`.
        status: `optimal` if the objective is proved to be the least.
        ties_settled: whether the second criterion is proved to be the least among plans with the
            same objective; never True for a `feasible` plan.
        reproducible: False if the clock ended the search before its deterministic effort did:
            only then may the same input give another plan.
        workers, seed: what the plan depends on beside the problem.
        wall_s: seconds the search took.
    """

    chosen: Mapping[str, str]
    cost_ns: int
    loss_ppm: int
    peak_bytes: int
    size_bytes: int
    objective: Objective
    bound: int
    gap: float
    status: Status
    ties_settled: bool
    reproducible: bool
    workers: int
    seed: int
    wall_s: float = field(compare=False)

    def to_json(self) -> str:
        """The solution as JSON text."""
        return json.dumps(asdict(self), indent=2)

    @classmethod
    def from_json(cls, text: str) -> Solution:
        """The solution that `to_json` wrote.

        Raises:
            ProblemError: the text is not JSON or its keys are not those of a solution.
        """
        try:
            return cls(**json.loads(text))
        except (TypeError, ValueError) as error:
            raise ProblemError(
                f"not a solution ({error}) in the JSON text; pass what Solution.to_json wrote"
            ) from error


def relative_gap(objective: int, bound: int, keep_objective: int) -> float:
    """The share of the objective that is not proved, in its stricter sensible reading.

    Costs may be differences around a large constant, and a gap relative to the total would then
    flatter the plan: it is measured against the distance from `keep` everywhere as well, and the
    smaller of both scales counts. Each scale is the larger of what the plan and what the bound
    reaches, so that the gap stays meaningful for a plan near `keep` or near zero.
    """
    if objective <= bound:
        return 0.0
    total = max(abs(objective), abs(bound))
    moved = max(abs(keep_objective - objective), abs(keep_objective - bound))
    return (objective - bound) / max(1, min(total, moved))
