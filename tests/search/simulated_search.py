"""A search without networks: the drop of a plan is a function of its predicted loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from actcc.accuracy.estimate import Estimates
from actcc.budget import Amount, Budget
from actcc.journal import Journal
from actcc.plan import AccuracyFigures, LatencyFigures
from actcc.program import Evidence
from actcc.search import Search
from actcc.search.space import Space
from actcc.selection import Choice, Option, Problem
from actcc.trials import Refused, Trial, Trials
from actcc.verify import Verdict

ORIGINAL_NS = 100_000
NOTHING_KNOWN = Evidence((), {}, Estimates({}, {}), ORIGINAL_NS, ORIGINAL_NS, None)


def site(name: str, *options: tuple[str, int, int], claims: tuple[str, ...] = ()) -> Choice:
    """A site with options (name, nanoseconds saved, ppm lost)."""
    claimed = frozenset(claims or (name,))
    found = [Option(option, -saved, loss, claimed) for option, saved, loss in options]
    return Choice(name, (Option("keep", 0, 0), *found))


def many_sites(count: int = 20) -> Problem:
    """Sites that save between 100 and 2,000 ns and lose between 0.01 and 0.2 %, in no order."""
    choices = []
    for index in range(count):
        saved, loss = 100 * (1 + 7 * index % count), 100 * (1 + 3 * index % count)
        cheap = ("cheap", saved, 2 * loss)
        choices.append(site(f"s{index}", cheap, ("mild", saved // 2, loss // 2)))
    return Problem(tuple(choices), base_cost_ns=ORIGINAL_NS)


@dataclass(frozen=True)
class SimulatedSearch(Search):
    """Measures nothing: latency as predicted, drop by a function, refusals by another.

    Attributes:
        costs: what a loss of a pass costs when measured; sites "swap3" are of the pass "swap".
        width: by which the bound on a drop is above it.
    """

    problem: Problem
    budget: Budget
    drop: Callable[[float], float]
    refuses: Callable[[Mapping[str, str]], bool]
    seed: int
    costs: Callable[[str], float]
    width: float
    attempted: list[dict[str, str]] = field(default_factory=list)

    def pass_of(self, site: str) -> str:
        return site.rstrip("0123456789")

    @cached_property
    def space(self) -> Space:
        passes = {choice.id: self.pass_of(choice.id) for choice in self.problem.choices}
        return Space(self.problem, self.budget, True, ORIGINAL_NS, None, self.seed, passes)

    def attempt(self, chosen: Mapping[str, str]) -> Trial | Refused:
        self.attempted.append(dict(chosen))
        trial: Trial | Refused = Refused(chosen, "refused")
        if not self.refuses(chosen):
            trial = self._verified(chosen)
        self.trials.add(trial)
        return trial

    def _verified(self, chosen: Mapping[str, str]) -> Trial:
        totals = self.space.totals(chosen)
        loss = totals.loss_ppm / 1e6
        spent = sum(
            self.costs(self.pass_of(place)) * self.problem.options[place][name].loss_ppm
            for place, name in chosen.items()
        )
        dropped = self.drop(spent / 1e6)
        allowed = self.budget.drop_limit.value
        limit = self.budget.max_latency
        latency = totals.cost_ns / ORIGINAL_NS
        failures = ["drop"] if dropped + self.width > allowed else []
        if limit is not None and latency > limit.value:
            failures.append("latency")
        accuracy = AccuracyFigures(
            "fidelity", 1.0, 1.0 - dropped, allowed, 9, 0.8, most_drop=dropped + self.width
        )
        figures = LatencyFigures(ORIGINAL_NS, totals.cost_ns, latency, 0.0, "estimated")
        verdict = Verdict(accuracy, figures, (None, None), 0.0, tuple(failures))
        return Trial(chosen, totals.cost_ns, loss, Path(f"{self.trials.attempted}"), verdict)


def simulate(
    strategy: str,
    problem: Problem,
    *,
    budget: Budget | None = None,
    drop: Callable[[float], float] = lambda loss: loss,
    refuses: Callable[[Mapping[str, str]], bool] = lambda chosen: False,
    costs: Callable[[str], float] = lambda name: 1.0,
    width: float = 0.0,
    most: int = 8,
    seed: int = 0,
    trials: Trials | None = None,
) -> SimulatedSearch:
    """A finished search; budget 1 % unless another is given."""
    search = SimulatedSearch(
        graph=None,  # type: ignore[arg-type]
        passes=(),
        evidence=NOTHING_KNOWN,
        verifier=None,  # type: ignore[arg-type]
        trials=trials or Trials(most, float("inf"), (budget or Budget()).objective),
        staging=Path(),
        file_name="model.onnx",
        journal=Journal(),
        problem=problem,
        budget=budget or Budget(Amount(0.01, True)),
        drop=drop,
        refuses=refuses,
        seed=seed,
        costs=costs,
        width=width,
    )
    search.run(strategy, lambda: None)
    return search
