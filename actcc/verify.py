"""Verification: the exact file that is to be written, loaded, checked, compared and timed."""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from actcc.accuracy.bootstrap import drop_interval
from actcc.accuracy.metric import Judge, Metric, Scores
from actcc.budget import Budget
from actcc.calibration import SampleSet
from actcc.deploy import TfliteFiles
from actcc.errors import ModelError
from actcc.graph import Graph
from actcc.graph.compare import compare, exact_tolerance, rounding_tolerance
from actcc.graph.size import file_bytes
from actcc.observation import Network, OnnxFile, observe
from actcc.plan import AccuracyFigures, LatencyFigures
from actcc.prices import Timing
from actcc.progress import Advance
from actcc.runtime import random_feeds, run, session
from actcc.targets import Target

_COMPARED_SAMPLES = 4


@dataclass(frozen=True)
class Verdict:
    """What verification found.

    Attributes:
        accuracy: on held-out samples; None without any.
        max_relative_difference: of the outputs on a few inputs, relative to each output's largest
            magnitude; not finite if one of the two is not.
        failures: what stands against the result, a sentence each; empty if it holds.
        inexact: those of them that hold against it under any budget.
        dram_bytes: peak use of the memory outside the chip, where the backend knows it.
        size_bytes: of the two files, weights beside them included.
        size_counts: whether a smaller file is worth as much as a faster one: where size is the
            objective, or the original's file is over the budget.
    """

    accuracy: AccuracyFigures | None
    latency: LatencyFigures
    peak_bytes: tuple[int | None, int | None]
    max_relative_difference: float
    failures: tuple[str, ...]
    inexact: tuple[str, ...] = ()
    dram_bytes: tuple[int | None, int | None] = (None, None)
    size_bytes: tuple[int, int] = (0, 0)
    size_counts: bool = False

    @property
    def holds(self) -> bool:
        """Whether every budget is kept."""
        return not self.failures

    def to_json(self) -> Any:
        """JSON values; `from_json` reads them back equal."""
        return _adapter().dump_python(self, mode="json")

    @classmethod
    def from_json(cls, values: Any) -> Verdict:
        """What `to_json` wrote."""
        verdict: Verdict = _adapter().validate_python(values)
        return verdict

    @property
    def faster(self) -> bool:
        """Whether the result is faster than the original beyond the noise."""
        return self.latency.ratio + self.latency.ratio_noise < 1.0

    @property
    def smaller(self) -> bool:
        """Whether the result's file is smaller than the original's."""
        before, after = self.size_bytes
        return after < before

    @property
    def better(self) -> bool:
        """Whether the result is worth having: faster, or, where size counts, smaller."""
        return self.faster or (self.size_counts and self.smaller)


