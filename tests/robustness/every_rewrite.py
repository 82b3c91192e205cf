"""A target that makes the search take every exact candidate, so that all of them are exercised."""

from __future__ import annotations

import subprocess
import sys
import types
import unittest.mock
import zlib
from collections.abc import Sequence
from concurrent.futures import Executor, Future
from typing import Any

import actcc.targets
from actcc.graph import Graph
from actcc.latency_models import Profile
from actcc.memory import MemoryProfile
from actcc.passes import simplify
from actcc.prices import LayerTime, Price, PriceQuery, Source, Timing, Unpriced
from actcc.site import KEEP
from actcc.targets import Target

_TOOL = "every rewrite pays"


class EveryRewriteBackend:
    """Says of every rewritten graph that it is faster; which candidate pays most varies."""

    tool = _TOOL
    source: Source = "estimated"
    cacheable = False

    def __init__(self, profile: Profile) -> None:
        self.profile = profile

    def price(self, query: PriceQuery) -> dict[str, Price | Unpriced]:
        gains = {name: -1.0 - zlib.crc32(name.encode()) % 1000 for name in query.candidates}
        return {
            name: Price(2e3 + gain, gain, 0.0, self.source, _TOOL)
            for name, gain in ((KEEP, 0.0), *gains.items())
        }

    def time_models(self, models: Sequence[Graph], feeds: Any = None) -> list[Timing]:
        ratios = [1.0, *(0.5 for _ in models[1:])]
        return [Timing(1e6 * r, 0.0, self.source, _TOOL, None, r) for r in ratios]

    def memory(self, model: Graph) -> MemoryProfile:
        return MemoryProfile((), 0)

    def layers(self, model: Graph) -> list[LayerTime]:
        return []


def every_rewrite_target() -> Target:
    """The target; its backend is made known to this process."""
    entry = actcc.targets.BackendEntry(f"{__name__}:EveryRewriteBackend", "estimated")
    actcc.targets._BACKENDS = {**actcc.targets._BACKENDS, "every-rewrite": entry}
    return Target(Profile(name="every-rewrite", description=_TOOL, backend="every-rewrite"))


class Immediately(Executor):
    """Runs each task where it is submitted: thousands of small runs need no pool each."""

    def submit(self, function: Any, /, *arguments: Any, **keywords: Any) -> Future[Any]:
        future: Future[Any] = Future()
        try:
            future.set_result(function(*arguments, **keywords))
        except Exception as error:
            future.set_exception(error)
        return future


def simplify_in_this_process() -> None:
    """Let onnx-simplifier run here, where it may crash: starting a process takes most of a run."""

    def run_here(command: Sequence[str], **_: Any) -> subprocess.CompletedProcess[bytes]:
        script, arguments = command[2], command[3:]
        loaded = {name: module for name, module in sys.modules.items() if name == "torch"}
        with unittest.mock.patch.object(sys, "argv", ["-c", *arguments]):
            try:
                exec(script, {})
            except Exception as error:  # as a process that fails
                return subprocess.CompletedProcess(command, 1, b"", str(error).encode())
            finally:  # the script goes without it; what runs here after it does not
                sys.modules.pop("torch", None)
                sys.modules.update(loaded)
        return subprocess.CompletedProcess(command, 0, b"", b"")

    simplify.subprocess = types.SimpleNamespace(  # type: ignore[assignment]
        run=run_here,
        DEVNULL=subprocess.DEVNULL,
        PIPE=subprocess.PIPE,
        TimeoutExpired=subprocess.TimeoutExpired,
    )
