"""Long stages as maps of independent, picklable tasks over a `concurrent.futures.Executor`."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from typing import TypeVar

from actcc.errors import ActccError
from actcc.progress import Advance

TaskType = TypeVar("TaskType")
ResultType = TypeVar("ResultType")


def map_tasks(
    executor: Executor,
    function: Callable[[TaskType], ResultType],
    tasks: Sequence[TaskType],
    advance: Advance,
    *,
    concurrency: int | None = None,
    deadline: float = math.inf,
    finished: Callable[[int, ResultType], None] | None = None,
) -> list[ResultType]:
    """Results in the order of the tasks, whatever order they end in.

    A task that was not started by the deadline has no result.

    Args:
        concurrency: most tasks under way at a time; measurements must not disturb each other.
            Left out, twice the cores: enough to keep workers busy, few to hold in memory.
        deadline: on `time.monotonic()`; no task is handed to the executor after it.
        finished: called with a task's index and result as soon as it ends.

    Raises:
        ActccError: a worker process died (out of memory, or a crash of the runtime).
    """
    results: dict[int, ResultType] = {}
    running: dict[Future[ResultType], int] = {}
    waiting = list(enumerate(tasks))[::-1]
    most = concurrency or 2 * default_workers()
    while waiting or running:
        if time.monotonic() >= deadline:
            waiting.clear()
        while waiting and len(running) < most:
            index, task = waiting.pop()
            running[executor.submit(function, task)] = index
        if not running:
            break
        done, _ = wait(running, return_when=FIRST_COMPLETED)
        for future in done:
            index = running.pop(future)
            results[index] = _result(future)
            if finished is not None:
                finished(index, results[index])
            advance()
    return [results[index] for index in sorted(results)]


def _result(future: Future[ResultType]) -> ResultType:
    from concurrent.futures.process import BrokenProcessPool

    try:
        return future.result()
    except BrokenProcessPool as error:
        raise ActccError(
            "a worker process died, out of memory or in a crash of the runtime; "
            "try again with --workers 1 or fewer --samples"
        ) from error


def default_workers() -> int:
    """One worker a core that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


@contextlib.contextmanager
def process_pool(workers: int) -> Iterator[Executor]:
    """A pool of worker processes that does not import the caller's script again (loky).

    Temporary files of the workers are gone at the end, also of workers that had to be killed.
    """
    from loky import ProcessPoolExecutor

    with tempfile.TemporaryDirectory(prefix="actcc-workers-", ignore_cleanup_errors=True) as place:
        pool = ProcessPoolExecutor(
            max_workers=workers, initializer=_leave_ending_to_parent, initargs=(place,)
        )
        try:
            yield pool
        except BaseException:
            pool.shutdown(wait=True, kill_workers=True)
            raise
        pool.shutdown(wait=True)


def _leave_ending_to_parent(temporary: str) -> None:
    """Ctrl-C goes to the whole process group; the parent ends the workers itself, and removes the
    folder of their temporary files.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.environ["TMPDIR"] = tempfile.tempdir = temporary
