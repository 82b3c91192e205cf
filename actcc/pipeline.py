"""`optimize()`: the stages in their order."""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, replace
from pathlib import Path

import onnx

from actcc.accuracy.built_in import load_metric
from actcc.accuracy.metric import Metric
from actcc.budget import Budget
from actcc.calibration import Preprocessing, SampleSet, load_samples
from actcc.calibration.labels import label_samples
from actcc.errors import DataError, ModelError
from actcc.evidence import gather_evidence, priced_baseline
from actcc.graph import Graph, static_types
from actcc.graph.files import staging_folder
from actcc.normalize import normalize
from actcc.pass_api import Pass, find_sites, select_passes
from actcc.progress import Progress, Silent
from actcc.result import Outcome, Result, finish, plan_path
from actcc.search import search_plans
from actcc.targets import Target, load_target
from actcc.tasks import default_workers, process_pool
from actcc.trials import Trials
from actcc.verify import Verifier

Model = str | Path | onnx.ModelProto | Graph
HELD_OUT_SHARE = 0.4


@dataclass(frozen=True)
class Data:
    """Calibration and evaluation samples.

    Attributes:
        calibration: what estimates see.
        evaluation: what only the verification sees.
    """

    calibration: SampleSet
    evaluation: SampleSet


def optimize(
    model: Model,
    target: str | Path | Target = "cpu",
    *,
    output: str | Path | None = None,
    budget: Budget | None = None,
    calibration: str | Path | SampleSet | None = None,
    evaluation: str | Path | SampleSet | None = None,
    preprocessing: str | Preprocessing | None = None,
    samples: int | None = None,
    labels: str | Path | None = None,
    metric: str | Metric = "fidelity",
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    passes: Sequence[Pass] | None = None,
    plugins: Sequence[str | Path] = (),
    skip: Sequence[str] = (),
    also: Sequence[str] = (),
    max_trials: int = 8,
    time_limit_s: float = 600.0,
    seed: int = 0,
    workers: int | None = None,
    executor: Executor | None = None,
    cache: bool = True,
    progress: Progress | None = None,
) -> Result:
    """Make a model faster on a target within a budget, and verify it.

    Args:
        model: path, proto or graph; never changed.
        target: name or profile path.
        output: where the verified file is written, with `<output>.plan.json` beside it; None
            keeps it in the result only.
        budget: at most 1 % relative drop and least latency where it is None.
        calibration: folder of images, `.npz`, `.npy` or `file.py:function`; without it only
            exact candidates are offered.
        evaluation: samples for the verification; None holds part of `calibration` out.
        preprocessing: name or profile; needed for folders of images.
        samples: most samples to use of each.
        labels: what the metric needs to know of the images that the verification sees: `.csv`,
            COCO `.json`, or a folder of masks; see `actcc.calibration.labels`.
        metric: a built-in one, such as `top1` or `coco-map`, or `file.py:function`.
        input_shapes: concrete shapes for symbolic inputs.
        passes: None for all that are built in, installed or in `plugins`.
        skip: names of passes, normalizing ones included, to leave out.
        also: names of passes that run only when asked for.
        max_trials: plans that are rewritten and verified at most.
        time_limit_s: no trial starts after this time.
        seed: of the solver and of every draw.
        workers: processes; None for one a core. `executor` takes their place.
        cache: whether measured prices are remembered between runs.

    Raises:
        ActccError: bad input; `InfeasibleError` where no plan meets the budgets.
    """
    started = time.monotonic()
    chosen_budget = budget or Budget()
    with contextlib.ExitStack() as stack:
        staging = stack.enter_context(_staging(output))
        source = _source_file(model, staging)
        bound = model.input_shapes if isinstance(model, Graph) else {}
        original = Graph.load(source, {**bound, **(input_shapes or {})})
        static_types(original)
        judge = load_metric(metric) if isinstance(metric, str) else metric
        data = _load_data(original, calibration, evaluation, preprocessing, samples, seed)
        data = _labelled(data, labels, judge)
        job = _Job(
            source=source,
            original=original,
            target=target if isinstance(target, Target) else load_target(target),
            budget=chosen_budget,
            data=data,
            metric=judge,
            passes=select_passes(passes, plugins, skip, also),
            skip=skip,
            seed=seed,
            executor=executor or stack.enter_context(process_pool(workers or default_workers())),
            cache=cache,
            trials=Trials(max_trials, started + time_limit_s, chosen_budget.objective),
            staging=staging,
            output=None if output is None else Path(output),
            progress=progress or Silent(),
        )
        return _run(job)


@dataclass(frozen=True)
class _Job:
    """Everything that one run needs, loaded and checked."""

    source: Path
    original: Graph
    target: Target
    budget: Budget
    data: Data | None
    metric: Metric
    passes: Sequence[Pass]
    skip: Sequence[str]
    seed: int
    executor: Executor
    cache: bool
    trials: Trials
    staging: Path
    output: Path | None
    progress: Progress


def _run(job: _Job) -> Result:
    """The stages in their order."""
    with job.progress.stage("Normalizing"):
        normalized = normalize(job.original, skip=job.skip)
    graph = normalized.graph
    baseline = priced_baseline(job.original, graph, job.target.backend)
    if baseline is graph:
        job.progress.note(
            f"{job.target.name} cannot price the model before its shapes are folded: "
            "the normalized network is what the result is compared with"
        )
    verifier = Verifier(
        job.source,
        baseline,
        job.target,
        job.budget,
        job.original.input_shapes,
        None if job.data is None else job.data.evaluation,
        job.metric,
        job.executor,
        job.seed,
    )
    with job.progress.stage("Running the original") as advance:
        verifier.prepare(advance)
    survey = find_sites(graph, job.passes, job.target, exact_only=job.data is None)
    evidence = gather_evidence(
        baseline,
        graph,
        survey.sites,
        job.passes,
        job.target,
        job.budget,
        None if job.data is None else job.data.calibration,
        job.executor,
        job.progress,
        job.cache,
    )
    name = "model.onnx" if job.output is None else job.output.name
    trials = search_plans(
        graph, job.passes, evidence, verifier, job.trials, job.staging, name, job.progress
    )
    outcome = Outcome(job.source, normalized, survey, evidence, trials, verifier)
    return finish(outcome, job.output, job.staging)


@contextlib.contextmanager
def _staging(output: str | Path | None) -> Iterator[Path]:
    """Where trial files live: beside the output, so that the best can be renamed into place."""
    if output is None:
        with tempfile.TemporaryDirectory(prefix="actcc-") as folder:
            yield Path(folder)
        return
    for path in (Path(output), plan_path(Path(output))):
        if path.is_dir():
            raise ModelError(f"{path}: is a folder; choose another output")
    parent = Path(output).parent
    if not parent.is_dir():
        raise ModelError(f"{output}: folder '{parent}' does not exist; create it first")
    try:
        with staging_folder(parent) as folder:
            yield folder
    except PermissionError as error:
        raise ModelError(f"{output}: '{parent}' cannot be written; choose another") from error


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
        if evaluation is not None:
            raise DataError("--eval without --calib: estimates need data too; give --calib")
        return None
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
