"""`--search random`: plans drawn at random, the baseline of every other strategy."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from actcc.search.space import Chosen, Space
from actcc.trials import Refused, Trial


class RandomPlans:
    """A log-uniform share of the sites, each with a random option that saves time.

    The share is between one site and all: plans that change little are as likely as those that
    change much, and budgets leave room for little more often than for much.
    """

    def __init__(self, space: Space, seen: Sequence[Trial | Refused]) -> None:
        self._space = space
        self._random = np.random.default_rng((space.seed, len(seen)))

    def propose(self) -> Chosen | None:
        """See `Strategy`."""
        sites = list(self._space.savings)
        if not sites:
            return None
        count = round(len(sites) ** self._random.uniform())
        wishes = []
        for index in self._random.permutation(len(sites))[:count]:
            options = self._space.savings[sites[index]]
            wishes.append((sites[index], options[self._random.integers(len(options))].name))
        return self._space.without_conflicts(wishes)

    def learn(self, trial: Trial | Refused, *, known: bool) -> None:
        """See `Strategy`: a random plan depends on no other."""
