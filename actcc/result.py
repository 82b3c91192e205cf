"""The result: what is written, and everything that the report tells of it."""

from __future__ import annotations

import contextlib
import math
import os
import platform
import shutil
import signal
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Literal

from actcc.budget import Amount
from actcc.deploy import TfliteFiles, tflite_paths
from actcc.errors import ActccError
from actcc.estimators.nn_mass import nn_mass
from actcc.graph import Graph, content_hash
from actcc.graph.files import deliver, writing
from actcc.graph.fingerprint import hash_of_parts, model_parts
from actcc.graph.macs import count_macs
from actcc.graph.size import file_bytes
from actcc.normalize import Normalized
from actcc.pass_api import Survey
from actcc.plan import FORMAT, AccuracyFigures, LatencyFigures, Plan
from actcc.program import Evidence, applied_everywhere, site_plans, unpriced_site_plans
from actcc.search import SOLVER_WORKERS
from actcc.site import KEEP, Refusal
from actcc.trials import Trial, Trials
from actcc.verify import Verifier

Status = Literal["optimized", "unchanged"]
_VERSIONS = ("actcc", "onnx", "onnxruntime", "onnxsim", "onnx-graphsurgeon", "ortools", "numpy")


@dataclass(frozen=True)
class Outcome:
    """What the stages of one run have come to.

    Attributes:
        evidence: None where the target can neither price nor time the model.
        settings: what the plan says of precision and repair.
        unpriced: why it cannot; empty where it can.
    """

    source: Path
    normalized: Normalized
    survey: Survey
    evidence: Evidence | None
    trials: Trials
    verifier: Verifier
    skip: tuple[str, ...]
    stage_seconds: Mapping[str, float]
    settings: Mapping[str, str] = field(default_factory=dict)
    unpriced: str = ""


@dataclass(frozen=True)
class TrialFigures:
    """One trial, for the report.

    Attributes:
        changed: number of sites that are rewritten.
        accuracy: None without data.
        failures: why it does not hold; empty if it does.
        size_bytes: of its file, weights beside it included.
    """

    changed: int
    predicted_latency_ns: float
    predicted_loss: float
    latency: LatencyFigures
    accuracy: AccuracyFigures | None
    failures: tuple[str, ...]
    size_bytes: int = 0

    @property
    def drop(self) -> float | None:
        """What was lost, in the metric's units; None without data."""
        return None if self.accuracy is None else self.accuracy.drop

    @property
    def drop_before_repair(self) -> float | None:
        """What the same rewrites lost before the repair; None where nothing was repaired."""
        if self.accuracy is None or self.accuracy.unrepaired is None:
            return None
        return self.accuracy.original - self.accuracy.unrepaired


@dataclass(frozen=True)
class Result:
    """What `optimize()` returns.

    Attributes:
        status: "optimized", or "unchanged" if no verified plan within the budgets is faster, or,
            where size counts, smaller.
        reason: in a sentence, why the status is what it is.
        plan: the chosen plan; keeps everything if unchanged.
        graph: the verified model.
        output: the file that was written; None if none was asked for.
        trials: every plan that was verified, in order.
        chosen_trial: index of the one that `plan` is; None if unchanged.
        refusals: by pass name, what was not offered and why.
        stage_seconds: wall time by stage.
        beside: further files that were written.
    """

    status: Status
    reason: str
    plan: Plan
    graph: Graph
    output: Path | None
    trials: tuple[TrialFigures, ...]
    refusals: tuple[tuple[str, Refusal], ...]
    stage_seconds: Mapping[str, float]
    chosen_trial: int | None = None
    beside: tuple[Path, ...] = ()

    @property
    def changes(self) -> dict[str, int]:
        """Number of sites by what was done: {"Silu → HardSwish": 12}."""
        counts: dict[str, int] = {}
        for site in self.plan.sites:
            if site.chosen != KEEP:
                counts[site.change] = counts.get(site.change, 0) + 1
        return dict(sorted(counts.items(), key=lambda entry: -entry[1]))


def plan_path(output: Path) -> Path:
    """Where the plan of an output goes."""
    return output.with_name(output.name + ".plan.json")


