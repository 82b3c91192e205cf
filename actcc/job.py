"""A job: everything that one run needs, loaded and checked before anything long begins."""

from __future__ import annotations

import contextlib
import inspect
import json
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path

import onnx

from actcc.accuracy.built_in import load_metric
from actcc.accuracy.metric import FunctionMetric, Metric
from actcc.budget import Budget
from actcc.calibration import Preprocessing, SampleSet, load_samples
from actcc.calibration.labels import label_samples
from actcc.deploy import TfliteBackend
from actcc.effort import PRECISIONS, TIME_FOR_TRIALS, Effort, check_precision
from actcc.errors import DataError
from actcc.estimators.choice import check_estimator, works_without_calibration
from actcc.graph import Graph, content_hash, static_types
from actcc.graph.files import staging_folder
from actcc.journal import Journal, run_key
from actcc.pass_api import Pass, Survey, select_passes
from actcc.progress import PRICING, PRICING_TOGETHER, Progress, Silent, Timed
from actcc.repair import MOST_SAMPLES, RepairMethod
from actcc.targets import Target, load_target
from actcc.tasks import default_workers, process_pool
from actcc.validity import require_valid
from actcc.whole_int8 import WholeInt8, find_whole_int8

Model = str | Path | onnx.ModelProto | Graph
HELD_OUT_SHARE = 0.4


@dataclass(frozen=True)
class Data:
    """Calibration and evaluation samples.

    Attributes:
        calibration: what estimates see; None for estimators that need none.
        evaluation: what only the verification sees.
    """

    calibration: SampleSet | None
    evaluation: SampleSet


@dataclass(frozen=True)
class Job:
    """Everything that one run needs, loaded and checked.

    Attributes:
        source: file of the model as it was given.
        precision: what results are verified in; one of `actcc.effort.PRECISIONS`.
        whole_int8: puts all into int8 that can be; None where each layer may stay as it is.
        estimator: name of what losses are estimated by.
        repair: how what a rewrite breaks is made good.
        journal: what an interrupted run of the same kind has found, and this one finds.
        started: on `time.monotonic()`.
        staging: folder for trial files, on the same file system as the output; removed at the end.
    """

    source: Path
    original: Graph
    target: Target
    budget: Budget
    data: Data | None
    metric: Metric
    precision: str
    whole_int8: WholeInt8 | None
    estimator: str
    repair: RepairMethod
    passes: Sequence[Pass]
    skip: Sequence[str]
    seed: int
    executor: Executor
    cache: bool
    journal: Journal
    effort: Effort
    started: float
    staging: Path
    progress: Timed

    @property
    def deadline(self) -> float:
        """On `time.monotonic()`: no trial starts after it.

        Prices come on top of the time limit: without them nothing can be tried, and the next run of
        the same network has them already.
        """
        seconds = self.progress.seconds
        priced = sum(seconds.get(stage, 0.0) for stage in (PRICING, PRICING_TOGETHER))
        return self.started + self.effort.time_limit_s + priced

    @property
    def estimates_deadline(self) -> float:
        """No estimate starts after it: a plan that was not tried is worth nothing."""
        return self.deadline - TIME_FOR_TRIALS * self.effort.time_limit_s

    @property
    def fitted_samples(self) -> SampleSet | None:
        """What passes observe, and what weights are re-fitted on; a plan names these samples."""
        if self.data is None or self.data.calibration is None:
            return None
        return self.data.calibration.take(MOST_SAMPLES)

    def repaired(self, original: Graph, rewritten: Graph) -> Graph:
        """A rewritten network with its weights re-fitted on the calibration samples."""
        if self.data is None or self.data.calibration is None:
            raise DataError("the repair needs calibration samples; give --calib")
        samples = self.data.calibration
        return self.repair.run(original, rewritten, samples, seed=self.seed).graph

    def survey_int8(self, graph: Graph) -> Survey:
        """What of a network can run in int8, where all is to that can."""
        assert self.whole_int8 is not None
        assert self.fitted_samples is not None
        return self.whole_int8.survey(graph, self.fitted_samples)

    def finished(self, graph: Graph) -> Graph:
        """A network as it is verified: in int8 where all is to be."""
        if self.whole_int8 is None or self.fitted_samples is None:
            return graph
        return self.whole_int8.of(graph, self.fitted_samples)

    @property
    def settings(self) -> dict[str, str]:
        """What a plan says of precision and repair: which, how, and on which samples."""
        calibration = self.fitted_samples
        if calibration is None:
            return {"precision": self.precision, "repair": "none"}
        return {
            "precision": self.precision,
            **self.repair.settings,
            "calibration": calibration.source,
            "calibration_samples": json.dumps(calibration.names),
        }

    @property
    def repairs(self) -> bool:
        """Whether rewritten networks are repaired."""
        calibrated = self.data is not None and self.data.calibration is not None
        return calibrated and self.repair.name != "none"


