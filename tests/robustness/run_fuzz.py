"""Damaged model files through the command line.

    python tests/robustness/run_fuzz.py                    600 files from the example's model
    python tests/robustness/run_fuzz.py MODEL --count 200  from another one

Each runs in a worker process with limited memory, under a time limit. Exit code 1 if one of them
ends in anything but success with a valid model or one line and exit code 2 without a file left.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import TimeoutError as TaskTimeoutError
from pathlib import Path

from damaged_files import DamagedFile, damaged_files, problem_with, start_worker
from pebble import ProcessExpired, ProcessPool

EXAMPLE = Path(__file__).resolve().parents[2] / "examples/fashion_mnist/fashion_mnist.onnx"
_TIME_LIMIT_S = 60.0


def run_damaged(files: Iterable[DamagedFile], workers: int) -> Iterator[tuple[str, int, str]]:
    """Name, exit code and problem of each file; a worker that dies or hangs is a problem."""
    context = multiprocessing.get_context("spawn")
    with ProcessPool(workers, initializer=start_worker, context=context) as pool:
        futures = [
            (file.name, pool.schedule(problem_with, [file], timeout=_TIME_LIMIT_S))
            for file in files
        ]
        for name, future in futures:
            try:
                yield (name, *future.result())
            except (TaskTimeoutError, ProcessExpired, OSError) as error:
                yield name, -1, f"{type(error).__name__}: {error}"


def main() -> int:
    """Run, print the counts, and return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", nargs="?", type=Path, default=EXAMPLE)
    parser.add_argument("--count", type=int, default=600)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    arguments = parser.parse_args()
    files = damaged_files(arguments.model.read_bytes(), arguments.count, arguments.seed)
    found = list(run_damaged(files, arguments.workers))
    codes = Counter(code for _, code, _ in found)
    print(f"{arguments.model.name}: {len(found)} damaged files, by exit code: {dict(codes)}")
    failures = [(name, problem) for name, _, problem in found if problem]
    for name, problem in failures:
        print(f"FAILED {name}: {problem}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
