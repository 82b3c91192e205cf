"""Every case of the onnx package's backend test suite through `actcc optimize`.

    python tests/robustness/run_backend_suite.py                 everything, about ten minutes
    python tests/robustness/run_backend_suite.py --only softmax  cases whose name has the word

No calibration data: only exact candidates. Each case runs in a worker process under a time limit
on two targets: one on which every exact rewrite pays, so that all of them are exercised, and
`npu1`. Cases in which a site was found run on `cpu`, measured, too. Exit code 1 if a case failed.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import TimeoutError as TaskTimeoutError

from backend_cases import BackendCase, collect_cases
from backend_runs import EVERY_REWRITE, CaseOutcome, run_case
from every_rewrite import simplify_in_this_process
from pebble import ProcessExpired, ProcessPool

TARGETS = (EVERY_REWRITE, "npu1")
_TIME_LIMIT_S = 300.0
_SHOWN_REASONS = 12


def run_cases(
    cases: Iterable[BackendCase], targets: Sequence[str], workers: int
) -> Iterator[CaseOutcome]:
    """Outcomes in the order of cases and targets; a worker that dies or hangs is an outcome."""
    context = multiprocessing.get_context("spawn")
    with ProcessPool(workers, initializer=_start_worker, context=context) as pool:
        futures = [
            (case, target, pool.schedule(run_case, [case, target], timeout=_TIME_LIMIT_S))
            for case in cases
            if case.model
            for target in targets
        ]
        for case, target, future in futures:
            try:
                yield future.result()
            except (TaskTimeoutError, ProcessExpired) as error:
                reason = f"{type(error).__name__}: {error}"
                yield CaseOutcome(case.name, target, "failed", reason, True, 0, _TIME_LIMIT_S)


def _start_worker() -> None:
    simplify_in_this_process()


def main() -> int:
    """Run, print the counts, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", default="", help="cases whose name has this in it")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--targets", nargs="+", default=list(TARGETS))
    arguments = parser.parse_args()
    cases = [case for case in collect_cases() if arguments.only in case.name]
    outcomes = list(_with_progress(run_cases(cases, arguments.targets, arguments.workers)))
    if "cpu" not in arguments.targets:
        with_sites = {outcome.case for outcome in outcomes if outcome.sites}
        measured = [case for case in cases if case.name in with_sites]
        outcomes += _with_progress(run_cases(measured, ["cpu"], 1))
    return report(cases, outcomes)


def _with_progress(outcomes: Iterable[CaseOutcome]) -> Iterator[CaseOutcome]:
    for number, outcome in enumerate(outcomes, 1):
        if number % 100 == 0:
            print(f"  {number} runs", file=sys.stderr, flush=True)
        yield outcome


def report(cases: Sequence[BackendCase], outcomes: Sequence[CaseOutcome]) -> int:
    """Print counts and failures; 1 if there are any."""
    absent = [case.name for case in cases if not case.model]
    print(f"{len(cases)} cases, {len(absent)} of which need the network and were left out")
    for target in dict.fromkeys(outcome.target for outcome in outcomes):
        for runs, title in ((True, target), (False, f"{target}, not runnable in ONNX Runtime")):
            found = [o for o in outcomes if o.target == target and o.runs == runs]
            counts = Counter(outcome.kind for outcome in found)
            shown = ", ".join(f"{kind} {n}" for kind, n in sorted(counts.items()))
            print(f"{title}: {len(found)} ({shown})")
            reasons = Counter(o.detail[:110] for o in found if o.kind in ("unchanged", "refused"))
            for reason, count in reasons.most_common(_SHOWN_REASONS):
                print(f"    {count:5d}  {reason}")
    slowest = sorted(outcomes, key=lambda outcome: -outcome.seconds)[:5]
    print("slowest: " + ", ".join(f"{o.case} on {o.target} {o.seconds:.1f} s" for o in slowest))
    failures = [outcome for outcome in outcomes if outcome.kind == "failed"]
    for outcome in failures:
        print(f"FAILED {outcome.case} on {outcome.target}: {outcome.detail}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
