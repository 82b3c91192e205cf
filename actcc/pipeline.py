"""`optimize()`: the stages in their order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

from actcc.accuracy.metric import Metric
from actcc.budget import Budget
from actcc.calibration import Preprocessing, SampleSet
from actcc.deploy import TfliteBackend, TfliteFiles, tflite_paths
from actcc.effort import load_preset
from actcc.errors import PricingError
from actcc.evidence import gather_evidence, priced_baseline
from actcc.graph import Graph
from actcc.job import Job, Model, open_job
from actcc.normalize import Normalized, normalize
from actcc.output import check_output
from actcc.pass_api import Pass, Survey, find_sites
from actcc.program import Evidence
from actcc.progress import Progress
from actcc.repair import RepairMethod
from actcc.report import report_path
from actcc.result import Outcome, Result, finish, plan_path
from actcc.search import Search, check_strategy, search_plans
from actcc.targets import Target
from actcc.tflite import runs_here
from actcc.trials import Trials
from actcc.verify import Verifier


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
    precision: str = "auto",
    estimator: str = "fidelity",
    repair: RepairMethod | None = None,
    search: str = "cpsat",
    preset: str = "default",
    max_trials: int | None = None,
    time_limit_s: float | None = None,
    seed: int = 0,
    workers: int | None = None,
    executor: Executor | None = None,
    cache: bool = True,
    resume: bool = False,
    emit_tflite: bool = False,
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
        precision: what the result is verified in: `auto` is int8 where the target computes in
            it and there are calibration samples, else as the file is; `float` is always as the
            file is; `mixed` lets each layer run in int8 where it pays, and `int8` has all run in
            it that can, both on targets that run QDQ.
        estimator: what losses are estimated by before anything is measured: `fidelity` on
            calibration data, one of `actcc.estimators`, or `auto` for the best by a ranking.
        repair: how weights are re-fitted behind approximate rewrites; None for the closed form.
        search: how plans are proposed: `cpsat`, or for comparison `greedy`, `random`, `optuna`.
        preset: how much effort is made: `quick`, `default` or `thorough`.
        max_trials: plans that are rewritten and verified at most; None for the preset's.
        time_limit_s: no trial starts after this time, and no estimate after half of it, prices not
            counted; None for the preset's.
        seed: of the solver and of every draw.
        workers: processes; None for one a core. `executor` takes their place.
        cache: whether measured prices, and what an interrupted run found, are remembered.
        resume: go on where an interrupted run with the same arguments stopped.
        emit_tflite: write the result in int8 as TFLite beside `output`, and compiled for the
            target; only for targets that load it, and with calibration samples.

    Raises:
        ActccError: bad input; `InfeasibleError` where no plan meets the budgets.
    """
    path = None if output is None else Path(output)
    if path is not None:
        inputs = (model, target, calibration, evaluation, preprocessing, labels, metric, *plugins)
        beside = tflite_paths(path) if emit_tflite else []
        for written in (path, plan_path(path), report_path(path), *beside):
            check_output(written, *inputs)
    check_strategy(search)
    effort = load_preset(preset).but(max_trials, time_limit_s)
    with open_job(
        model,
        target,
        output=path,
        budget=budget or Budget(),
        calibration=calibration,
        evaluation=evaluation,
        preprocessing=preprocessing,
        samples=samples,
        labels=labels,
        metric=metric,
        input_shapes=input_shapes,
        passes=passes,
        plugins=plugins,
        skip=skip,
        also=also,
        precision=precision,
        effort=effort,
        seed=seed,
        workers=workers,
        executor=executor,
        cache=cache,
        progress=progress,
        estimator=estimator,
        repair=repair,
        journal_for=f"optimize {search}",
        resume=resume,
    ) as job:
        try:
            return _run(job, path, search, emit_tflite=emit_tflite)
        except KeyboardInterrupt:
            if job.journal.path is not None:
                job.progress.note("interrupted; the same command with --resume goes on from here")
            raise


def _run(job: Job, output: Path | None, search: str, *, emit_tflite: bool) -> Result:
    """The stages in their order."""
    samples = None if job.data is None else job.data.calibration
    tflite = None
    if emit_tflite:
        tflite = TfliteFiles(job.target, samples, tuple(job.skip), job.repair)
    surveyed = survey_model(job)
    if tflite is not None and surveyed.verifier.tflite is not None:
        tflite = surveyed.verifier.tflite  # what was verified is what is written
    elif tflite is not None:
        with job.progress.stage("Trying the original as TFLite"):
            tflite.check(surveyed.normalized.graph)
    try:
        prepared = price_model(surveyed)
    except PricingError as error:
        return finish(surveyed.unpriced(str(error)), output, job.staging, tflite)
    trials = Trials(job.effort.max_trials, job.deadline, job.budget.objective)
    name = "model.onnx" if output is None else output.name
    search_plans(prepared.search(prepared.verifier, trials, name), job.progress, search)
    result = finish(prepared.outcome(trials), output, job.staging, tflite)
    if not trials.interrupted:
        job.journal.discard()
    return result


