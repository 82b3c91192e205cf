"""Random selection problems, and the answer by trying every plan."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator

from actcc.selection import Choice, MemoryStep, Objective, Option, PairTerm, Problem
from actcc.selection.check import Totals, ViolationError, check
from actcc.selection.problem import CRITERIA


def small_problem(seed: int) -> Problem:
    """A few sites with ties, claims, pair terms, memory steps, sizes and random budgets."""
    rng = random.Random(seed)
    scale = rng.choice([4, 30, 5000])
    choices = tuple(
        Choice(f"s{site}", tuple(_small_options(rng, site, scale)))
        for site in range(rng.randint(1, 5))
    )
    pairs = tuple(_small_pairs(rng, choices, scale))
    memory = tuple(_small_memory(rng, choices))
    return Problem(
        choices=choices,
        pairs=pairs,
        memory=memory,
        base_cost_ns=rng.choice([0, 3 * scale]),
        base_size_bytes=rng.choice([0, 10]),
        max_loss_ppm=rng.choice([None, rng.randint(0, 3 * scale)]),
        max_cost_ns=rng.choice([None, rng.randint(-4 * scale, 4 * scale)]),
        max_peak_bytes=rng.choice([None, rng.randint(0, 30)]),
        max_size_bytes=rng.choice([None, rng.randint(0, 40)]),
        objective=rng.choice(["latency", "accuracy", "size"]),
    )


def _small_options(rng: random.Random, site: int, scale: int) -> Iterator[Option]:
    yield Option("keep", rng.choice([0, rng.randint(0, scale)]), 0, size_bytes=rng.randint(0, 9))
    for number in range(rng.randint(0, 3)):
        claimed = {f"n{site}"} | {f"n{rng.randint(0, 5)}" for _ in range(rng.randint(0, 2))}
        yield Option(
            f"c{number}",
            rng.randint(-scale, scale),
            rng.randint(0, scale),
            frozenset(claimed) if rng.random() < 0.6 else frozenset(),
            rng.randint(-3, 9),
        )


def _small_pairs(rng: random.Random, choices: tuple[Choice, ...], scale: int) -> Iterator[PairTerm]:
    if len(choices) > 1:
        for _ in range(rng.choice([0, 0, 3, 8])):
            first, second = rng.sample(choices, 2)
            yield PairTerm(
                first.id,
                rng.choice(first.options).name,
                second.id,
                rng.choice(second.options).name,
                rng.randint(-scale, scale),
            )


def _small_memory(rng: random.Random, choices: tuple[Choice, ...]) -> Iterator[MemoryStep]:
    for step in range(rng.choice([0, 0, 2, 4])):
        touched = rng.sample(choices, rng.randint(0, len(choices)))
        terms = tuple(
            (choice.id, option.name, rng.randint(-2, 12))
            for choice in touched
            for option in choice.options
        )
        yield MemoryStep(f"step{step}", rng.randint(0, 12), terms)


def plans(problem: Problem) -> Iterator[dict[str, str]]:
    """Every choice of one option a site."""
    names = [[option.name for option in choice.options] for choice in problem.choices]
    for picked in itertools.product(*names):
        yield {choice.id: name for choice, name in zip(problem.choices, picked, strict=True)}


def feasible_totals(problem: Problem) -> list[Totals]:
    """The totals of every plan that keeps all rules."""
    found = []
    for plan in plans(problem):
        try:
            found.append(check(problem, plan))
        except ViolationError:
            continue
    return found


def objectives(problem: Problem, totals: Totals) -> tuple[int, int]:
    """The first and the second criterion."""
    first, second = CRITERIA[problem.objective]
    return totals.of(first), totals.of(second)


def large_problem(
    sites: int,
    seed: int,
    *,
    correlation: str = "weak",
    candidates: int = 8,
    joined: float = 0.0,
    memory_steps: int = 0,
    sized: bool = False,
    objective: Objective = "latency",
) -> Problem:
    """A network-like instance: positive costs, losses that grow with what is saved.

    Args:
        correlation: of loss and saving; "weak" (noise on a proportion), "diminishing" (the last
            savings cost most), "strong" (a proportion plus a fixed charge, hard for knapsacks).
        candidates: options a site, `keep` included.
        joined: share of sites that swallow the next two, and of neighbours with pair terms.
        memory_steps: steps of the schedule under a binding peak.
        sized: whether options have sizes, and a size budget binds where size is no objective.
    """
    rng = random.Random(seed)
    costs = [1000 + int(rng.lognormvariate(11, 1)) for _ in range(sites)]
    choices = []
    for site, cost in enumerate(costs):
        claims = {f"n{site}"}
        if rng.random() < joined:
            claims |= {f"n{site + 1}", f"n{site + 2}"}
        slope = rng.uniform(0.2, 2.0)
        options = [Option("keep", cost, 0, size_bytes=rng.randint(0, 9000) if sized else 0)]
        for number in range(1, candidates):
            share = rng.uniform(0.05, 0.95)
            loss = {
                "weak": cost * share * rng.uniform(0.3, 1.7) * 1e-3,
                "diminishing": share**2 * slope * rng.uniform(0.7, 1.3) * 300,
                "strong": cost * share * 1e-3 + 20,
            }[correlation]
            size = rng.randint(0, 9000) if sized else 0
            saved = int(cost * share)
            options.append(Option(f"c{number}", cost - saved, int(loss), frozenset(claims), size))
        choices.append(Choice(f"s{site}", tuple(options)))
    most_loss = sum(max(option.loss_ppm for option in choice.options) for choice in choices)
    keep_cost = sum(costs)
    return Problem(
        choices=tuple(choices),
        pairs=tuple(_neighbour_terms(rng, choices, joined)),
        memory=tuple(_large_memory(rng, choices, memory_steps)),
        max_loss_ppm=int(0.2 * most_loss) if objective != "accuracy" else None,
        max_cost_ns=int(0.7 * keep_cost) if objective == "accuracy" else None,
        max_peak_bytes=16_000 if memory_steps else None,
        max_size_bytes=4000 * sites if sized and objective != "size" else None,
        objective=objective,
    )


def _neighbour_terms(rng: random.Random, choices: list[Choice], share: float) -> Iterator[PairTerm]:
    """Between some neighbours: each meeting of the first's odd and the second's even options."""
    for first, second in itertools.pairwise(choices):
        if rng.random() < share:
            cost = int(first.options[0].cost_ns * rng.uniform(-0.2, 0.2))
            for a in first.options[1::2]:
                for b in second.options[2::2]:
                    yield PairTerm(first.id, a.name, second.id, b.name, cost)


def _large_memory(rng: random.Random, choices: list[Choice], steps: int) -> Iterator[MemoryStep]:
    for step in range(steps):
        terms = tuple(
            (choice.id, option.name, rng.randint(0, 1000))
            for choice in rng.sample(choices, 20)
            for option in choice.options
        )
        yield MemoryStep(f"step{step}", 7000, terms)
