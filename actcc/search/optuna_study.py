"""`--search optuna`: a general black-box optimizer on the same space.

Multi-objective TPE (Ozaki et al. 2022) as in Optuna, one categorical parameter a site, minimising
the latency ratio and the drop. `keep` everywhere is known without a trial; the exact rewrites that
save most are its first proposal.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from actcc.errors import SearchError
from actcc.search.greedy import steps
from actcc.search.space import Chosen, Space
from actcc.site import KEEP
from actcc.trials import Refused, Trial


class OptunaStudy:
    """An Optuna study in ask-and-tell style.

    Raises:
        SearchError: Optuna is not installed.
    """

    def __init__(self, space: Space, seen: Sequence[Trial | Refused]) -> None:
        self._optuna = _optuna()
        self._space = space
        self._asked: Any = None
        self._distributions = {
            site: self._optuna.distributions.CategoricalDistribution(
                [KEEP, *(option.name for option in options)]
            )
            for site, options in space.savings.items()
        }
        sampler = self._optuna.samplers.TPESampler(seed=space.seed + len(seen))
        self._study = self._optuna.create_study(
            sampler=sampler, directions=["minimize", "minimize"]
        )
        if self._distributions:
            self._tell_known({}, [1.0, 0.0])
            for trial in seen:
                if isinstance(trial, Trial):
                    self._tell_known(trial.chosen, _figures(trial))
            exact = [step.wish for step in steps(space) if math.isinf(step.ratio)]
            self._study.enqueue_trial(self._parameters(space.without_conflicts(exact)))

    def propose(self) -> Chosen | None:
        """See `Strategy`."""
        if not self._distributions:
            return None
        self._asked = self._study.ask(self._distributions)
        wishes = [(site, name) for site, name in self._asked.params.items() if name != KEEP]
        return self._space.without_conflicts(wishes)

    def learn(self, trial: Trial | Refused, *, known: bool) -> None:
        """See `Strategy`."""
        if isinstance(trial, Trial):
            self._study.tell(self._asked, _figures(trial))
        else:
            self._study.tell(self._asked, state=self._optuna.trial.TrialState.FAIL)

    def _tell_known(self, chosen: Chosen, figures: Sequence[float]) -> None:
        known = self._optuna.trial.create_trial(
            params=self._parameters(chosen),
            distributions=self._distributions,
            values=list(figures),
        )
        self._study.add_trial(known)

    def _parameters(self, chosen: Chosen) -> Mapping[str, str]:
        """The plan as parameters; an exact option that saves nothing is no parameter."""
        return {
            site: name if (name := chosen.get(site, KEEP)) in distribution.choices else KEEP
            for site, distribution in self._distributions.items()
        }


def _figures(trial: Trial) -> list[float]:
    """What is minimised: latency ratio and drop."""
    accuracy = trial.verdict.accuracy
    return [trial.verdict.latency.ratio, 0.0 if accuracy is None else accuracy.drop]


def _optuna() -> Any:
    try:
        import optuna
    except ImportError as error:
        raise SearchError(
            "--search optuna needs Optuna, which is not installed; "
            "python -m pip install 'actcc[optuna]'"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna
