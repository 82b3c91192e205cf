"""`actcc pareto`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from actcc.budget import FRONT_DROPS, parse_drop
from actcc.cli.options import (
    FILE,
    FOLDER,
    INPUTS,
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
from actcc.effort import FRONT_EFFORT
from actcc.errors import ModelError

if TYPE_CHECKING:
    from actcc.front import Front, Row


@click.command("pareto", short_help="The fastest verified MODEL for each of several drops.")
@model_argument
@click.option(
    "--output",
    "-o",
    type=FOLDER,
    metavar="FOLDER",
    help="A new or empty folder for each point's model and plan [default: none is written].",
)
@click.option("--csv", type=FILE, help="Write the table as CSV.")
@click.option(
    "--plot",
    type=FILE,
    metavar="FILE.svg|FILE.png",
    help="Draw the front; needs pip install 'actcc[plot]'.",
)
@target_option
@data_options("", needed=True, limit="--samples")
@click.option(
    "--drops",
    metavar="0.5%,1%,…",
    default=",".join(FRONT_DROPS),
    show_default=True,
    help="Accuracy that may be lost: one budget for each point, written as --max-drop.",
)
@confidence_option
@memory_option
@size_option
@search_option
@click.option(
    "--max-trials",
    default=FRONT_EFFORT.max_trials,
    show_default=True,
    type=click.IntRange(min=1),
    help="Plans that are verified at most, for all points together.",
)
@click.option(
    "--time-limit",
    default=FRONT_EFFORT.time_limit_s,
    show_default=True,
    metavar="SECONDS",
    type=SECONDS,
    help="No further plan is tried after this time, pricing not counted.",
)
@resume_option
@repair_options
@precision_option
@pass_options
@work_options("Same input and seed, same front.")
@json_option
@quiet_option
def pareto_command(**options: Any) -> None:
    """The front of latency over accuracy: for each drop the fastest plan that keeps it, verified.

    \b
    Examples:
      actcc pareto yolox_nano.onnx --target npu1 --calib coco/ --preprocess yolox --plot front.svg
      actcc pareto net.onnx --calib c.npz --eval e.npz --metric metric.py:top1 \\
          -o front/ --csv front.csv

    Ctrl-C while plans are tried gives the front of those that are verified by then; --resume goes
    on from there.
    """
    from actcc.budget import Budget
    from actcc.cli.progress import console_progress
    from actcc.pareto import pareto_front

    drops = [parse_drop(text, "--drops") for text in options["drops"].split(",")]
    csv, plot = _files(options)
    quiet = options["quiet"] or options["as_json"]
    progress = console_progress(quiet)
    front = pareto_front(
        Path(options["model"]),
        options["target"],
        drops=drops,
        output=options["output"],
        budget=Budget.parse(
            max_memory=options["max_memory"],
            confidence=options["confidence"],
            max_size=options["max_size"],
        ),
        **run_arguments(options),
        samples=options["samples"],
        precision=options["precision"],
        repair=repair_method(options),
        search=options["search"],
        max_trials=options["max_trials"],
        time_limit_s=options["time_limit"],
        resume=options["resume"],
        progress=progress,
    )
    if options["as_json"]:
        click.echo(json.dumps(front_json(front), indent=2))
    elif not options["quiet"]:
        _render(front)
    _write(front, csv, plot)
    if not quiet:
        for path in (options["output"], csv, plot):
            if path is not None:
                click.echo(f"wrote {path}")


def front_json(front: Front) -> dict[str, Any]:
    """What `--json` prints: the points, the budgets without one, the trials, the stages."""
    return {
        "format": 1,
        "points": [asdict(row) for row in front.rows],
        "empty": [str(budget) for budget in front.empty],
        "trials": len(front.trials),
        "stage_seconds": dict(front.stage_seconds),
    }


def _files(options: Mapping[str, Any]) -> tuple[Path | None, Path | None]:
    """Paths that can be written, found out before the long work."""
    from actcc.front_plot import check_plot
    from actcc.output import check_output

    inputs = [options[name] for name in INPUTS]
    csv, plot = (
        None if options[name] is None else check_output(options[name], *inputs, *options["plugins"])
        for name in ("csv", "plot")
    )
    if plot is not None:
        check_plot(plot)
        if csv is not None and csv.resolve() == plot.resolve():
            raise ModelError(f"{csv}: both --csv and --plot; give each a file of its own")
    return csv, plot


def _write(front: Front, csv: Path | None, plot: Path | None) -> None:
    if csv is not None:
        front.save_csv(csv)
    if plot is not None:
        front.save_plot(plot)


def _render(front: Front) -> None:
    from rich import box
    from rich.table import Table

    from actcc.cli.render import plain_console

    first, plan = front.rows[0], front.points[0].plan
    console = plain_console()
    title = f"{plan.model_name} on {plan.target}: {first.metric}, {first.samples} held-out samples"
    table = Table(box=box.SIMPLE_HEAD, title=title)
    confidence = f"{100 * first.confidence:g} %"
    headings = (
        "drop allowed",
        f"latency ({first.latency_source})",
        "of original",
        first.metric,
        "drop",
        f"at most ({confidence})",
        "peak memory",
        "size",
        "sites",
    )
    for heading in headings:
        table.add_column(heading, justify="right")
    for row in front.rows:
        table.add_row(*_cells(row))
    console.print(table)
    if front.empty:
        named = ", ".join(str(budget) for budget in front.empty)
        console.print(
            f"no point of their own: {named}; nothing that keeps them was faster than the rest"
            f"{_least_lost(front)}",
            soft_wrap=True,
        )
    console.print(f"{len(front.trials)} plans verified; prices: {plan.tool}", style="dim")


def _least_lost(front: Front) -> str:
    """What the most accurate plan lost; empty where none was verified."""
    figures = [t.accuracy for t in front.trials if t.accuracy is not None]
    least = min(figures, key=lambda found: found.bound, default=None)
    if least is None:
        return ""
    surely = f", {least.bound:.4g} at most" if least.bound > least.drop else ""
    return f" (the least that a plan lost: {least.drop:.4g}{surely})"


def _cells(row: Row) -> tuple[str, ...]:
    from actcc.cli.render import kibibytes, milliseconds

    noise = f" ± {100 * row.latency_noise:.1f}" if row.latency_noise else ""
    return (
        f"≤ {row.budget}" if row.budget else "original",
        milliseconds(row.latency_ms * 1e6),
        f"{100 * row.latency_ratio:.1f}{noise} %",
        f"{row.value:.4f}",
        f"{row.drop:.4f}" if row.budget else "",
        f"{max(row.drop, row.most_drop):.4f}" if row.budget and row.most_drop is not None else "",
        kibibytes(row.peak_bytes),
        kibibytes(row.size_bytes),
        str(row.sites) if row.budget else "",
    )
