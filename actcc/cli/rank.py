"""`actcc rank`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from actcc.cli.options import (
    FILE,
    INPUTS,
    data_options,
    json_option,
    model_argument,
    pass_options,
    run_arguments,
    target_option,
    work_options,
)

if TYPE_CHECKING:
    from rich.table import Table

    from actcc.estimators.kendall import Tau
    from actcc.estimators.ranking import EstimatorFigures
    from actcc.estimators.record import RankingRecord


@click.command("rank", short_help="Which estimator orders plans of MODEL best, and what it costs.")
@model_argument
@target_option
@click.option(
    "--samples",
    "plans",
    default=40,
    show_default=True,
    type=click.IntRange(min=8),
    help="Random plans to draw and measure.",
)
@data_options("What estimators may see.", limit="--limit")
@click.option(
    "--estimator",
    "estimators",
    multiple=True,
    metavar="NAME",
    help="Rank this one; may be repeated [default: all].",
)
@pass_options
@work_options("Same input and seed, same plans.", "Do not keep the result for --estimator auto.")
@click.option("--save", type=FILE, help="Also write the result as JSON.")
@json_option
@click.option("--quiet", "-q", is_flag=True, help="No progress.")
def rank_command(**options: Any) -> None:
    """Draw random plans for MODEL, measure each, and say how well every estimator orders them.

    Needs pip install 'actcc[rank]'. `actcc optimize --estimator auto` then uses the best one for
    the same model and metric.

    \b
    Example:
      actcc rank yolox_nano.onnx --samples 40 --calib coco/ --preprocess yolox
    """
    from actcc.cli.progress import console_progress
    from actcc.estimators.ranking import ALL_ESTIMATORS
    from actcc.graph.files import write_text
    from actcc.output import check_output
    from actcc.rank import rank_model

    save = None
    if options["save"] is not None:
        inputs = [options[name] for name in INPUTS]
        save = check_output(options["save"], *inputs, *options["plugins"])
    record = rank_model(
        Path(options["model"]),
        options["target"],
        plans=options["plans"],
        estimators=options["estimators"] or ALL_ESTIMATORS,
        **run_arguments(options),
        limit=options["limit"],
        progress=console_progress(options["quiet"] or options["as_json"]),
    )
    if options["as_json"]:
        click.echo(json.dumps(json.loads(record.to_json()), indent=2))
    else:
        _render(record, Path(options["model"]).name)
    if save is not None:
        write_text(save, record.to_json())


def _render(record: RankingRecord, model: str) -> None:
    from actcc.cli.render import plain_console, titled

    console = plain_console()
    console.print(_table(record, model))
    metrics = [plan.metric for plan in record.plans]
    console.print(
        f"{len(record.plans)} plans of {min(len(p.changes) for p in record.plans)} to "
        f"{max(len(p.changes) for p in record.plans)} changes, {record.metric} "
        f"{min(metrics):.4g} to {max(metrics):.4g} (original {record.original:.4g}) on "
        f"{record.evaluation}; measuring one takes {_seconds(record.plan_s)}",
        soft_wrap=True,
    )
    for figures in record.estimators:
        if figures.skipped:
            console.print(f"{figures.name}: {figures.skipped}", soft_wrap=True)
    best = record.standings.best
    if best is not None:
        console.print(titled("best", f": {best.name} (actcc optimize --estimator auto)"))


def _table(record: RankingRecord, model: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, title=f"Kendall's τ with {record.metric} on {model}")
    for column in ("estimator", "needs"):
        table.add_column(column)
    for column in ("τ, sum of losses", "τ, whole network", "all losses", "a network"):
        table.add_column(column, justify="right")
    for figures in record.estimators:
        table.add_row(figures.name, figures.needs, *_cells(figures))
    return table


def _cells(figures: EstimatorFigures) -> tuple[str, str, str, str]:
    if figures.skipped and figures.network_tau is None:
        return "undefined", "undefined", "", ""
    judges = figures.plan_s > 0
    return (
        _tau(figures.tau),
        _tau(figures.network_tau) if judges else "–",
        _seconds(figures.table_s),
        _seconds(figures.plan_s) if judges else "–",
    )


def _tau(tau: Tau | None) -> str:
    return "undefined" if tau is None else f"{tau.value:.2f} ({tau.low:.2f} to {tau.high:.2f})"


def _seconds(seconds: float) -> str:
    return f"{seconds:.1f} s" if seconds >= 1 else f"{1e3 * seconds:.0f} ms"
