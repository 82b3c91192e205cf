"""Selection: which candidate each site gets, decided exactly under the user's budgets.

`solve` takes a `Problem` and returns a `Solution`; `check` verifies a plan in plain Python;
`pareto` sweeps the loss budget. Importing this package loads no solver.
"""

from __future__ import annotations

from actcc.selection.check import Totals, ViolationError, check
from actcc.selection.pareto import pareto
from actcc.selection.problem import (
    Choice,
    MemoryStep,
    Objective,
    Option,
    PairTerm,
    Problem,
    ProblemError,
)
from actcc.selection.solution import Solution
from actcc.selection.solver import UndecidedError, solve

__all__ = [
    "Choice",
    "MemoryStep",
    "Objective",
    "Option",
    "PairTerm",
    "Problem",
    "ProblemError",
    "Solution",
    "Totals",
    "UndecidedError",
    "ViolationError",
    "check",
    "pareto",
    "solve",
]
