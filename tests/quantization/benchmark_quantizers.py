"""int8 models of other post-training quantizers beside those of actcc, on the same images.

    python tests/quantization/benchmark_quantizers.py MODEL --calib FOLDER --eval FOLDER
        --labels FILE --metric top1 --preprocess imagenet [--also FILE.onnx ...]
        [--samples 32] [--eval-samples N] [--calib-labels FILE [--max-drop 0.01]] [--target cpu]

Tools: onnxruntime's quantize_static, with its defaults and as its documentation advises for x86-64
without VNNI; NNCF's quantize where nncf is installed, with its defaults and with settings that
ONNX Runtime's int8 kernels can run; with --calib-labels also quantize_with_accuracy_control, which
measures the metric on all images of --calib and has no limit on its time. --also adds models that
are written already, as by `actcc optimize --precision mixed`.

Latency is measured on the target, cpu or another that runs on this machine, in one interleaved run
of all models. The metric is measured with ONNX Runtime. Drop is the original's metric less the
model's, with the 90 % interval of a paired bootstrap over the images of --eval. A tool that fails
has a row with the reason.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import importlib.util
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from actcc.accuracy.bootstrap import drop_interval
from actcc.accuracy.built_in import load_metric
from actcc.accuracy.metric import Metric, Scores
from actcc.calibration import SampleSet, load_samples
from actcc.calibration.labels import label_samples
from actcc.calibration.user_code import one_line
from actcc.graph import Array, Graph
from actcc.prices import Timing
from actcc.runtime import onnx_runtime, run, session
from actcc.targets import Target, load_target
from actcc.verify import ObserveTask, observe_part

PER_CHANNEL_OPERATOR_SET = 13
PERCENTILE = 99.99
CONFIDENCE = 0.95  # at either end


@dataclass(frozen=True)
class Job:
    """What a tool is given.

    Attributes:
        folder: for files in between.
        control: labelled images that accuracy control may look at; None without labels.
        max_drop: absolute, that accuracy control may spend.
    """

    model: Path
    folder: Path
    calibration: SampleSet
    control: SampleSet | None
    metric: Metric
    max_drop: float

    @cached_property
    def source(self) -> Path:
        """The model, converted where it is below operator set 13.

        DequantizeLinear has its axis from that set on, and without it no scale per channel.
        """
        graph = Graph.load(self.model)
        if graph.opset >= PER_CHANNEL_OPERATOR_SET:
            return self.model
        graph.raise_opset(PER_CHANNEL_OPERATOR_SET)  # by onnx.version_converter
        path = self.folder / "converted.onnx"
        graph.save(path)
        return path

    def pre_processed(self) -> Path:
        """The source as quantize_static wants it: with shapes, and batch norms folded."""
        from onnxruntime.quantization.shape_inference import quant_pre_process

        path = self.folder / "pre_processed.onnx"
        quant_pre_process(self.source, path)
        return path


Tool = Callable[[Job, Path], None]
"""A quantizer with its settings, that puts a model at the path."""


@dataclass(frozen=True)
class Row:
    """A model of the table.

    Attributes:
        seconds: wall time of the tool; None for a file that was there.
        failure: why there is no model, or why it does not run; empty if it does.
    """

    name: str
    path: Path
    seconds: float | None = None
    failure: str = ""
    scores: Scores | None = None


# ---------------------------------------------------------------- onnxruntime


def quantize_static(
    job: Job, result: Path, *, method: str = "MinMax", advised: bool = False
) -> None:
    """Quantize to QDQ form with onnxruntime.

    Args:
        method: of calibration, a member of CalibrationMethod.
        advised: uint8 activations and weights of 7 bits per channel, after quant_pre_process, as
            its documentation says for x86-64 without VNNI; its defaults otherwise.
    """
    from onnxruntime import quantization

    class Samples(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self.feeds = (sample.inputs for sample in job.calibration)

        def get_next(self) -> Mapping[str, Array] | None:
            return next(self.feeds, None)

    if not advised:
        quantization.quantize_static(job.source, result, Samples())
        return
    quantization.quantize_static(
        job.pre_processed(),
        result,
        Samples(),
        per_channel=True,
        reduce_range=True,
        activation_type=quantization.QuantType.QUInt8,
        calibrate_method=quantization.CalibrationMethod[method],
        extra_options={"CalibPercentile": PERCENTILE} if method == "Percentile" else None,
    )


# ---------------------------------------------------------------- NNCF


def nncf_module(name: str = "nncf") -> Any:
    """A module of NNCF, which reports every call to its vendor unless NNCF_CI is set."""
    os.environ.setdefault("NNCF_CI", "1")
    return importlib.import_module(name)


def nncf_settings(*, suited: bool) -> dict[str, Any]:
    """NNCF's settings under their names in `quantize`, or its defaults.

    Args:
        suited: asymmetric activations, per tensor, since ONNX Runtime has no int8 kernel for a
            scale per channel, which NNCF gives what depthwise layers read; and weights of half
            the range, so that sums do not saturate without VNNI, as with reduce_range.
    """
    if not suited:
        return {}
    advanced = nncf_module("nncf.quantization.advanced_parameters")
    return {
        "preset": nncf_module().QuantizationPreset.MIXED,
        "advanced_parameters": advanced.AdvancedQuantizationParameters(
            overflow_fix=advanced.OverflowFix.ENABLE,
            activations_quantization_params=advanced.QuantizationParameters(per_channel=False),
        ),
    }


def nncf_quantize(
    job: Job, result: Path, *, suited: bool = False, fast_bias_correction: bool = True
) -> None:
    """Quantize with NNCF; suited, as in `nncf_settings`, is after quant_pre_process."""
    nncf = nncf_module()
    source = onnx.load(job.pre_processed() if suited else job.source)
    data = nncf.Dataset(job.calibration, lambda sample: sample.inputs)
    quantized = nncf.quantize(
        source,
        data,
        subset_size=len(job.calibration),
        fast_bias_correction=fast_bias_correction,
        **nncf_settings(suited=suited),
    )
    onnx.save(quantized, result)


def nncf_accuracy_control(job: Job, result: Path) -> None:
    """Quantize with NNCF, and take layers back to floating point until the drop is kept."""
    nncf, control = nncf_module(), job.control
    if control is None:
        raise ValueError("accuracy control needs labels; give --calib-labels")
    source = onnx.load(job.pre_processed())

    def observations(model: onnx.ModelProto, samples: SampleSet) -> list[Any]:
        runner = session(model)
        return [job.metric.observe(run(runner, sample.inputs), sample) for sample in samples]

    reference = observations(source, control)
    settings = nncf_settings(suited=True)  # of which one has a longer name here
    settings["advanced_quantization_parameters"] = settings.pop("advanced_parameters")

    def validate(model: onnx.ModelProto, items: Iterable[int]) -> tuple[float, list[float]]:
        chosen = list(items)
        samples = replace(control, indices=tuple(control.indices[item] for item in chosen))
        judge = job.metric.judge([reference[item] for item in chosen], samples)
        scores = judge(observations(model, samples))
        # Where the metric is not defined on one image, the image does not rank layers.
        of_each = np.nan_to_num([scores.value(np.array([i])) for i in range(len(chosen))])
        return scores.value(np.arange(len(chosen))), of_each.tolist()

    quantized = nncf.quantize_with_accuracy_control(
        source,
        nncf.Dataset(job.calibration, lambda sample: sample.inputs),
        nncf.Dataset(range(len(control)), lambda item: control[item].inputs),
        validate,
        max_drop=job.max_drop,
        subset_size=len(job.calibration),
        **settings,
    )
    onnx.save(quantized, result)


# ---------------------------------------------------------------- table


def tools(job: Job) -> dict[str, Tool]:
    """Those that are installed, by name and settings."""
    advised = "quantize_static, pre-processed, per channel, reduced range"
    found: dict[str, Tool] = {"quantize_static, defaults (per tensor, MinMax)": quantize_static}
    for method in ("MinMax", "Percentile", "Entropy"):
        said = f"{method} {PERCENTILE}" if method == "Percentile" else method
        found[f"{advised}, {said}"] = partial(quantize_static, method=method, advised=True)
    if importlib.util.find_spec("nncf") is None:
        return found
    suited = "pre-processed, MIXED, activations per tensor, overflow fix"
    found["nncf.quantize, defaults"] = nncf_quantize
    found[f"nncf.quantize, {suited}"] = partial(nncf_quantize, suited=True)
    full = partial(nncf_quantize, suited=True, fast_bias_correction=False)
    found[f"nncf.quantize, {suited}, full bias correction"] = full
    if job.control is not None:
        limit = f"max_drop {job.max_drop:g} on {len(job.control)} images of --calib"
        found[f"nncf.quantize_with_accuracy_control, {suited}, {limit}"] = nncf_accuracy_control
    return found


def written(name: str, tool: Tool, job: Job, path: Path) -> Row:
    """Run a tool; what it prints goes to stderr, so that stdout has the table alone."""
    print(f"{name} …", file=sys.stderr, flush=True)
    begin = time.perf_counter()
    failure = ""
    try:
        with contextlib.redirect_stdout(sys.stderr):
            tool(job, path)
    except Exception as error:  # whatever the tool raises is its row
        failure = one_line(error)
    return Row(name, path, time.perf_counter() - begin, failure)


def scored(rows: Iterable[Row], samples: SampleSet, metric: Metric) -> Iterator[Row]:
    """The rows with their scores; the first is the original."""
    judge = None
    for row in rows:
        if row.failure:
            yield row
            continue
        try:
            seen = observe_part(ObserveTask(row.path, samples, metric))
            judge = judge or metric.judge(seen, samples)
            yield replace(row, scores=judge(seen))
        except Exception as error:
            if judge is None:  # without the original there is nothing to compare
                raise
            yield replace(row, failure=one_line(error))


def timed(rows: Iterable[Row], target: Target, feeds: Mapping[str, Array]) -> dict[Path, Timing]:
    """Of the rows that run, by path."""
    running = [row for row in rows if not row.failure]
    graphs = [Graph.load(row.path) for row in running]
    timings = target.backend.time_models(graphs, feeds)
    return {row.path: timing for row, timing in zip(running, timings, strict=True)}


def cells(row: Row, original: Row, timings: Mapping[Path, Timing]) -> list[str]:
    """One line of the table."""
    seconds = "" if row.seconds is None else f"{row.seconds:.1f} s"
    if row.scores is None or original.scores is None:
        reason = row.failure.replace("|", "/")
        return [row.name, f"failed: {reason}", "", "", "", seconds]
    timing, every = timings[row.path], np.arange(len(row.scores))
    value, whole = row.scores.value(every), original.scores.value(every)
    faster, drop = "1", "0"
    if row is not original:
        faster = f"{1 / timing.ratio:.2f} ± {timing.ratio_noise / timing.ratio**2:.2f}"
        interval = drop_interval(original.scores, row.scores, CONFIDENCE, seed=0)
        drop = f"{whole - value:.4f} ({interval.low:.4f} to {interval.high:.4f})"
    return [row.name, f"{timing.latency_ns / 1e6:.3f}", faster, f"{value:.4f}", drop, seconds]


def main() -> None:
    """Print the table."""
    options = _options()
    version = onnx_runtime().__version__  # first: imported by a tool it would report
    target, metric = load_target(options.target), load_metric(options.metric)
    graph = Graph.load(options.model)
    images = partial(load_samples, graph=graph, preprocessing=options.preprocess)
    evaluation = label_samples(images(options.eval, limit=options.eval_samples), options.labels)
    control = None
    if options.calib_labels is not None:
        control = label_samples(images(options.calib), options.calib_labels)
    with tempfile.TemporaryDirectory(prefix="actcc-") as name:
        calibration, folder = images(options.calib, limit=options.samples), Path(name)
        job = Job(options.model, folder, calibration, control, metric, options.max_drop)
        rows = [Row("original", options.model)]
        for index, (said, tool) in enumerate(tools(job).items()):
            rows.append(written(said, tool, job, folder / f"{index}.onnx"))
        rows += [Row(f"actcc, {path.name}", path) for path in options.also]
        rows = list(scored(rows, evaluation, metric))
        timings = timed(rows, target, evaluation[0].inputs)
    if importlib.util.find_spec("nncf") is not None:
        version += f", nncf {nncf_module().__version__}"
    print(
        f"{options.model.name}: {metric.name} on {len(evaluation)} images, calibrated on "
        f"{len(calibration)} others; {target.backend.tool}; quantizers: onnxruntime {version}\n"
    )
    titles = ["tool and settings", "latency ms", "times faster", metric.name, "drop", "wall time"]
    print(f"| {' | '.join(titles)} |\n|{' --- |' * len(titles)}")
    for row in rows:
        print(f"| {' | '.join(cells(row, rows[0], timings))} |")


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="ONNX model in floating point")
    parser.add_argument("--calib", type=Path, required=True, help="folder of images")
    parser.add_argument("--eval", type=Path, required=True, help="folder of other images")
    parser.add_argument("--labels", type=Path, required=True, help="of the images of --eval")
    parser.add_argument("--metric", required=True, help="top1, coco-map or another of actcc")
    parser.add_argument("--preprocess", required=True, help="name or .toml, as for actcc")
    parser.add_argument("--also", type=Path, nargs="*", default=[], help="models written already")
    parser.add_argument("--samples", type=int, default=32, help="calibration images at most")
    parser.add_argument("--eval-samples", type=int, help="evaluation images at most")
    parser.add_argument("--calib-labels", type=Path, help="of the images of --calib")
    parser.add_argument("--target", default="cpu", help="what latency is measured on")
    parser.add_argument("--max-drop", type=float, default=0.01, help="for accuracy control")
    return parser.parse_args()


if __name__ == "__main__":
    main()
