"""`actcc optimize`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from actcc.cli.options import (
    FILE,
    SECONDS,
    confidence_option,
    data_options,
    json_option,
    memory_option,
    model_argument,
    pass_options,
    precision_option,
    quiet_option,
    repair_method,
    repair_options,
    resume_option,
    run_arguments,
    search_option,
    size_option,
    target_option,
    work_options,
)
from actcc.effort import PRESETS


def _trials() -> str:
    return ", ".join(f"{name}: {effort.max_trials}" for name, effort in PRESETS.items())


def _limits() -> str:
    return ", ".join(f"{name}: {effort.time_limit_s:g}" for name, effort in PRESETS.items())


@click.command("optimize", short_help="Make MODEL faster within a budget, and verify it.")
@model_argument
@click.option(
    "--output",
    "-o",
    type=FILE,
    help="Where the optimized model goes [default: MODEL with .optimized.onnx]; its plan and its "
    "report go to OUTPUT.plan.json and OUTPUT.report.html.",
)
@target_option
@data_options("Without it only exact rewrites are offered.", limit="--samples")
@click.option(
    "--max-drop",
    metavar="1%|0.5abs|none",
    help="Accuracy that may be lost: relative to the original, or in the metric's units "
    "[default: 1%; none with --objective accuracy].",
)
@confidence_option
@click.option(
    "--max-latency",
    metavar="8ms|70%",
    help="Latency that must be reached [default: the original's where size counts].",
)
@memory_option
@size_option
@click.option(
    "--objective",
    type=click.Choice(["latency", "accuracy", "size"]),
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
@repair_options
@search_option
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
    type=SECONDS,
    help=f"No further plan is tried after this time, pricing not counted [{_limits()}].",
)
@resume_option
@precision_option
@pass_options
@work_options("Same input and seed, same plan.")
@click.option(
    "--emit-tflite",
    is_flag=True,
    help="Also write the result in int8 as TFLite, and compiled for the target, beside OUTPUT "
    "(Ethos-U targets; needs --calib).",
)
@click.option("--explain", is_flag=True, help="Say for every site and candidate why not.")
@json_option
@quiet_option
def optimize_command(**options: Any) -> None:
    """Make MODEL faster on a target within a budget, and verify the result.

    \b
    Examples:
      actcc optimize yolox_nano.onnx --target npu1 --calib coco/ --preprocess yolox
      actcc optimize net.onnx --calib calib.npz --metric metric.py:top1 --eval eval.npz
      actcc optimize yolo.onnx --calib train/ --eval val/ --labels val.json \\
          --preprocess yolo --metric coco-map --max-drop 0.01abs
      actcc optimize net.onnx --calib calib.npz --objective accuracy --max-latency 70%
      actcc optimize net.onnx --calib calib.npz --precision mixed
      actcc optimize net.onnx --calib calib.npz --objective size
      actcc optimize net.onnx --explain            exact rewrites only, every reason

    Ctrl-C while plans are tried writes the best verified plan so far; --resume goes on from there.
    """
    from actcc.budget import Budget
    from actcc.cli.progress import console_progress
    from actcc.cli.render import render_result, result_json
    from actcc.pipeline import optimize

    model = Path(options["model"])
    output = Path(options["output"] or model.with_suffix(".optimized.onnx"))
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
            options["max_size"],
        ),
        **run_arguments(options),
        samples=options["samples"],
        precision=options["precision"],
        estimator=options["estimator"],
        repair=repair_method(options),
        search=options["search"],
        preset=options["preset"],
        max_trials=options["max_trials"],
        time_limit_s=options["time_limit"],
        resume=options["resume"],
        emit_tflite=options["emit_tflite"],
        progress=progress,
    )
    if options["as_json"]:
        click.echo(json.dumps(result_json(result), indent=2))
    elif not options["quiet"]:
        render_result(result, explain=options["explain"])
