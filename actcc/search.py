"""The search: solve, rewrite, verify, tighten, until the budgets are met and used."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from actcc.errors import ActccError, InfeasibleError
from actcc.graph import Graph
from actcc.pass_api import Pass, apply_candidates
from actcc.program import Evidence, build_problem, within
from actcc.progress import Advance, Progress
from actcc.selection import Problem, Solution, solve
from actcc.site import KEEP
from actcc.trials import Allowance, LatencyAllowance, Refused, Trial, Trials
from actcc.verify import Verifier

_SOLVE_LIMIT_S = 20.0
SOLVER_WORKERS = 2  # part of a plan's provenance: CP-SAT's answer may depend on it
# Solves that lead to a plan that was tried already cost no trial; this ends a search of such.
_MOST_SOLVES = 30


def search_plans(
    graph: Graph,
    passes: Sequence[Pass],
    evidence: Evidence,
    verifier: Verifier,
    trials: Trials,
    staging: Path,
    file_name: str,
    progress: Progress,
) -> Trials:
    """Fill `trials`; what is verified by then survives an interruption by Ctrl-C.

    Raises:
        InfeasibleError: no plan meets the budgets even by prediction.
    """
    problem = build_problem(evidence)
    run = _Run(graph, passes, evidence, verifier, trials, staging, file_name, problem)
    try:
        with progress.stage("Solving and verifying", trials.most) as advance:
            if evidence.estimates is None:
                run.fall_back(advance)
            else:
                run.tighten(advance)
                if trials.best is None:
                    run.fall_back(advance)
    except InfeasibleError as error:
        raise _in_users_units(error, evidence.original_latency_ns) from error
    except KeyboardInterrupt:
        if trials.best is None:
            raise
        progress.note("interrupted: the best verified plan so far is written")
    return trials


@dataclass
class _Run:
    """One search; holds what every trial needs."""

    graph: Graph
    passes: Sequence[Pass]
    evidence: Evidence
    verifier: Verifier
    trials: Trials
    staging: Path
    file_name: str
    problem: Problem

    @property
    def most_accurate(self) -> bool:
        """Whether accuracy is the objective, and latency the budget."""
        return self.verifier.budget.objective == "accuracy"

    def tighten(self, advance: Advance) -> None:
        """Trials under a moving allowance."""
        budget = self.verifier.budget
        allowance: Allowance | LatencyAllowance
        if self.most_accurate and budget.max_latency is not None:
            limit = budget.max_latency.against(self.evidence.original_latency_ns)
            allowance = LatencyAllowance(limit)
        else:
            allowance = Allowance.first(self._relative_drop())
        if allowance.value <= 0:
            return  # exact rewrites alone, which the caller falls back to
        for _ in range(_MOST_SOLVES):
            if allowance.settled or not self.trials.wanted:
                break
            try:
                solution = self.solve(allowance.value)
            except InfeasibleError:
                if self.trials.done:
                    break  # the allowance was tightened past what can be reached
                raise
            known = self.trials.tried(_rewrites(solution))
            if known is None:
                advance()
            held, spent = self._learned(known or self.attempt(solution))
            if known is not None and held and allowance.value >= self._largest_loss:
                break  # everything that saves time is in the plan already
            allowance.learn(held=held, spent=0.0 if known is not None and held else spent)

    def fall_back(self, advance: Advance) -> None:
        """Exact rewrites alone: the plan that cannot lose accuracy.

        Raises:
            InfeasibleError: they do not meet the budgets, and no plan was tried before.
        """
        try:
            solution = self._solve(max_loss=0.0, max_latency_ns=self._latency_limit())
        except InfeasibleError:
            if self.trials.count:
                return
            raise
        if self.trials.tried(_rewrites(solution)) is None:
            self.attempt(solution)
            advance()

    @cached_property
    def _largest_loss(self) -> float:
        """Predicted loss of the plan that spends most, as a share."""
        losses = (max(o.loss_ppm for o in choice.options) for choice in self.problem.choices)
        return sum(losses) / 1e6

    def solve(self, allowance: float) -> Solution:
        """The best plan by prediction under an allowance.

        Where latency and memory cannot be met within it, the least loss that meets them is tried:
        the measured drop decides, not the predicted one.

        Raises:
            InfeasibleError: no plan meets the budgets.
        """
        if self.most_accurate:
            return self._solve(max_loss=None, max_latency_ns=allowance)
        limit = self._latency_limit()
        try:
            return self._solve(max_loss=allowance, max_latency_ns=limit)
        except InfeasibleError as error:
            if "max_loss_ppm" not in error.nearest:
                return self._solve(max_loss=None, max_latency_ns=limit)  # names the user's budgets
            least = error.nearest["max_loss_ppm"] / 1e6
            if self.verifier.metric.name == "fidelity" and least > self._relative_drop():
                return self._solve(max_loss=self._relative_drop(), max_latency_ns=limit)
            return self._solve(max_loss=least, max_latency_ns=limit)

    def _latency_limit(self) -> float | None:
        latency = self.verifier.budget.max_latency
        original = self.evidence.original_latency_ns
        return None if latency is None else latency.against(original)

    def _solve(self, *, max_loss: float | None, max_latency_ns: float | None) -> Solution:
        memory = self.verifier.budget.max_memory
        peak = self.evidence.peak_bytes or 0  # known wherever there is a memory budget
        limited = within(
            self.problem,
            max_loss=max_loss,
            max_latency_ns=max_latency_ns,
            max_peak_bytes=None if memory is None else memory.against(peak),
            most_accurate=self.most_accurate,
        )
        return solve(
            limited,
            seed=self.verifier.seed,
            workers=SOLVER_WORKERS,
            time_limit_s=_SOLVE_LIMIT_S,
        )

    def attempt(self, solution: Solution) -> Trial | Refused:
        """Rewrite, write and verify one plan; one that fails on the way ends no other."""
        trial: Trial | Refused
        try:
            trial = self._attempt(solution)
        except ActccError as error:
            trial = Refused(_rewrites(solution), str(error))
        self.trials.add(trial)
        return trial

    def _attempt(self, solution: Solution) -> Trial:
        chosen = _rewrites(solution)
        by_id = {site.id: site for site in self.evidence.sites}
        pairs = [(by_id[identity], name) for identity, name in chosen.items()]
        rewritten = apply_candidates(self.graph, self.passes, pairs)
        folder = self.staging / f"trial-{self.trials.count}"
        folder.mkdir()
        path = folder / self.file_name  # a side file of weights is named after it
        rewritten.save(path, external=self.graph.external)
        exact = all(site.candidate(name).exact for site, name in pairs)
        verdict = self.verifier.verify(path, exact=exact)
        # The machine's pace may have changed since the base was timed; the ratio has not.
        pace = verdict.latency.original_ns / self.evidence.original_latency_ns
        predicted = solution.cost_ns * pace
        return Trial(chosen, predicted, solution.loss_ppm / 1e6, path, verdict)

    def _relative_drop(self) -> float:
        return min(self.verifier.budget.drop_limit.value, 1.0)

    def _learned(self, trial: Trial | Refused) -> tuple[bool, float]:
        """Whether the allowance held, and what was used of the budget as a share."""
        if isinstance(trial, Refused):
            return False, math.inf
        verdict, budget = trial.verdict, self.verifier.budget
        if self.most_accurate and budget.max_latency is not None:
            limit = budget.max_latency.against(verdict.latency.original_ns)
            spent = verdict.latency.result_ns / limit
            return spent <= 1.0, spent
        figures = verdict.accuracy
        if figures is None or not figures.allowed_drop:
            return verdict.holds, 1.0
        spent = figures.bound / figures.allowed_drop
        return spent <= 1.0, spent


def _in_users_units(error: InfeasibleError, original_ns: float) -> InfeasibleError:
    """Latency budgets are often given in per cent: say the nearest one so too."""
    reachable = error.nearest.get("max_cost_ns")
    if reachable is None:
        return error
    share = 100 * reachable / original_ns
    return InfeasibleError(f"{error} (latency: {share:.1f} % of the original)", error.nearest)


def _rewrites(solution: Solution) -> Mapping[str, str]:
    return {site: name for site, name in solution.chosen.items() if name != KEEP}
