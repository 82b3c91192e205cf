"""What a search chooses from, and what a trial says about its budget."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

from actcc.budget import Budget
from actcc.program import Evidence, build_problem, with_choices
from actcc.selection import Option, Problem
from actcc.selection.check import Totals, total
from actcc.selection.problem import Quantity
from actcc.site import KEEP
from actcc.trials import Refused, Trial

Chosen = Mapping[str, str]
"""Candidate by site id, without `keep`."""


@dataclass(frozen=True)
class Space:
    """The sites with their options, and the budget that plans are to keep.

    Attributes:
        problem: the integer program without budgets.
        predicts_metric: losses are estimated in the very metric that is measured.
        original_latency_ns: of the model as it was given.
        original_peak_bytes: None if it depends on data; known wherever memory has a budget.
        original_size_bytes: of its file.
        unchanged_latency_ns: the most that counts as no slower than the original.
        size_excess_bytes: by which files have been larger than they were predicted.
        seed: of every draw.
        passes: by site, the name of the pass that offers it; choices of the problem that are not
            among them are groups of sites, which follow from what the sites get.
    """

    problem: Problem
    budget: Budget
    predicts_metric: bool
    original_latency_ns: float
    original_peak_bytes: int | None
    seed: int
    passes: Mapping[str, str]
    original_size_bytes: int = 0
    unchanged_latency_ns: float = math.inf
    size_excess_bytes: int = 0

    @classmethod
    def of(cls, evidence: Evidence, budget: Budget, metric: str, seed: int) -> Space:
        """The space that the evidence opens."""
        return cls(
            build_problem(evidence),
            budget,
            metric == "fidelity" == evidence.estimator,
            evidence.original_latency_ns,
            evidence.peak_bytes,
            seed,
            {site.id: site.pass_name for site in evidence.sites},
            evidence.size_bytes,
            max(evidence.original_latency_ns, evidence.base_latency_ns) + evidence.latency_noise_ns,
        )

    def only(self, pass_name: str) -> Space:
        """The same space in which nothing but one pass may lose accuracy."""
        problem = self.problem
        choices = tuple(
            replace(
                choice,
                options=tuple(
                    option
                    for option in choice.options
                    if option.loss_ppm == 0 or self.passes[choice.id] == pass_name
                ),
            )
            for choice in problem.choices
        )
        return replace(self, problem=with_choices(problem, choices))

    @property
    def most_accurate(self) -> bool:
        """Whether accuracy is the objective, and latency the budget."""
        return self.budget.objective == "accuracy"

    @property
    def latency_limit_ns(self) -> float | None:
        """The latency budget; where size counts no slower than the original; None for none."""
        limit = self.budget.max_latency
        if limit is not None:
            return limit.against(self.original_latency_ns)
        bounded = self.budget.size_counts and math.isfinite(self.unchanged_latency_ns)
        return self.unchanged_latency_ns if bounded else None

    @property
    def size_limit_bytes(self) -> float | None:
        """The predicted size that keeps the size budget; None if there is none."""
        limit = self.budget.max_size
        if limit is None:
            return None
        return limit.against(self.original_size_bytes) - self.size_excess_bytes

    def sized_by(self, trial: Trial | Refused) -> Space:
        """The same space, where no plan's file is larger than predicted by more than one was."""
        if isinstance(trial, Refused):
            return self
        excess = trial.verdict.size_bytes[1] - self.totals(trial.chosen).size_bytes
        return replace(self, size_excess_bytes=max(self.size_excess_bytes, excess))

    @property
    def peak_limit_bytes(self) -> float | None:
        """The memory budget; None if there is none."""
        limit = self.budget.max_memory
        return None if limit is None else limit.against(self.original_peak_bytes or 0)

    @property
    def allowed_drop(self) -> float:
        """The accuracy budget as a share, at most 1."""
        return min(self.budget.drop_limit.value, 1.0)

    @cached_property
    def savings(self) -> dict[str, tuple[Option, ...]]:
        """By site, the options that save time, or bytes where size counts.

        With a memory budget every option is among them. Sites without any are left out.
        """
        found = {
            choice.id: tuple(
                option
                for option in choice.options
                if option.name != KEEP
                and (
                    option.cost_ns < 0
                    or (self.budget.size_counts and option.size_bytes < 0)
                    or self.budget.max_memory is not None
                )
            )
            for choice in self.problem.choices
            if choice.id in self.passes
        }
        return {site: options for site, options in found.items() if options}

    @property
    def saved_quantity(self) -> Quantity:
        """What plans are to save: the latency, or the size where that is the objective."""
        return "size" if self.budget.objective == "size" else "cost"

    @cached_property
    def largest_loss(self) -> float:
        """Predicted loss of the plan that spends most, as a share."""
        losses = (max(o.loss_ppm for o in choice.options) for choice in self.problem.choices)
        return sum(losses) / 1e6

    def without_conflicts(self, wishes: Iterable[tuple[str, str]]) -> dict[str, str]:
        """A plan of the wishes (site, option), earlier ones first; a node is claimed once.

        A later wish for a site replaces an earlier one, unless others claim its nodes.
        """
        chosen: dict[str, str] = {}
        owner: dict[str, str] = {}
        for site, name in wishes:
            claims = self.problem.options[site][name].claims
            if any(owner.get(node, site) != site for node in claims):
                continue
            owner = {node: other for node, other in owner.items() if other != site}
            owner.update(dict.fromkeys(claims, site))
            chosen[site] = name
        return chosen

    def holds(self, chosen: Chosen) -> bool:
        """Whether all that a plan chooses is among the options."""
        options = self.problem.options
        return all(name in options[site] for site, name in chosen.items())

    def totals(self, chosen: Chosen) -> Totals:
        """Predicted latency, loss, peak and size of a plan."""
        everywhere = {choice.id: chosen.get(choice.id, KEEP) for choice in self.problem.choices}
        # A group costs as much again beside what is not of it.
        apart = {p.site_a for p in self.problem.pairs if everywhere[p.site_b] == p.option_b}
        for choice in self.problem.choices:
            if choice.id not in self.passes and choice.id not in apart:
                everywhere[choice.id] = choice.options[-1].name
        return total(self.problem, everywhere)

    def spent(self, trial: Trial | Refused) -> tuple[bool, float]:
        """Whether a trial kept the budget that the search moves along, and its used share.

        That is the accuracy budget, or the latency budget where accuracy is the objective. The
        share may be negative, or infinite.
        """
        if isinstance(trial, Refused):
            return False, math.inf
        verdict = trial.verdict
        if self.most_accurate and self.budget.max_latency is not None:
            limit = self.budget.max_latency.against(verdict.latency.original_ns)
            share = verdict.latency.result_ns / limit
            return share <= 1.0, share
        figures = verdict.accuracy
        if figures is None or not figures.allowed_drop:
            return verdict.holds, 1.0
        share = figures.bound / figures.allowed_drop
        return share <= 1.0, share

    def is_unlucky(self, trial: Trial) -> bool:
        """Whether a trial kept the accuracy budget by its drop, but not by the bound on it."""
        figures = trial.verdict.accuracy
        if figures is None or not figures.allowed_drop:
            return False
        return figures.drop <= figures.allowed_drop < figures.bound
