"""`actcc optimize`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from actcc.cli.options import (
    also_option,
    json_option,
    model_argument,
    parse_shapes,
    plugin_option,
    shape_option,
    skip_option,
    target_option,
)
from actcc.effort import PRESETS
from actcc.errors import ModelError


def _trials() -> str:
    return ", ".join(f"{name}: {effort.max_trials}" for name, effort in PRESETS.items())


def _limits() -> str:
    return ", ".join(f"{name}: {effort.time_limit_s:g}" for name, effort in PRESETS.items())


@click.command("optimize", short_help="Make MODEL faster within a budget, and verify it.")
@model_argument
@click.option(
    "--output",
    "-o",
    type=click.Path(dir_okay=False),
    help="Where the optimized model goes [default: MODEL with .optimized.onnx]; its plan and its "
    "report go to OUTPUT.plan.json and OUTPUT.report.html.",
)
@target_option
@click.option(
    "--calib",
    metavar="PATH",
    help="Unlabelled samples: folder of images, .npz, .npy, or file.py:function. Without it only "
    "exact rewrites are offered.",
)
@click.option(
    "--eval",
    "evaluation",
    metavar="PATH",
    help="Samples for the verification, as --calib [default: part of --calib is held out].",
)
@click.option(
    "--preprocess",
    metavar="NAME|FILE.toml",
    help="How images become inputs: yolox, yolo, imagenet, … ; needed for folders of images.",
)
@click.option("--samples", type=click.IntRange(min=2), help="Use at most this many samples.")
@click.option(
    "--metric",
    metavar="NAME|FILE.py:FUNCTION",
    default="fidelity",
    show_default=True,
    help="What accuracy means. Without labels: fidelity (of all outputs), agreement (with the "
    "original's detections or classes). With labels: top1, top5, coco-map, coco-map50, "
    "segmentation-iou. NAME:HOW says how outputs are read where their shapes do not tell, e.g. "
    "coco-map:yolov8. Or your own metric(outputs, samples) -> float, higher is better.",
)
@click.option(
    "--labels",
    metavar="FILE.csv|COCO.json|FOLDER|folders",
    help="What the metric needs to know of the images of --eval (of --calib without it): classes "
    "by file name, boxes, masks as PNG, or `folders` where each class has its own.",
)
@click.option(
    "--max-drop",
    metavar="1%|0.5abs|none",
    help="Accuracy that may be lost: relative to the original, or in the metric's units "
    "[default: 1%; none with --objective accuracy].",
)
@click.option(
    "--confidence",
    metavar="80%",
    help="With which the drop must be within its limit, by resampling the samples; 50% takes the "
    "measured drop as it is [default: 80%].",
)
@click.option("--max-latency", metavar="8ms|70%", help="Latency that must be reached.")
@click.option("--max-memory", metavar="4MiB|60%", help="Peak memory of activations.")
@click.option(
    "--objective",
    type=click.Choice(["latency", "accuracy"]),
    default="latency",
    show_default=True,
    help="What is made best within the budgets; `accuracy` needs --max-latency.",
)
@click.option(
    "--estimator",
    metavar="NAME|auto",
    default="fidelity",
    show_default=True,
    help="What losses are estimated by before anything is measured: fidelity, noise, nwot, "
    "nwot-noise, zen, bayesian-ridge, …; auto takes the best by `actcc rank`.",
)
@click.option(
    "--search",
    type=click.Choice(["cpsat", "greedy", "random", "optuna"]),
    default="cpsat",
    show_default=True,
    help="How plans are proposed; cpsat is the compiler's own, the others are for comparison.",
)
@click.option(
    "--preset",
    type=click.Choice(list(PRESETS)),
    default="default",
    show_default=True,
    help="How much effort is made; the two options below change parts of it.",
)
@click.option(
    "--max-trials", type=click.IntRange(min=1), help=f"Plans to verify at most [{_trials()}]."
)
@click.option(
    "--time-limit",
    metavar="SECONDS",
    type=click.FloatRange(min=0, min_open=True),
    help=f"No further plan is tried after this time [{_limits()}].",
)
@click.option(
    "--resume", is_flag=True, help="Go on where an interrupted run with the same options stopped."
)
@shape_option
@skip_option
@also_option
@plugin_option
@click.option("--seed", default=0, show_default=True, help="Same input and seed, same plan.")
@click.option("--workers", type=click.IntRange(min=1), help="Processes [default: one a core].")
@click.option("--no-cache", is_flag=True, help="Measure every price anew.")
@click.option("--explain", is_flag=True, help="Say for every site and candidate why not.")
@json_option
@click.option("--quiet", "-q", is_flag=True, help="No progress and no tables.")
def optimize_command(**options: Any) -> None:
    """Make MODEL faster on a target within a budget, and verify the result.

    \b
    Examples:
      actcc optimize yolox_nano.onnx --target npu1 --calib coco/ --preprocess yolox
      actcc optimize net.onnx --calib calib.npz --metric metric.py:top1 --eval eval.npz
      actcc optimize yolo.onnx --calib train/ --eval val/ --labels val.json \\
          --preprocess yolo --metric coco-map --max-drop 0.01abs
      actcc optimize net.onnx --calib calib.npz --objective accuracy --max-latency 70%
      actcc optimize net.onnx --explain            exact rewrites only, every reason

    Ctrl-C while plans are tried writes the best verified plan so far; --resume goes on from there.
    """
    from actcc.budget import Budget
    from actcc.cli.progress import console_progress
    from actcc.cli.render import render_result, result_json
    from actcc.pipeline import optimize

    model = Path(options["model"])
    output = Path(options["output"] or model.with_suffix(".optimized.onnx"))
    if output.exists() and model.exists() and output.samefile(model):
        raise ModelError(f"{output}: the output is the input; choose another with -o")
    quiet = options["quiet"] or options["as_json"]
    progress = console_progress(quiet)
    result = optimize(
        model,
        options["target"],
        output=output,
        budget=Budget.parse(
            options["max_drop"],
            options["max_latency"],
            options["max_memory"],
            options["objective"],
            options["confidence"],
        ),
        calibration=options["calib"],
        evaluation=options["evaluation"],
        preprocessing=options["preprocess"],
        samples=options["samples"],
        labels=options["labels"],
        metric=options["metric"],
        input_shapes=parse_shapes(options["shapes"]),
        plugins=options["plugins"],
        skip=options["skip"],
        also=options["also"],
        estimator=options["estimator"],
        search=options["search"],
        preset=options["preset"],
        max_trials=options["max_trials"],
        time_limit_s=options["time_limit"],
        seed=options["seed"],
        workers=options["workers"],
        cache=not options["no_cache"],
        resume=options["resume"],
        progress=progress,
    )
    if options["as_json"]:
        click.echo(json.dumps(result_json(result), indent=2))
    elif not options["quiet"]:
        render_result(result, explain=options["explain"])