@contextlib.contextmanager
def open_job(
    model: Model,
    target: str | Path | Target,
    *,
    output: Path | None,
    budget: Budget,
    calibration: str | Path | SampleSet | None,
    evaluation: str | Path | SampleSet | None,
    preprocessing: str | Preprocessing | None,
    samples: int | None,
    labels: str | Path | None,
    metric: str | Metric,
    input_shapes: Mapping[str, Sequence[int]] | None,
    passes: Sequence[Pass] | None,
    plugins: Sequence[str | Path],
    skip: Sequence[str],
    also: Sequence[str],
    effort: Effort,
    seed: int,
    workers: int | None,
    executor: Executor | None,
    cache: bool,
    progress: Progress | None,
    precision: str = "float",
    estimator: str = "fidelity",
    repair: RepairMethod | None = None,
    journal_for: str = "",
    resume: bool = False,
) -> Iterator[Job]:
    """A job with its worker processes and its staging folder; see `actcc.optimize`.

    Args:
        output: a file or folder to be; staging takes place beside it. None for nothing written.
        journal_for: what the run does, as part of its journal's key; empty for no journal.

    Raises:
        ActccError: bad input.
    """
    started = time.monotonic()
    with contextlib.ExitStack() as stack:
        staging = stack.enter_context(_staging(output))
        source = _source_file(model, staging)
        bound = model.input_shapes if isinstance(model, Graph) else {}
        original = Graph.load(source, {**bound, **(input_shapes or {})})
        require_valid(source, original)
        static_types(original)
        judge = load_metric(metric) if isinstance(metric, str) else metric
        check_estimator(estimator)
        data = _load_data(
            original, calibration, evaluation, preprocessing, samples, seed, estimator
        )
        device = target if isinstance(target, Target) else load_target(target)
        asked_for = PRECISIONS[check_precision(precision)]
        if isinstance(device.backend, TfliteBackend):  # its toolchain puts all into int8 anyway
            asked_for = ()
        chosen = select_passes(
            passes, plugins, skip, (*also, *asked_for), for_size=budget.size_counts
        )
        job = Job(
            source=source,
            original=original,
            target=device,
            budget=budget,
            data=_labelled(data, labels, judge),
            metric=judge,
            precision=precision,
            whole_int8=find_whole_int8(
                precision, device, chosen, None if data is None else data.calibration
            ),
            estimator=estimator,
            repair=(repair or RepairMethod()).check(),
            passes=chosen,
            skip=skip,
            seed=seed,
            executor=executor or stack.enter_context(process_pool(workers or default_workers())),
            cache=cache,
            journal=Journal(),
            effort=effort,
            started=started,
            staging=staging,
            progress=Timed(progress or Silent()),
        )
        yield replace(job, journal=_open_journal(job, journal_for, resume=resume))


