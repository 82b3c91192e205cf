"""One search: a strategy proposes, each plan is rewritten and verified, the strategy learns."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from actcc.calibration import SampleSet
from actcc.errors import ActccError, InfeasibleError, SearchError, require_known
from actcc.graph import Graph, content_hash
from actcc.journal import Journal
from actcc.pass_api import Pass, Survey
from actcc.program import Evidence
from actcc.progress import Advance, Progress
from actcc.rewriting import Repairer, Rewritten, rewrite_network
from actcc.search.cpsat import CpSat, solve_within
from actcc.search.greedy import Greedy
from actcc.search.optuna_study import OptunaStudy
from actcc.search.random_plans import RandomPlans
from actcc.search.space import Chosen, Space
from actcc.search.strategy import Strategy
from actcc.trials import Refused, Trial, Trials
from actcc.verify import Verdict, Verifier

STRATEGIES: Mapping[str, Callable[[Space, Sequence[Trial | Refused]], Strategy]] = {
    "cpsat": CpSat,
    "greedy": Greedy,
    "random": RandomPlans,
    "optuna": OptunaStudy,
}
# Proposals that were tried already, or could not be rewritten, cost no trial; this ends a search
# of such.
_LEAST_PROPOSALS = 30
_PROPOSALS_A_TRIAL = 4


def check_strategy(name: str) -> str:
    """The name itself.

    Raises:
        SearchError: no strategy is called so.
    """
    return require_known("--search", "strategy", name, STRATEGIES, SearchError)


def search_plans(search: Search, progress: Progress, strategy: str = "cpsat") -> Trials:
    """Fill the search's trials; what is verified by then survives an interruption by Ctrl-C.

    Raises:
        InfeasibleError: no plan meets the budgets even by prediction.
        SearchError: the strategy's library is not installed.
    """
    trials = search.trials
    try:
        with progress.stage("Solving and verifying", trials.most) as advance:
            search.run(strategy, advance)
    except KeyboardInterrupt:
        if trials.best is None:
            raise
        trials.interrupted = True
        more = "; --resume goes on from here" if search.journal.path is not None else ""
        progress.note(f"interrupted: the best verified plan so far is written{more}")
    return trials


@dataclass(frozen=True)
class Search:
    """What every trial of one search needs.

    Attributes:
        trials: filled by `run`; a strategy starts from those there are.
        staging: folder for the files of trials.
        file_name: of every trial's model; a side file of weights is named after it.
        journal: where verdicts are kept.
        repair: re-fits what approximate candidates break; None where nothing is repaired.
        samples: for calibration, which passes observe.
        everywhere: see `actcc.rewriting.rewrite_network`.
    """

    graph: Graph
    passes: Sequence[Pass]
    evidence: Evidence
    verifier: Verifier
    trials: Trials
    staging: Path
    file_name: str
    journal: Journal
    repair: Repairer | None = field(default=None, kw_only=True)
    samples: SampleSet | None = field(default=None, kw_only=True)
    everywhere: Callable[[Graph], Survey] | None = field(default=None, kw_only=True)

    def run(self, strategy: str, advance: Advance) -> None:
        """Trials as the strategy proposes them; exact rewrites alone where none of them is good.

        Raises:
            InfeasibleError: no plan meets the budgets even by prediction.
            SearchError: the strategy's library is not installed.
        """
        try:
            if self.evidence.estimates is not None:
                seen: list[Trial | Refused] = [*self.trials.done, *self.trials.refused]
                self._follow(STRATEGIES[strategy](self.space, seen), advance)
            if self.trials.best is None:
                self._fall_back(advance)
        except InfeasibleError as error:
            raise _in_users_units(error, self.evidence.original_latency_ns) from error

    @cached_property
    def space(self) -> Space:
        """What strategies choose from."""
        verifier = self.verifier
        return Space.of(self.evidence, verifier.budget, verifier.metric.name, verifier.seed)

    def _follow(self, strategy: Strategy, advance: Advance) -> None:
        for _ in range(max(_LEAST_PROPOSALS, _PROPOSALS_A_TRIAL * self.trials.most)):
            if not self.trials.wanted:
                return
            chosen = strategy.propose()
            if chosen is None:
                return
            known = self.trials.tried(chosen)
            if known is None:
                advance()
            strategy.learn(known or self.attempt(chosen), known=known is not None)

    def _fall_back(self, advance: Advance) -> None:
        """Exact rewrites alone: the plan that cannot lose accuracy.

        Raises:
            InfeasibleError: they do not meet the budgets, and no plan was tried before.
        """
        limit = self.space.latency_limit_ns
        try:
            chosen = solve_within(self.space, max_loss=0.0, max_latency_ns=limit)
        except InfeasibleError:
            if self.trials.attempted:
                return
            raise
        if self.trials.tried(chosen) is None:
            self.attempt(chosen)
            advance()

    def attempt(self, chosen: Chosen) -> Trial | Refused:
        """Rewrite, write and verify one plan; one that fails on the way ends no other."""
        trial: Trial | Refused
        try:
            trial = self._attempt(chosen)
        except ActccError as error:
            trial = Refused(chosen, str(error))
        self.trials.add(trial)
        return trial

    def _attempt(self, chosen: Chosen) -> Trial:
        # In the order of the sites, as when the plan is applied again.
        pairs = [(s, chosen[s.id]) for s in self.evidence.sites if s.id in chosen]
        found = rewrite_network(
            self.graph,
            self.passes,
            pairs,
            repair=self.repair,
            samples=self.samples,
            everywhere=self.everywhere,
        )
        path = self._saved(found.graph, f"trial-{self.trials.attempted}")
        verdict = self._verdict(chosen, path, found)
        predicted = self.space.totals(chosen)
        # The machine's pace may have changed since the base was timed; the ratio has not.
        pace = verdict.latency.original_ns / self.evidence.original_latency_ns
        latency, loss = predicted.cost_ns * pace, predicted.loss_ppm / 1e6
        return Trial(chosen, latency, loss, path, verdict, found.behind)

    def _saved(self, graph: Graph, folder: str) -> Path:
        path = self.staging / folder / self.file_name
        path.parent.mkdir()
        graph.save(path, external=self.graph.external)
        return path

    def _verdict(self, chosen: Chosen, path: Path, found: Rewritten) -> Verdict:
        """What verification finds, or what it found before this search was interrupted."""
        name = f"verdict {sorted(chosen.items())} {content_hash(Graph.load(path))}"
        if name in self.journal.known:
            # It may have been found under another budget.
            return self.verifier.judge(Verdict.from_json(self.journal.known[name]))
        verdict = self.verifier.verify(path, exact=found.exact)
        # Of a plan that is of no use nobody asks what its repair was worth.
        if verdict.holds and found.unrepaired is not None:
            before = self._saved(found.unrepaired(), f"{path.parent.name}-unrepaired")
            verdict = self.verifier.with_unrepaired(verdict, before)
        self.journal.record(name, verdict.to_json())
        return verdict


def _in_users_units(error: InfeasibleError, original_ns: float) -> InfeasibleError:
    """Latency budgets are often given in per cent: say the nearest one so too."""
    reachable = error.nearest.get("max_cost_ns")
    if reachable is None:
        return error
    share = 100 * reachable / original_ns
    return InfeasibleError(f"{error} (latency: {share:.1f} % of the original)", error.nearest)