def finish(
    outcome: Outcome, output: Path | None, staging: Path, tflite: TfliteFiles | None = None
) -> Result:
    """Pick the best verified trial, or the original, and put it in place with its plan.

    Args:
        tflite: what makes TFLite files of the model to lie beside it; None for none.

    Raises:
        PricingError: TFLite files were asked for, and the model cannot be one.
    """
    best = outcome.trials.best
    chosen_file = outcome.source if best is None else best.path
    graph = Graph.load(chosen_file, outcome.verifier.input_shapes)
    plan = make_plan(outcome, best, graph)
    result = Result(
        status="unchanged" if best is None else "optimized",
        reason=_reason(outcome, best),
        plan=plan,
        graph=graph,
        output=output,
        trials=tuple(trial_figures(trial) for trial in outcome.trials.done),
        refusals=_refusals(outcome.survey, best),
        stage_seconds=dict(outcome.stage_seconds),
        chosen_trial=None if best is None else outcome.trials.done.index(best),
        beside=() if tflite is None or output is None else tuple(tflite_paths(output)),
    )
    if output is not None:
        with writing(output):
            if best is None:
                chosen_file = copy_of_original(outcome.source, graph, staging / output.name)
            beside = _staged_tflite(graph, tflite, output, staging)
            _put_in_place(outcome, result, chosen_file, output, staging, beside)
    return result


def _staged_tflite(
    graph: Graph, tflite: TfliteFiles | None, output: Path, staging: Path
) -> dict[Path, Path]:
    """Written TFLite files and where they are to go."""
    if tflite is None:
        return {}
    found: dict[Path, Path] = {}
    model = tflite.of(graph)
    for path, content in zip(tflite_paths(output), (model.content, model.compiled), strict=True):
        staged = staging / path.name
        staged.write_bytes(content)
        found[staged] = path
    return found


def _put_in_place(
    outcome: Outcome,
    result: Result,
    model: Path,
    output: Path,
    staging: Path,
    beside: Mapping[Path, Path],
) -> None:
    """Model, plan and report under their names; all are written before the first is renamed."""
    from actcc.report import report_path, write_report

    plan, report = staging / "plan.json", staging / "report.html"
    result.plan.save(plan)
    original = Graph.load(outcome.source, outcome.verifier.input_shapes)
    write_report(result, original, report, network=outcome.normalized.graph)
    with _undisturbed():
        deliver(model, output)
        os.replace(plan, plan_path(output))
        os.replace(report, report_path(output))
        for staged, path in beside.items():
            os.replace(staged, path)


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Ctrl-C waits: a model is never beside the plan of another."""
    if not hasattr(signal, "pthread_sigmask"):  # Windows
        yield
        return
    before = signal.pthread_sigmask(
        signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}
    )
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def copy_of_original(source: Path, graph: Graph, copy: Path) -> Path:
    """The original under the output's name; byte for byte, unless weights lie in a side file."""
    if graph.external:
        graph.save(copy, external=True)
    else:
        shutil.copyfile(source, copy)
    return copy


def _reason(outcome: Outcome, best: Trial | None) -> str:
    done = outcome.trials.done
    if best is not None:
        held = sum(trial.verdict.holds for trial in done)
        return f"best of {len(done)} verified plans, {held} of which kept the budgets"
    if outcome.unpriced:
        return f"{outcome.verifier.target.name} cannot price the model: {outcome.unpriced}"
    in_int8 = any(trial.behind is not None for trial in done)
    if not outcome.survey.sites and not in_int8:
        return f"no site with a candidate was found{_commonest(outcome.survey)}{_refused(outcome)}"
    holding = [trial for trial in done if trial.verdict.holds]
    if holding and outcome.verifier.budget.objective == "size":
        return "no plan within the budgets makes a smaller file"
    if holding:
        ratio = min(trial.verdict.latency.ratio for trial in holding)
        return (
            f"no plan within the budgets is faster beyond the noise (best {100 * ratio:.1f} % "
            "of the original's latency)"
        )
    nearest = _nearest_in_int8(outcome.trials) if in_int8 else ""
    if nearest:
        return f"no plan kept the budgets: {nearest}"
    failures = [t.verdict.failures[0] for t in done] + [t.reason for t in outcome.trials.refused]
    if not failures:
        return "no plan was tried"
    alone = outcome.verifier.int8_alone
    return f"no plan kept the budgets: {failures[-1]}{f'; {alone}' if alone else ''}"


def _nearest_in_int8(trials: Trials) -> str:
    """What all in int8 loses at the least; empty where it is not that which breaks the budget."""
    figures = trials.nearest
    if figures is None or figures.allowed_drop is None or figures.bound <= figures.allowed_drop:
        return ""
    return (
        f"all in int8 loses {figures.lost} of the allowed {figures.allowed_drop:.4g}, the least of "
        f"{len(trials.done)} tried; give a larger --max-drop, or --precision mixed, in which "
        "layers that lose too much stay in floating point"
    )


def _refused(outcome: Outcome) -> str:
    """What stood against the normalized network, where that alone was tried and refused."""
    refused = outcome.trials.refused
    return f"; the normalized network was refused: {refused[-1].reason}" if refused else ""


def _refusals(survey: Survey, best: Trial | None) -> tuple[tuple[str, Refusal], ...]:
    """What was not offered, in the normalized network and behind the repair."""
    behind = () if best is None or best.behind is None else best.behind.refusals
    return tuple(dict.fromkeys((*survey.refusals, *behind)))


