"""How plans are looked for, and how much effort a run makes.

A preset's settings can each be given by itself and then win. Loads nothing heavy: the command line
shows these in its help.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

from actcc.errors import BudgetError, require_known


@dataclass(frozen=True)
class Effort:
    """What a run may spend.

    Attributes:
        max_trials: plans that are rewritten and verified at most.
        time_limit_s: no trial starts after this time; prices are not counted in it.
        estimate_samples: calibration samples that single sites are estimated on.
    """

    max_trials: int
    time_limit_s: float
    estimate_samples: int

    def but(self, max_trials: int | None, time_limit_s: float | None) -> Effort:
        """The same with what was asked for by name."""
        return replace(
            self,
            max_trials=self.max_trials if max_trials is None else max_trials,
            time_limit_s=self.time_limit_s if time_limit_s is None else time_limit_s,
        )


# One site at a time needs few samples: the ranking of sites is what counts (docs/how-it-works.md).
PRESETS = {
    "quick": Effort(max_trials=3, time_limit_s=120.0, estimate_samples=6),
    "default": Effort(max_trials=8, time_limit_s=600.0, estimate_samples=16),
    "thorough": Effort(max_trials=24, time_limit_s=3600.0, estimate_samples=64),
}
# Share of the time limit that estimates may not use up.
TIME_FOR_TRIALS = 0.5
# For all points of a front together.
FRONT_EFFORT = PRESETS["default"].but(24, 1800.0)
# The keys of `actcc.search.STRATEGIES`, which takes the solver's libraries to load.
STRATEGY_NAMES = ("cpsat", "greedy", "random", "optuna")
# How `actcc.repair` re-fits weights; it takes the runtime to load.
REPAIR_METHODS = ("closed-form", "distill", "none")
# What the result runs in, and names of passes, off by default, that this asks for.
PRECISIONS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"auto": (), "float": (), "mixed": ("quantize-layers",), "int8": ("quantize-layers",)}
)
INT8 = "int8"  # of these the one in which nothing that can run in int8 stays in floating point


def check_precision(name: str) -> str:
    """The name itself.

    Raises:
        BudgetError: there is no such precision.
    """
    return require_known("--precision", "precision", name, PRECISIONS, BudgetError)


def load_preset(name: str) -> Effort:
    """The preset of that name.

    Raises:
        BudgetError: there is none.
    """
    if name not in PRESETS:
        raise BudgetError(f"no preset is named '{name}'; there are: {', '.join(PRESETS)}")
    return PRESETS[name]
