"""What a search strategy is: it proposes plans, and learns from what their trials measured."""

from __future__ import annotations

from typing import Protocol

from actcc.search.space import Chosen
from actcc.trials import Refused, Trial


class Strategy(Protocol):
    """Proposes one plan at a time; made from a `Space` and the trials there have been already.

    The same space, seed and trials lead to the same proposals.
    """

    def propose(self) -> Chosen | None:
        """The next plan to try; None where nothing is left to try.

        Raises:
            InfeasibleError: no plan meets the budgets even by prediction.
        """

    def learn(self, trial: Trial | Refused, *, known: bool) -> None:
        """Take in the trial of the plan that was proposed last.

        Args:
            known: it had been tried before, and cost nothing.
        """