@dataclass(frozen=True)
class Surveyed:
    """A model that has been normalized and looked through, and that has run on the samples.

    Attributes:
        baseline: what results are timed against; see `actcc.evidence.priced_baseline`.
    """

    job: Job
    normalized: Normalized
    survey: Survey
    baseline: Graph
    verifier: Verifier

    def unpriced(self, reason: str) -> Outcome:
        """What comes of a model that the target cannot price: it is left as it is."""
        job = self.job
        return Outcome(
            job.source,
            self.normalized,
            self.survey,
            None,
            Trials(0, job.deadline, job.budget.objective),
            self.verifier,
            tuple(job.skip),
            job.progress.seconds,
            unpriced=reason,
        )


@dataclass(frozen=True)
class Prepared:
    """What is known before the first trial; shared by all searches of one model and target.

    Attributes:
        verifier: has run the original already.
    """

    job: Job
    normalized: Normalized
    survey: Survey
    evidence: Evidence
    verifier: Verifier

    def search(self, verifier: Verifier, trials: Trials, file_name: str) -> Search:
        """A search that fills `trials` with models of that file name."""
        job, graph = self.job, self.normalized.graph
        return Search(
            graph,
            job.passes,
            self.evidence,
            verifier,
            trials,
            job.staging,
            file_name,
            job.journal,
            repair=job.repaired if job.repairs else None,
            samples=job.fitted_samples,
            everywhere=None if job.whole_int8 is None else job.survey_int8,
        )

    def outcome(self, trials: Trials) -> Outcome:
        """What the stages have come to."""
        job = self.job
        return Outcome(
            job.source,
            self.normalized,
            self.survey,
            self.evidence,
            trials,
            self.verifier,
            tuple(job.skip),
            job.progress.seconds,
            job.settings,
        )


def prepare(job: Job) -> Prepared:
    """All stages before the first trial.

    Raises:
        ActccError: the model cannot be run, priced or estimated.
    """
    return price_model(survey_model(job))


def survey_model(job: Job) -> Surveyed:
    """The stages that need no price.

    Raises:
        ActccError: the model cannot be run.
    """
    with job.progress.stage("Normalizing"):
        normalized = normalize(job.original, skip=job.skip)
    graph = normalized.graph
    baseline = priced_baseline(job.original, graph, job.target.backend)
    if baseline is graph:
        job.progress.note(
            f"{job.target.name} cannot price the model as it was exported: "
            "the normalized network is what the result is compared with"
        )
    verifier = Verifier(
        _runnable(job),
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
    _prepare_int8(job, verifier)
    with job.progress.stage("Finding sites"):
        survey = find_sites(
            graph,
            job.passes,
            job.target,
            exact_only=job.data is None,
            samples=job.fitted_samples,
        )
    if job.whole_int8 is not None:
        survey = job.whole_int8.leave_to_choose(survey)
    return Surveyed(job, normalized, survey, baseline, verifier)


def _prepare_int8(job: Job, verifier: Verifier) -> None:
    """Let the verifier judge in int8 where the device computes in it."""
    samples = None if job.data is None else job.data.calibration
    if job.precision == "float" or not samples or not isinstance(job.target.backend, TfliteBackend):
        return
    if not runs_here():
        job.progress.note(
            "accuracy is that of the ONNX files, not of int8: LiteRT is not installed; "
            "run: pip install 'actcc[ethos-u]'"
        )
        return
    try:
        with job.progress.stage("Running the original in int8"):
            # With channels equalized, fitted weights gain nothing that is worth their time.
            fit = RepairMethod("none")
            verifier.prepare_int8(TfliteFiles(job.target, samples, tuple(job.skip), fit))
    except PricingError as error:
        job.progress.note(f"accuracy is that of the ONNX files, not of int8: {error}")
    if verifier.int8_alone:
        job.progress.note(verifier.int8_alone)


def _runnable(job: Job) -> Path:
    """The original's file, or a copy of it whose nodes have names of their own."""
    if not job.original.repeats_names:
        return job.source
    path = job.staging / "runnable.onnx"
    job.original.save(path, external=job.original.external)
    return path


def price_model(surveyed: Surveyed) -> Prepared:
    """What every candidate saves and loses.

    Raises:
        PricingError: the target can neither price nor time the model.
    """
    job, normalized, survey = surveyed.job, surveyed.normalized, surveyed.survey
    evidence = gather_evidence(
        job,
        surveyed.baseline,
        normalized.graph,
        survey.sites,
    )
    return Prepared(job, normalized, survey, evidence, surveyed.verifier)