@dataclass
class Verifier:
    """Verifies files against one original.

    Attributes:
        original: path of the original model.
        baseline: what the result is timed against; see `actcc.evidence.priced_baseline`.
        held_out: samples that no estimate has seen; None without calibration data.
        metric: what accuracy means.
        tflite: makes files what the device runs, in int8; None where the ONNX files are run.
    """

    original: Path
    baseline: Graph
    target: Target
    budget: Budget
    input_shapes: Mapping[str, Sequence[int]]
    held_out: SampleSet | None
    metric: Metric
    executor: Executor
    seed: int
    tflite: TfliteFiles | None = None
    _judge: Judge | None = field(default=None, init=False)
    _original_scores: Scores | None = field(default=None, init=False)
    _int8_scores: Scores | None = field(default=None, init=False)

    def under(self, budget: Budget) -> Verifier:
        """The same verifier, prepared as it is, with another budget."""
        other = copy.copy(self)
        other.budget = budget
        return other

    def judge(self, verdict: Verdict) -> Verdict:
        """What an earlier verdict of the same file amounts to under this verifier's budget."""
        accuracy, unchanged = verdict.accuracy, self.unchanged_accuracy
        if accuracy is not None and unchanged is not None:
            accuracy = replace(accuracy, allowed_drop=unchanged.allowed_drop)
        found = replace(
            verdict, accuracy=accuracy, failures=(), size_counts=self._size_counts(verdict)
        )
        return replace(found, failures=(*verdict.inexact, *self._failures(found)))

    def _size_counts(self, verdict: Verdict) -> bool:
        before, _ = verdict.size_bytes
        limit = self.budget.max_size
        over = limit is not None and before > limit.against(before)
        return self.budget.objective == "size" or over

    def prepare(self, advance: Advance) -> None:
        """Run the original on the held-out samples."""
        if self.held_out is None:
            return
        network = self._network(self.original, None)
        found = observe(network, self.held_out, self.metric, self.executor, advance)
        self._judge = self.metric.judge(found, self.held_out)
        self._original_scores = self._judge(found)

    def prepare_int8(self, tflite: TfliteFiles) -> None:
        """Run the original in int8 on the held-out samples; from now on all is judged in int8.

        Raises:
            PricingError: the original cannot be lowered, or takes values that int8 cannot.
        """
        self._int8_scores = self._scores(self.original, tflite)
        self.tflite = tflite

    @property
    def int8_alone(self) -> str:
        """What stands against the original in int8, unchanged; empty where nothing does."""
        figures = self.unchanged_accuracy
        allowed = None if figures is None else figures.allowed_drop
        if figures is None or self._int8_scores is None or allowed is None:
            return ""
        figures = self._with_interval(figures, self._int8_scores)
        if figures.bound <= allowed:
            return ""
        return (
            f"int8 alone loses {figures.lost} of the allowed {allowed:.4g}; give a larger "
            "--max-drop, or --precision float to leave int8 out of the budget"
        )

    @property
    def unchanged_accuracy(self) -> AccuracyFigures | None:
        """Figures of the original itself, as the device runs it; None without held-out samples."""
        if self._original_scores is None:
            return None
        count = len(self._original_scores)
        value = self._original_scores.value(np.arange(count))
        allowed = self.budget.drop_limit.against(abs(value))
        in_int8 = None if self._int8_scores is None else self._int8_scores.value(np.arange(count))
        return AccuracyFigures(
            self.metric.name,
            value,
            value if in_int8 is None else in_int8,
            allowed if math.isfinite(allowed) else None,
            count,
            self.budget.confidence,
            original_in_int8=in_int8,
        )

    def verify(self, path: Path, *, exact: bool) -> Verdict:
        """Verify a model file.

        Args:
            exact: only exact candidates are in it, so that its outputs must agree.

        Raises:
            ModelError: the file is no valid model or cannot be run.
        """
        flaw = _flaw(path)
        if flaw and not _flaw(self.original):  # what the original breaks too is no pass's fault
            raise ModelError(f"the written model is not valid ONNX: {flaw}")
        original = Graph.load(self.original, self.input_shapes)
        result = Graph.load(path, self.input_shapes)
        difference = self._difference(original, result)
        accuracy = self._accuracy(path, exact=exact)
        before, after = self.time([result])
        latency = LatencyFigures(
            before.latency_ns, after.latency_ns, after.ratio, after.ratio_noise, after.source
        )
        peaks = (before.peak_bytes, after.peak_bytes)
        inexact = self._inexact(original, difference) if exact else ()
        sizes = (file_bytes(self.original), file_bytes(path))
        dram = (before.dram_bytes, after.dram_bytes)
        found = Verdict(accuracy, latency, peaks, difference, (), inexact, dram, sizes)
        return self.judge(found)

    def with_unrepaired(self, verdict: Verdict, path: Path) -> Verdict:
        """The verdict with the accuracy of the same rewrites before their repair, for the report.

        Raises:
            ModelError: the file cannot be run.
        """
        if verdict.accuracy is None:
            return verdict
        accuracy = replace(verdict.accuracy, unrepaired=self._value(path))
        return replace(verdict, accuracy=accuracy)

    def time(self, results: Sequence[Graph]) -> list[Timing]:
        """The baseline and the results, timed together; in int8 the very files are compiled."""
        feeds = None if self.held_out is None else self.held_out[0].inputs
        if self.tflite is None:
            return self.target.backend.time_models([self.baseline, *results], feeds)
        (before,) = self.target.backend.time_models([self.baseline], feeds)
        timings = [self.tflite.of(graph).timing for graph in results]
        return [before, *(replace(t, ratio=t.latency_ns / before.latency_ns) for t in timings)]

    def _difference(self, original: Graph, result: Graph) -> float:
        return compare(original, result, self._compared_feeds(original)).worst_relative

    def _compared_feeds(self, original: Graph) -> list[Mapping[str, Any]]:
        if self.held_out is None:
            return [random_feeds(original, self.seed + step) for step in range(_COMPARED_SAMPLES)]
        count = min(_COMPARED_SAMPLES, len(self.held_out))
        return [self.held_out[index].inputs for index in range(count)]

    def _accuracy(self, path: Path, *, exact: bool) -> AccuracyFigures | None:
        figures = self.unchanged_accuracy
        if self.held_out is None:
            return None
        scores = self._scores(path, self.tflite)
        if figures is None or self._original_scores is None:
            raise ModelError("the verifier was not prepared; call prepare() first")
        figures = replace(figures, result=scores.value(np.arange(len(scores))))
        # Exact rewrites lose what rounding to float loses.
        return figures if exact and self.tflite is None else self._with_interval(figures, scores)

    def _with_interval(self, figures: AccuracyFigures, scores: Scores) -> AccuracyFigures:
        """At 50 % the bound is the measured drop itself."""
        if self._original_scores is None or len(scores) < 2 or self.budget.confidence <= 0.5:
            return figures
        interval = drop_interval(self._original_scores, scores, self.budget.confidence, self.seed)
        return replace(figures, least_drop=interval.low, most_drop=interval.high)

    def _value(self, path: Path) -> float:
        scores = self._scores(path, self.tflite)
        return float(scores.value(np.arange(len(scores))))

    def _scores(self, path: Path, tflite: TfliteFiles | None) -> Scores:
        if self.held_out is None or self._judge is None:
            raise ModelError("the verifier was not prepared; call prepare() first")
        network = self._network(path, tflite)
        found = observe(network, self.held_out, self.metric, self.executor, lambda: None)
        return self._judge(found)

    def _network(self, path: Path, tflite: TfliteFiles | None) -> Network:
        """A file as the target runs it."""
        if tflite is None:
            return OnnxFile(path, self.target.profile)
        return tflite.of(Graph.load(path, self.input_shapes))

    def _inexact(self, original: Graph, difference: float) -> tuple[str, ...]:
        """Why a model of exact rewrites differs too much; the original runs again only if so."""
        if difference <= exact_tolerance(original):
            return ()
        feeds = self._compared_feeds(original)
        plain, optimised = (
            [run(session(original, optimise=level), feed) for feed in feeds]
            for level in (False, True)
        )
        if difference <= rounding_tolerance(plain, optimised):
            return ()
        return (f"outputs differ by {difference:.1e} though all rewrites are exact",)

    def _failures(self, verdict: Verdict) -> list[str]:
        """What of the budget a verdict breaks."""
        failures = []
        accuracy, latency = verdict.accuracy, verdict.latency
        allowed = None if accuracy is None else accuracy.allowed_drop
        if accuracy is not None and allowed is not None and not accuracy.bound <= allowed:
            failures.append(_too_much(accuracy, allowed))
        limit = self.budget.max_latency
        if limit is not None:
            relative = latency.ratio if limit.relative else latency.result_ns
            if relative > limit.value:
                reached = f"{100 * latency.ratio:.1f} % ({latency.result_ns / 1e6:.3f} ms)"
                failures.append(f"latency {reached} is over the budget")
        elif verdict.size_counts and latency.ratio - latency.ratio_noise > 1.0:
            failures.append(
                f"slower than the original ({100 * latency.ratio:.1f} % of its latency); "
                "--max-latency allows it"
            )
        memory, (before, peak) = self.budget.max_memory, verdict.peak_bytes
        if memory is not None and (peak is None or peak > memory.against(before or 0)):
            size = "not known" if peak is None else f"{peak / 2**10:.0f} KiB"
            failures.append(f"peak memory, {size}, is over the budget")
        limit, (original, written) = self.budget.max_size, verdict.size_bytes
        if limit is not None and written > limit.against(original):
            failures.append(f"the file, {written / 2**10:.0f} KiB, is over the size budget")
        return failures


def _flaw(path: Path) -> str:
    """What the ONNX checker has against a file; empty where it has nothing."""
    try:
        onnx.checker.check_model(str(path))
    except onnx.checker.ValidationError as error:
        return " ".join(str(error).split())
    return ""


def _too_much(accuracy: AccuracyFigures, allowed: float) -> str:
    said = f"{accuracy.metric} drops by {accuracy.drop:.4g}"
    if accuracy.drop <= allowed:
        said += (
            f", and by up to {accuracy.bound:.4g} with {100 * accuracy.confidence:g} % confidence "
            f"on {accuracy.samples} samples"
        )
    return f"{said}, allowed {allowed:.4g}"


@functools.cache
def _adapter() -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(Verdict)
