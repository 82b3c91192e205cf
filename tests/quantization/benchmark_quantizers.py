"""int8 models of other post-training quantizers beside those of actcc, on the same images.

    python tests/quantization/benchmark_quantizers.py MODEL --calib FOLDER --eval FOLDER
        --labels FILE --metric top1 --preprocess imagenet [--also FILE.onnx ...]
        [--samples 32] [--eval-samples N] [--calib-labels FILE --max-drop 1%]
        [--target cpu|openvino-cpu]

Tools: onnxruntime's quantize_static, with its defaults and as its documentation advises for x86-64,
with a reduced range of weights where the processor has no VNNI; NNCF's quantize where nncf is
installed, with its defaults and with the settings that suit the kind of model. With --target
openvino-cpu NNCF quantizes the OpenVINO model too, which it writes as OpenVINO IR. --also adds
models that are written already, as by `actcc optimize --precision mixed`.

With --calib-labels two fifths of the images of --calib are held out, as `actcc optimize` holds them
out without --eval: NNCF's quantize_with_accuracy_control keeps --max-drop on them, with no limit on
its time, and no tool calibrates on them. It is given the kind of model that is the runtime's own.
Nothing but the table sees the images of --eval.

Latency is measured with the target's runtime in one interleaved run of all models, and so is the
metric. Drop is the original's metric less the model's, with the 90 % interval of a paired bootstrap
over the images of --eval. A tool that fails has a row with the reason.
"""

from __future__ import annotations

import argparse
import contextlib
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from quantizers import with_nncf, with_onnxruntime
from quantizers.job import Job, Quantizer
from quantizers.runs import Runtime, observations, opened, runtime_of, timed

from actcc.accuracy.bootstrap import drop_interval
from actcc.accuracy.built_in import load_metric
from actcc.accuracy.metric import Metric, Scores
from actcc.backends.openvino import OpenVinoBackend
from actcc.budget import parse_drop
from actcc.calibration import SampleSet, load_samples
from actcc.calibration.labels import label_samples
from actcc.calibration.user_code import one_line
from actcc.errors import ActccError
from actcc.graph import Graph
from actcc.job import HELD_OUT_SHARE
from actcc.prices import Timing
from actcc.runtime import onnx_runtime
from actcc.targets import load_target

CONFIDENCE = 0.95  # at either end


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


def quantizers(job: Job, runtime: Runtime, weight_bits: int | None) -> list[Quantizer]:
    """Those that are installed and write what the runtime reads.

    Args:
        weight_bits: that the processor multiplies exactly.
    """
    found = with_onnxruntime.quantizers(reduce_range=weight_bits == 7)
    if not with_nncf.installed():
        return found
    found += with_nncf.quantizers(".onnx")
    own = ".onnx"
    if isinstance(runtime, OpenVinoBackend):
        own = ".xml"
        found += with_nncf.quantizers(own)
    if job.control is not None:
        said = f"max_drop {job.max_drop} on {len(job.control)} held-out images of --calib"
        found.append(with_nncf.with_accuracy_control(own, said))
    return found


def written(quantizer: Quantizer, job: Job, path: Path) -> Row:
    """Run a tool; what it prints goes to stderr, so that stdout has the table alone."""
    print(f"{quantizer.name} …", file=sys.stderr, flush=True)
    begin = time.perf_counter()
    failure = ""
    try:
        with contextlib.redirect_stdout(sys.stderr):
            quantizer.write(job, path)
    except Exception as error:  # whatever the tool raises is its row
        failure = one_line(error)
    return Row(quantizer.name, path, time.perf_counter() - begin, failure)


def scored(
    rows: Iterable[Row], runtime: Runtime, samples: SampleSet, metric: Metric
) -> Iterator[Row]:
    """The rows with their scores; the first is the original."""
    judge = None
    for row in rows:
        if row.failure:
            yield row
            continue
        try:
            seen = observations(opened(str(row.path), runtime), samples, metric)
            judge = judge or metric.judge(seen, samples)
            yield replace(row, scores=judge(seen))
        except Exception as error:
            if judge is None:  # without the original there is nothing to compare
                raise
            yield replace(row, failure=one_line(error))


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


def calibration_images(
    options: argparse.Namespace, graph: Graph
) -> tuple[SampleSet, SampleSet | None]:
    """What tools calibrate on, and, where there are labels, labelled images that they do not."""
    images = load_samples(options.calib, graph, options.preprocess, limit=options.samples)
    if options.calib_labels is None:
        return images, None
    calibration, held_out = images.split(HELD_OUT_SHARE, seed=0)
    return calibration, label_samples(held_out, options.calib_labels)


def compare(options: argparse.Namespace) -> None:
    """Print the table."""
    version = onnx_runtime().__version__  # first: imported by a tool it would report
    target, metric = load_target(options.target), load_metric(options.metric)
    runtime, bits = runtime_of(target), target.int8_weight_bits
    graph = Graph.load(options.model)
    evaluation = load_samples(options.eval, graph, options.preprocess, limit=options.eval_samples)
    evaluation = label_samples(evaluation, options.labels)
    calibration, control = calibration_images(options, graph)
    drop = parse_drop(options.max_drop)
    with tempfile.TemporaryDirectory(prefix="actcc-") as name:
        folder = Path(name)
        job = Job(options.model, folder, calibration, control, metric, drop, runtime)
        rows = [Row("original", options.model)]
        for index, quantizer in enumerate(quantizers(job, runtime, bits)):
            rows.append(written(quantizer, job, folder / f"{index}{quantizer.suffix}"))
        rows += [Row(f"actcc, {path.name}", path) for path in options.also]
        rows = list(scored(rows, runtime, evaluation, metric))
        running = [row.path for row in rows if not row.failure]
        found = timed(running, runtime, evaluation[0].inputs)
        timings = dict(zip(running, found, strict=True))
    print(
        f"{options.model.name}: {metric.name} on {len(evaluation)} images, calibrated on "
        f"{len(calibration)} others; {runtime.tool}; quantizers: onnxruntime {version}, "
        f"{with_nncf.version()}\n"
    )
    titles = ["tool and settings", "latency ms", "times faster", metric.name, "drop", "wall time"]
    print(f"| {' | '.join(titles)} |\n|{' --- |' * len(titles)}")
    for row in rows:
        print(f"| {' | '.join(cells(row, rows[0], timings))} |")


def main() -> None:
    """Parse and compare."""
    try:
        compare(_options())
    except ActccError as error:
        sys.exit(f"error: {error}")


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
    parser.add_argument("--samples", type=int, default=32, help="images of --calib at most")
    parser.add_argument("--eval-samples", type=int, help="evaluation images at most")
    parser.add_argument("--target", default="cpu", help="cpu, openvino-cpu, or a profile of either")
    parser.add_argument("--calib-labels", type=Path, help="of the images of --calib")
    parser.add_argument("--max-drop", default="1%", help="for accuracy control: 1%% or 0.5abs")
    return parser.parse_args()


if __name__ == "__main__":
    main()
