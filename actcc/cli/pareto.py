"""`actcc pareto`."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from actcc.errors import ModelError

if TYPE_CHECKING:
    from actcc.front import Front, Row


@click.command("pareto", short_help="The fastest verified MODEL for each of several drops.")
@model_argument
@click.option(
    "--output",
    "-o",
    type=click.Path(file_okay=False),
    metavar="FOLDER",
    help="A new or empty folder for each point's model and plan [default: none is written].",
)
@click.option("--csv", type=click.Path(dir_okay=False), help="Write the table as CSV.")
@click.option(
    "--plot",
    type=click.Path(dir_okay=False),
    metavar="FILE.svg|FILE.png",
    help="Draw the front; needs pip install 'actcc[plot]'.",
)
@target_option
@click.option("--calib", metavar="PATH", required=True, help="Unlabelled samples, as for optimize.")
@click.option("--eval", "evaluation", metavar="PATH", help="As for optimize.")
@click.option("--preprocess", metavar="NAME|FILE.toml", help="As for optimize.")
@click.option("--samples", type=click.IntRange(min=2), help="Use at most this many samples.")
@click.option(
    "--metric",
    metavar="NAME|FILE.py:FUNCTION",
    default="fidelity",
    show_default=True,
    help="What accuracy means, as for optimize.",
)
@click.option("--labels", metavar="PATH", help="As for optimize.")
@click.option(
    "--drops",
    metavar="0.5%,1%,…",
    default="0.5%,1%,2%,5%,10%",
    show_default=True,
    help="Accuracy that may be lost: one budget for each point, written as --max-drop.",
)
@click.option("--confidence", metavar="80%", help="As for optimize [default: 80%].")
@click.option("--max-memory", metavar="4MiB|60%", help="Peak memory of activations at every point.")
@click.option(
    "--search",
    type=click.Choice(["cpsat", "greedy", "random", "optuna"]),
    default="cpsat",
    show_default=True,
    help="How plans are proposed; cpsat is the compiler's own, the others are for comparison.",
)
@click.option(
    "--max-trials",
    default=24,
    show_default=True,
    type=click.IntRange(min=1),
    help="Plans that are verified at most, for all points together.",
)
@click.option(
    "--time-limit",
    default=1800.0,
    show_default=True,
    metavar="SECONDS",
    type=click.FloatRange(min=0, min_open=True),
    help="No further plan is tried after this time.",
)
@click.option("--resume", is_flag=True, help="As for optimize.")
@shape_option
@skip_option
@also_option
@plugin_option
@click.option("--seed", default=0, show_default=True, help="Same input and seed, same front.")
@click.option("--workers", type=click.IntRange(min=1), help="Processes [default: one a core].")
@click.option("--no-cache", is_flag=True, help="Measure every price anew.")
@json_option
@click.option("--quiet", "-q", is_flag=True, help="No progress and no tables.")
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
    from actcc.budget import Budget, parse_drop
    from actcc.cli.progress import console_progress
    from actcc.pareto import pareto_front

    csv, plot = _files(options["csv"], options["plot"])
    quiet = options["quiet"] or options["as_json"]
    progress = console_progress(quiet)
    front = pareto_front(
        Path(options["model"]),
        options["target"],
        drops=[parse_drop(text) for text in options["drops"].split(",")],
        output=options["output"],
        budget=Budget.parse(max_memory=options["max_memory"], confidence=options["confidence"]),
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
        search=options["search"],
        max_trials=options["max_trials"],
        time_limit_s=options["time_limit"],
        seed=options["seed"],
        workers=options["workers"],
        cache=not options["no_cache"],
        resume=options["resume"],
        progress=progress,
    )
    if csv is not None:
        front.save_csv(csv)
    if plot is not None:
        front.save_plot(plot)
    if options["as_json"]:
        click.echo(json.dumps(front_json(front), indent=2))
    elif not options["quiet"]:
        _render(front, [Path(p) for p in (options["output"], csv, plot) if p is not None])


def front_json(front: Front) -> dict[str, Any]:
    """What `--json` prints: the points, the budgets without one, the trials, the stages."""
    return {
        "format": 1,
        "points": [asdict(row) for row in front.rows],
        "empty": [str(budget) for budget in front.empty],
        "trials": len(front.trials),
        "stage_seconds": dict(front.stage_seconds),
    }


def _files(csv: str | None, plot: str | None) -> tuple[Path | None, Path | None]:
    """Paths that can be written, found out before the long work."""
    from actcc.front_plot import check_plot

    if csv is not None and not Path(csv).parent.is_dir():
        raise ModelError(f"{csv}: folder '{Path(csv).parent}' does not exist; create it first")
    return (
        None if csv is None else Path(csv),
        None if plot is None else check_plot(Path(plot)),
    )


def _render(front: Front, written: list[Path]) -> None:
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
            f"no point of their own: {named}; nothing that keeps them was faster than the rest",
            soft_wrap=True,
        )
    console.print(f"[dim]{len(front.trials)} plans verified; prices: {plan.tool}[/dim]")
    for path in written:
        console.print(f"wrote {path}", soft_wrap=True)


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
        str(row.sites) if row.budget else "",
    )
