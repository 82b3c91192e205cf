"""The selection problem: which candidate each site gets, under which budgets."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cached_property
from numbers import Integral
from typing import Literal

from actcc.errors import ActccError
from actcc.site import KEEP

Objective = Literal["latency", "accuracy", "size"]
Quantity = Literal["cost", "loss", "size", "peak"]

# What each objective minimises, and what decides among equals.
CRITERIA: Mapping[Objective, tuple[Quantity, Quantity]] = {
    "latency": ("cost", "loss"),
    "accuracy": ("loss", "cost"),
    "size": ("size", "cost"),
}

# Sums stay exact in 64-bit floats and CP-SAT never overflows: 2**52 ns are 52 days.
LARGEST_SUM = 2**52


class ProblemError(ActccError, ValueError):
    """A selection problem contradicts itself: duplicate, unknown or impossible parts."""


@dataclass(frozen=True)
class Option:
    """One candidate of a site as the solver sees it.

    Attributes:
        cost_ns: latency, or latency difference against `keep`; may be negative.
        loss_ppm: estimated accuracy loss in parts per million; not negative.
        claims: names of the nodes that the candidate rewrites.
        size_bytes: size of its weights, or the difference against `keep`.
    """

    name: str
    cost_ns: int
    loss_ppm: int
    claims: frozenset[str] = frozenset()
    size_bytes: int = 0

    def of(self, quantity: Quantity) -> int:
        """What the option adds to a sum, by the quantity that budgets know it by."""
        figures = {"cost": self.cost_ns, "loss": self.loss_ppm, "size": self.size_bytes}
        return figures.get(quantity, 0)


@dataclass(frozen=True)
class Choice:
    """A site: exactly one of its options is chosen; the first is `keep` and claims nothing."""

    id: str
    options: tuple[Option, ...]


@dataclass(frozen=True)
class PairTerm:
    """A cost in nanoseconds, of either sign, added where both options are chosen."""

    site_a: str
    option_a: str
    site_b: str
    option_b: str
    cost_ns: int

    @property
    def ends(self) -> tuple[tuple[str, str], tuple[str, str]]:
        """Site and option of both."""
        return (self.site_a, self.option_a), (self.site_b, self.option_b)


@dataclass(frozen=True)
class MemoryStep:
    """Live bytes at one step of the schedule: base plus the bytes of each chosen (site, option)."""

    name: str
    base_bytes: int
    terms: tuple[tuple[str, str, int], ...] = ()


@dataclass(frozen=True)
class Problem:
    """All choices with their budgets; a budget of None does not bind.

    A node may be claimed by one site only (set partition). `latency` minimises the total cost and
    breaks ties by the least loss; `accuracy` minimises the total loss, `size` the total size, and
    both break ties by the least cost.

    Attributes:
        base_cost_ns: added to every plan's cost; of what no choice changes.
        base_size_bytes: added to every plan's size.
        max_loss_ppm, max_cost_ns, max_peak_bytes, max_size_bytes: budgets on the totals.

    Raises:
        ProblemError: duplicate ids, unknown names in pair terms or memory steps, a first option
            that is not `keep` or claims nodes, a negative loss, a figure that is not an integer,
            or sums beyond 2**52.
    """

    choices: tuple[Choice, ...]
    pairs: tuple[PairTerm, ...] = ()
    memory: tuple[MemoryStep, ...] = ()
    base_cost_ns: int = 0
    base_size_bytes: int = 0
    max_loss_ppm: int | None = None
    max_cost_ns: int | None = None
    max_peak_bytes: int | None = None
    max_size_bytes: int | None = None
    objective: Objective = "latency"

    def __post_init__(self) -> None:
        _refuse_duplicates("site", [choice.id for choice in self.choices], "the problem")
        for choice in self.choices:
            _validate_choice(choice)
        for pair in self.pairs:
            self._validate_pair(pair)
        for step in self.memory:
            for site, option, _ in step.terms:
                self._require(site, option, f"memory step '{step.name}'")
        _require_integers(self)
        _require_moderate_sums(self)
        if self.objective not in CRITERIA:
            raise ProblemError(
                f"unknown objective {self.objective!r} in the problem; "
                f"use one of: {', '.join(CRITERIA)}"
            )

    @cached_property
    def options(self) -> dict[str, dict[str, Option]]:
        """Options by site and name."""
        return {
            choice.id: {option.name: option for option in choice.options} for choice in self.choices
        }

    @cached_property
    def positions(self) -> dict[str, tuple[int, dict[str, int]]]:
        """By site: its index, and the index of each of its options by name."""
        return {
            choice.id: (site, {option.name: index for index, option in enumerate(choice.options)})
            for site, choice in enumerate(self.choices)
        }

    @property
    def budgets(self) -> dict[Quantity, int]:
        """The budgets that are given, by the quantity that they bound."""
        given: dict[Quantity, int | None] = {
            "cost": self.max_cost_ns,
            "loss": self.max_loss_ppm,
            "peak": self.max_peak_bytes,
            "size": self.max_size_bytes,
        }
        return {quantity: int(limit) for quantity, limit in given.items() if limit is not None}

    def _validate_pair(self, pair: PairTerm) -> None:
        where = f"pair term '{pair.site_a}' and '{pair.site_b}'"
        self._require(pair.site_a, pair.option_a, where)
        self._require(pair.site_b, pair.option_b, where)
        if pair.site_a == pair.site_b:
            raise ProblemError(
                f"a pair term joins a site with itself in {where}; "
                "add its cost to the option instead"
            )

    def _require(self, site: str, option: str, where: str) -> None:
        if site not in self.options:
            raise ProblemError(
                f"unknown site '{site}' in {where}; name a site that is among the choices"
            )
        if option not in self.options[site]:
            known = ", ".join(self.options[site])
            raise ProblemError(
                f"unknown option '{option}' of site '{site}' in {where}; use one of: {known}"
            )


def _refuse_duplicates(kind: str, names: Iterable[str], where: str) -> None:
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        raise ProblemError(
            f"duplicate {kind} '{repeated[0]}' in {where}; give each {kind} a name of its own"
        )


def _validate_choice(choice: Choice) -> None:
    where = f"site '{choice.id}'"
    if not choice.options or choice.options[0].name != KEEP:
        raise ProblemError(
            f"the first option is not '{KEEP}' at {where}; put '{KEEP}' before all candidates"
        )
    if choice.options[0].claims:
        raise ProblemError(
            f"'{KEEP}' claims nodes at {where}; only candidates that rewrite nodes claim them"
        )
    _refuse_duplicates("option", [option.name for option in choice.options], where)
    for option in choice.options:
        if option.loss_ppm < 0:
            raise ProblemError(
                f"negative loss {option.loss_ppm} ppm of '{option.name}' at {where}; "
                "count a gain in accuracy as a loss of 0"
            )


def _figures(problem: Problem) -> Iterable[tuple[str, str, object]]:
    """Every number with its unit and place."""
    yield "base_cost_ns", "the problem", problem.base_cost_ns
    yield "base_size_bytes", "the problem", problem.base_size_bytes
    for quantity, limit in problem.budgets.items():
        yield f"the budget on {quantity}", "the problem", limit
    for choice in problem.choices:
        for option in choice.options:
            where = f"option '{option.name}' of site '{choice.id}'"
            yield "cost_ns", where, option.cost_ns
            yield "loss_ppm", where, option.loss_ppm
            yield "size_bytes", where, option.size_bytes
    for pair in problem.pairs:
        yield "cost_ns", f"pair term '{pair.site_a}' and '{pair.site_b}'", pair.cost_ns
    for step in problem.memory:
        yield "base_bytes", f"memory step '{step.name}'", step.base_bytes
        for site, _, size in step.terms:
            yield "bytes", f"memory step '{step.name}', site '{site}'", size


def _require_integers(problem: Problem) -> None:
    for what, where, value in _figures(problem):
        if not isinstance(value, Integral):
            raise ProblemError(f"{what} is {value!r} in {where}; round it to an integer")


def _require_moderate_sums(problem: Problem) -> None:
    total = sum(abs(int(value)) for _, _, value in _figures(problem) if isinstance(value, Integral))
    if total > LARGEST_SUM:
        raise ProblemError(
            "the figures add up to more than 2**52 in the problem; "
            "check that costs are in ns, losses in ppm and sizes in bytes"
        )