def _open_journal(job: Job, doing: str, *, resume: bool) -> Journal:
    """The journal of exactly this run; limits of time and trials may differ."""
    metric = _metric_identity(job.metric)
    if not doing or metric is None or not (job.cache or resume):
        return Journal()
    settings = {
        "versions": [metadata.version(n) for n in ("actcc", "onnx", "onnxruntime", "onnxsim")],
        "model": content_hash(job.original),
        "shapes": sorted(job.original.input_shapes.items()),
        "target": (job.target.name, job.target.backend.tool),
        "budget": job.budget,
        "metric": metric,
        "estimator": (job.estimator, job.effort.estimate_samples),
        "repair": job.repair,
        "precision": job.precision,
        "doing": (doing, job.seed),
        "passes": [_code_of(type(found)) for found in job.passes],
        "skip": sorted(job.skip),
    }
    data = job.data
    sets = (None, None) if data is None else (data.calibration, data.evaluation)
    journal = Journal.open(run_key(settings, *sets), resume=resume)
    if resume:
        found = f"{len(journal.known)} findings" if journal.known else "nothing; starting anew"
        job.progress.note(f"resuming an interrupted run of the same kind: {found}")
    return journal


def _metric_identity(metric: Metric) -> str | None:
    """What tells a metric from every other; None for a function whose code is not known."""
    if not isinstance(metric, FunctionMetric):
        return f"{type(metric).__name__} {metric.name} {metric!r}"
    if metric.specification is None:
        return None
    file = metric.specification.rpartition(":")[0]
    return f"{metric.specification} {Path(file).read_text(encoding='utf-8', errors='replace')}"


def _code_of(found: type[Pass]) -> str:
    """A pass's name with the text of its file, where it has one."""
    try:
        return f"{found.name} {Path(inspect.getfile(found)).read_text(encoding='utf-8')}"
    except (OSError, TypeError):
        return found.name


@contextlib.contextmanager
def _staging(output: Path | None) -> Iterator[Path]:
    """Where trial files live: beside the output, so that the best can be renamed into place."""
    if output is None:
        with tempfile.TemporaryDirectory(prefix="actcc-") as folder:
            yield Path(folder)
        return
    with staging_folder(output.parent) as folder:
        yield folder


def _source_file(model: Model, staging: Path) -> Path:
    if isinstance(model, str | Path):
        return Path(model)
    path = staging / "original.onnx"
    graph = model if isinstance(model, Graph) else Graph.load(model)
    graph.save(path, external=graph.external)
    return path


def _load_data(
    graph: Graph,
    calibration: str | Path | SampleSet | None,
    evaluation: str | Path | SampleSet | None,
    preprocessing: str | Preprocessing | None,
    limit: int | None,
    seed: int,
    estimator: str,
) -> Data | None:
    def load(spec: str | Path | SampleSet) -> SampleSet:
        if isinstance(spec, SampleSet):
            return spec if limit is None else spec.take(limit)
        # Arrays and functions are ready to feed; where neither is a folder, loading refuses.
        folders = any(
            isinstance(p, str | Path) and Path(p).is_dir() for p in (calibration, evaluation)
        )
        chosen = preprocessing if Path(spec).is_dir() or not folders else None
        return load_samples(spec, graph, chosen, limit=limit, seed=seed)

    if calibration is None:
        if evaluation is None:
            return None
        if not works_without_calibration(estimator):
            raise DataError(
                f"--eval without --calib: estimator '{estimator}' needs data too; give --calib, or "
                "choose one that needs none, such as --estimator noise"
            )
        return Data(None, load(evaluation))
    first = load(calibration)
    if evaluation is not None:
        return Data(first, load(evaluation))
    if len(first) < 2:
        raise DataError(f"{first.source}: 1 sample; at least 2 are needed, one to verify with")
    return Data(*first.split(HELD_OUT_SHARE, seed))


def _labelled(data: Data | None, labels: str | Path | None, metric: Metric) -> Data | None:
    """The data with labels on what the verification sees."""
    if data is None:
        if metric.name != "fidelity" or labels is not None:
            asking = "--labels" if labels is not None else "--metric"
            raise DataError(f"{asking} needs data to be measured on; give --calib and --eval")
        return None
    if labels is None:
        return data
    return replace(data, evaluation=label_samples(data.evaluation, Path(labels)))
