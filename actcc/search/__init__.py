"""The search: which plans are tried, by which strategy, until the budgets are met and used."""

from __future__ import annotations

from actcc.search.cpsat import SOLVER_WORKERS
from actcc.search.run import STRATEGIES, Search, check_strategy, search_plans

__all__ = ["SOLVER_WORKERS", "STRATEGIES", "Search", "check_strategy", "search_plans"]
