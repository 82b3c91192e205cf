"""The search strategies side by side: `python tests/selection/benchmark_search.py --trials 24`.

Every strategy gets the same evidence and the same number of verified plans for all budgets
together. Printed are, for each strategy, the least verified latency within each accuracy budget,
as a share of the original's, and the hypervolume of the front: the area between the front and the
corner (latency of the original, largest budget), as a share of that rectangle. The median over the
seeds is shown, with the least and the most. A plan that two strategies propose is verified once.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path

from actcc.budget import Amount, Budget, parse_drop
from actcc.effort import load_preset
from actcc.job import Job, open_job
from actcc.pareto import explore, judged
from actcc.pipeline import Prepared, prepare
from actcc.search import STRATEGIES, Search
from actcc.trials import Refused, Trial, Trials
from actcc.verify import Verifier

EXAMPLE = Path(__file__).parents[2] / "examples" / "fashion_mnist"
Plan = frozenset[tuple[str, str]]


@dataclass(frozen=True)
class RememberingSearch(Search):
    """A search that verifies no plan twice, whoever proposed it first.

    Attributes:
        known: plans of all strategies and seeds.
    """

    known: dict[Plan, Trial | Refused]

    def attempt(self, chosen: Mapping[str, str]) -> Trial | Refused:
        """See `Search`."""
        plan = frozenset(chosen.items())
        if plan not in self.known:
            self.known[plan] = super().attempt(chosen)
            return self.known[plan]
        trial = self.known[plan]
        if isinstance(trial, Trial):
            trial = judged(self.verifier, [trial])[0]
        self.trials.add(trial)
        return trial


@dataclass(frozen=True)
class RememberingPrepared(Prepared):
    """Evidence whose searches remember."""

    known: dict[Plan, Trial | Refused]

    def search(self, verifier: Verifier, trials: Trials, file_name: str) -> Search:
        """See `Prepared`; files of trials have a folder for each search."""
        staging = self.job.staging / f"{verifier.seed}-{len(self.known)}-{time.monotonic_ns()}"
        staging.mkdir()
        plain = super().search(verifier, trials, file_name)
        parts = {**vars(plain), "staging": staging}
        return RememberingSearch(**parts, known=self.known)


@dataclass(frozen=True)
class Run:
    """One strategy with one seed.

    Attributes:
        ratios: least latency ratio by budget; 1 where nothing is faster.
        hypervolume: share of the rectangle that the front dominates.
        verified: number of plans.
    """

    ratios: Mapping[Amount, float]
    hypervolume: float
    verified: int


def measure(
    prepared: RememberingPrepared, strategy: str, seed: int, trials: int, drops: Sequence[Amount]
) -> Run:
    """One strategy with one seed on evidence that all share."""
    verifiers = {}
    for drop in drops:
        verifier = prepared.verifier.under(replace(prepared.job.budget, max_drop=drop))
        verifier.seed = seed
        verifiers[drop] = verifier
    done = Trials(trials, prepared.job.deadline, "latency")
    explore(prepared, verifiers, done, strategy)
    original = prepared.verifier.unchanged_accuracy
    scale = abs(original.original) if original is not None else 1.0
    largest = max(drop.against(scale) for drop in drops)
    points = [
        (trial.verdict.latency.ratio, max(trial.verdict.accuracy.bound, 0.0))
        for trial in done.done
        if trial.verdict.accuracy is not None
    ]
    ratios = {
        drop: min((r for r, lost in points if lost <= drop.against(scale)), default=1.0)
        for drop in drops
    }
    return Run(ratios, hypervolume(points, largest), len(done.done))


def hypervolume(points: Sequence[tuple[float, float]], largest: float) -> float:
    """Area that points (latency ratio, drop) dominate below (1, largest), as a share of it."""
    area, best = 0.0, 1.0
    for ratio, drop in sorted(points, key=lambda point: point[1]):
        if drop < largest and ratio < best:
            area += (best - ratio) * (largest - drop)
            best = ratio
    return area / largest


def main() -> int:
    """Print a row for each strategy."""
    arguments = _arguments()
    drops = [parse_drop(text) for text in arguments.drops.split(",")]
    with _open(arguments, drops) as job:
        prepared = RememberingPrepared(**vars(prepare(job)), known={})
        print(f"{arguments.model} on {arguments.target}, {arguments.metric}")
        print(f"{arguments.trials} verified plans, seeds {arguments.seeds}; median [least, most]")
        head = "".join(f"{f'≤ {drop}':>22}" for drop in drops)
        print(f"{'strategy':10}{head}{'hypervolume':>22}{'plans':>7}")
        for strategy in arguments.strategies.split(","):
            runs = [
                measure(prepared, strategy, seed, arguments.trials, drops)
                for seed in range(arguments.seeds)
            ]
            cells = "".join(f"{_spread(runs, _ratio_of(drop)):>22}" for drop in drops)
            volume = _spread(runs, lambda run: run.hypervolume)
            verified = max(run.verified for run in runs)
            print(f"{strategy:10}{cells}{volume:>22}{verified:7d}", flush=True)
    return 0


def _ratio_of(drop: Amount) -> Callable[[Run], float]:
    return lambda run: run.ratios[drop]


def _spread(runs: Sequence[Run], figure: Callable[[Run], float]) -> str:
    values = [figure(run) for run in runs]
    return f"{statistics.median(values):.3f} [{min(values):.3f}, {max(values):.3f}]"


def _open(arguments: argparse.Namespace, drops: Sequence[Amount]) -> AbstractContextManager[Job]:
    budget = Budget(max_drop=max(drops, key=lambda drop: drop.value))
    return open_job(
        arguments.model,
        arguments.target,
        output=None,
        budget=budget,
        calibration=arguments.calib,
        evaluation=arguments.eval,
        preprocessing=arguments.preprocess,
        samples=None,
        labels=arguments.labels,
        metric=arguments.metric,
        input_shapes=None,
        passes=None,
        plugins=(),
        skip=(),
        also=(),
        effort=load_preset("default").but(arguments.trials, 1e9),
        seed=0,
        workers=arguments.workers,
        executor=None,
        cache=False,
        progress=None,
    )


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("--model", default=EXAMPLE / "fashion_mnist.onnx")
    parser.add_argument("--calib", default=EXAMPLE / "calibration.npz")
    parser.add_argument("--eval", default=EXAMPLE / "evaluation.npz")
    parser.add_argument("--metric", default=f"{EXAMPLE / 'metric.py'}:top1")
    parser.add_argument("--labels")
    parser.add_argument("--preprocess")
    parser.add_argument("--target", default="npu1")
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--drops", default="0.5%,1%,2%,5%")
    parser.add_argument("--strategies", default=",".join(STRATEGIES))
    parser.add_argument("--workers", type=int)
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