def _commonest(survey: Survey) -> str:
    """The reason that stands against most candidates."""
    reasons = Counter(refusal.reason for _, refusal in survey.refusals)
    return f" ({reasons.most_common(1)[0][0]}); --explain says more" if reasons else ""


def trial_figures(trial: Trial) -> TrialFigures:
    """What the report says of a trial."""
    verdict = trial.verdict
    return TrialFigures(
        len(trial.chosen) + (0 if trial.behind is None else len(trial.behind.sites)),
        trial.predicted_latency_ns,
        trial.predicted_loss,
        verdict.latency,
        verdict.accuracy,
        verdict.failures,
        verdict.size_bytes[1],
    )


def make_plan(outcome: Outcome, best: Trial | None, result: Graph) -> Plan:
    """The plan of a verified trial, or of the original.

    Args:
        best: None for the original.
        result: the model that is written.
    """
    verifier, backend = outcome.verifier, outcome.verifier.target.backend
    parts = model_parts(Graph.load(outcome.source))
    latency: LatencyFigures | None = None
    peaks: tuple[int | None, int | None] = (None, None)
    dram: tuple[int | None, int | None] = (None, None)
    size = file_bytes(outcome.source)
    sizes = (size, size if best is None else best.verdict.size_bytes[1])
    if best is None:  # the original is what is written: it equals itself
        accuracy, difference = verifier.unchanged_accuracy, 0.0
        if outcome.evidence is not None:
            before, peak = outcome.evidence.original_latency_ns, outcome.evidence.peak_bytes
            latency, peaks = LatencyFigures(before, before, 1.0, 0.0, backend.source), (peak, peak)
            dram = (outcome.evidence.dram_bytes, outcome.evidence.dram_bytes)
        predicted = None if latency is None else latency.original_ns
    else:
        predicted = best.predicted_latency_ns
        latency, accuracy = best.verdict.latency, best.verdict.accuracy
        peaks, difference = best.verdict.peak_bytes, best.verdict.max_relative_difference
        dram = best.verdict.dram_bytes
    # Unchanged, the file may still have what is folded before anything is counted.
    compared = outcome.normalized.graph if best is None else result
    return Plan(
        format=FORMAT,
        model_name=outcome.source.name,
        model_hash=hash_of_parts(parts),
        model_parts=parts,
        result_hash=content_hash(result),
        input_shapes={k: tuple(v) for k, v in verifier.input_shapes.items()},
        skip=outcome.skip,
        target=verifier.target.name,
        tool=backend.tool,
        seed=verifier.seed,
        versions={name: metadata.version(name) for name in _VERSIONS}
        | {"python": platform.python_version()},
        settings=_settings(verifier)
        | dict(outcome.settings)
        | ({"estimator": outcome.evidence.estimator} if outcome.evidence else {}),
        normalized=() if best is None else outcome.normalized.notes,
        sites=(
            unpriced_site_plans(outcome.survey.sites, outcome.unpriced)
            if outcome.evidence is None
            else site_plans(outcome.evidence, {} if best is None else best.chosen)
            + applied_everywhere(None if best is None else best.behind)
        ),
        predicted_latency_ns=predicted,
        predicted_loss=0.0 if best is None else best.predicted_loss,
        latency=latency,
        accuracy=accuracy,
        peak_bytes=peaks,
        max_relative_difference=difference if math.isfinite(difference) else None,
        dram_bytes=dram,
        macs=(_macs(outcome.normalized.graph), _macs(compared)),
        nn_mass=(nn_mass(outcome.normalized.graph), nn_mass(compared)),
        size_bytes=sizes,
    )


def _macs(graph: Graph) -> int | None:
    try:
        return count_macs(graph)
    except ActccError:  # a shape that is not static
        return None


def _settings(verifier: Verifier) -> dict[str, str]:
    budget, held_out = verifier.budget, verifier.held_out
    return {
        "objective": budget.objective,
        "max_drop": str(budget.drop_limit),
        "max_latency": _limit(budget.max_latency, "ns"),
        "max_memory": _limit(budget.max_memory, "bytes"),
        "max_size": _limit(budget.max_size, "bytes"),
        "solver_workers": str(SOLVER_WORKERS),
        "confidence": f"{100 * budget.confidence:g} %",
        "metric": verifier.metric.name,
        "verified_in": "the precision of the file" if verifier.tflite is None else "int8",
        "held_out": held_out.source if held_out is not None else "none",
    }


def _limit(amount: Amount | None, unit: str) -> str:
    if amount is None:
        return "no limit"
    return str(amount) if amount.relative else f"{amount} {unit}"
