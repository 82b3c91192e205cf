"""The loop solve → rewrite → verify → tighten.

Losses of single sites do not add up: the joint loss is often several times their sum. The program
is therefore solved under an *allowance* of predicted loss that is moved until the measured drop
just holds: down in proportion where it does not, up where there is room, by bisection once both
sides are known. For `--objective accuracy` the allowance is the predicted latency.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from actcc.budget import Objective
from actcc.pass_api import Survey
from actcc.plan import AccuracyFigures
from actcc.verify import Verdict

# Joint losses were seen at three times the sum of the single ones; start below that.
_FIRST_SHARE = 0.4
_LARGEST_STEP = 4.0
_CLOSE_ENOUGH = 1.08
_USED = 0.95
_LATENCY_USED = 0.97
_LATENCY_MARGIN = 0.99


@dataclass(frozen=True)
class Trial:
    """One plan, rewritten and verified.

    Attributes:
        chosen: candidate by site id, without `keep`.
        predicted_latency_ns: base latency and the sum of the chosen prices.
        predicted_loss: sum of the single losses of fidelity.
        path: the verified file.
        behind: see `actcc.rewriting.Rewritten`.
    """

    chosen: Mapping[str, str]
    predicted_latency_ns: float
    predicted_loss: float
    path: Path
    verdict: Verdict
    behind: Survey | None = None


@dataclass
class Allowance:
    """The predicted loss that the next solve may spend; moved by each measured drop.

    Attributes:
        value: for the next solve.
        low: the largest value whose plan held.
        high: the smallest value whose plan did not.
    """

    value: float
    low: float = 0.0
    high: float = math.inf

    @classmethod
    def first(cls, budget: float) -> Allowance:
        """A careful start for a budget, as a share of the original's accuracy."""
        return cls(_FIRST_SHARE * budget)

    @classmethod
    def warm(cls, budget: float, known: Iterable[tuple[float, bool, float]]) -> Allowance:
        """A start for a budget from what trials have measured, under whatever budget.

        Args:
            known: of each trial its predicted loss, and `held` and `spent` as `learn` takes them.
        """
        allowance = cls.first(budget)
        useful = [entry for entry in known if entry[0] > 0 and entry[2] > 0]
        low = max((loss for loss, held, _ in useful if held), default=0.0)
        # A trial that lost by chance bounds nothing below one that held.
        bounding = [entry for entry in useful if entry[1] or entry[0] > low]
        bounding.sort(key=lambda entry: entry[0] if entry[1] else -entry[0])
        for loss, held, spent in bounding:
            allowance.value = loss
            allowance.learn(held=held, spent=spent)
        if allowance.low > 0 and math.isfinite(allowance.high):
            allowance.value = allowance._between(_USED / _rate(useful))
        return allowance

    def learn(self, *, held: bool, spent: float) -> None:
        """Move after a trial.

        Args:
            held: whether the plan kept its accuracy budget.
            spent: measured drop as a share of the allowed one; may be negative or huge.
        """
        if held:
            self.low = max(self.low, self.value)
        else:
            self.high = min(self.high, self.value)
        if math.isinf(self.high):
            step = 0.9 / spent if spent > 0 else _LARGEST_STEP
            self.value *= min(max(step, 1.3), _LARGEST_STEP)
        elif self.low <= 0:
            step = 0.9 / spent if math.isfinite(spent) and spent > 0 else 0.0
            self.value = self.high * min(max(step, 1 / _LARGEST_STEP), 0.75)
        else:
            guess = self.value * _USED / spent if spent > 0 else math.sqrt(self.low * self.high)
            self.value = self._between(guess)

    def _between(self, guess: float) -> float:
        """The guess, but not too close to either side."""
        margin: float = (self.high / self.low) ** 0.25
        return min(max(guess, self.low * margin), self.high / margin)

    @property
    def settled(self) -> bool:
        """Whether the two sides are as close as one more trial is worth."""
        return self.low > 0 and self.high / self.low < _CLOSE_ENOUGH


def _rate(known: Iterable[tuple[float, bool, float]]) -> float:
    """Share of the budget for a unit of predicted loss; trials close to the budget count most.

    One trial alone is off by the noise of its drop.
    """
    spent_in_all = loss_in_all = 0.0
    for loss, _, spent in known:
        weight = min(spent, 1 / spent)
        spent_in_all += weight * spent
        loss_in_all += weight * loss
    return spent_in_all / loss_in_all


@dataclass
class LatencyAllowance:
    """The predicted latency that the next solve may take, for `--objective accuracy`.

    Predictions of latency are close, so each measurement corrects the allowance in proportion.
    """

    value: float
    settled: bool = False

    def learn(self, *, held: bool, spent: float) -> None:
        """Move after a trial; `spent` is measured latency as a share of the budget."""
        self.settled = held and spent > _LATENCY_USED
        self.value *= _LATENCY_MARGIN / spent if spent > 0 else 1.0


def rank(verdict: Verdict, objective: Objective) -> tuple[float, float]:
    """What an objective makes small, and what decides among equals."""
    latency = verdict.latency.ratio
    drop = 0.0 if verdict.accuracy is None else verdict.accuracy.drop
    if objective == "size":
        return float(verdict.size_bytes[1]), latency
    return (drop, latency) if objective == "accuracy" else (latency, drop)


@dataclass(frozen=True)
class Refused:
    """A plan that could not be rewritten, written or verified, and why."""

    chosen: Mapping[str, str]
    reason: str


@dataclass
class Trials:
    """Trials so far, the best of them, and whether another is wanted.

    Attributes:
        most: number of plans that are verified at most.
        deadline: on `time.monotonic()`.
        objective: what makes a trial better than another.
        interrupted: whether Ctrl-C ended them.
    """

    most: int
    deadline: float
    objective: Objective
    done: list[Trial] = field(default_factory=list)
    refused: list[Refused] = field(default_factory=list)
    interrupted: bool = False

    def add(self, trial: Trial | Refused) -> None:
        """Remember a trial."""
        if isinstance(trial, Trial):
            self.done.append(trial)
        else:
            self.refused.append(trial)

    @property
    def attempted(self) -> int:
        """Plans that were tried, those that were refused included."""
        return len(self.done) + len(self.refused)

    @property
    def wanted(self) -> bool:
        """Whether there is room for another trial; for the first there always is.

        A plan that was refused takes no room: nothing was measured.
        """
        in_time = time.monotonic() < self.deadline
        return self.attempted == 0 or (len(self.done) < self.most and in_time)

    def tried(self, chosen: Mapping[str, str]) -> Trial | Refused | None:
        """The trial of exactly this plan, if there was one."""
        everything: list[Trial | Refused] = [*self.done, *self.refused]
        return next((trial for trial in everything if trial.chosen == chosen), None)

    @property
    def nearest(self) -> AccuracyFigures | None:
        """Figures of the trial that is sure to lose the least; None without data or trials."""
        found = [t.verdict.accuracy for t in self.done if t.verdict.accuracy is not None]
        return min(found, key=lambda figures: figures.bound, default=None)

    @property
    def best(self) -> Trial | None:
        """The best trial that holds its budgets and is better than the original."""
        holding = [t for t in self.done if t.verdict.holds and t.verdict.better]
        return min(holding, key=lambda trial: rank(trial.verdict, self.objective), default=None)
