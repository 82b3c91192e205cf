"""`actcc probe`: a device of your own, measured by small graphs."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from actcc.cli.options import (
    FILE,
    json_option,
    parse_shapes,
    pass_options,
    target_option,
    together,
)
from actcc.errors import ModelError

if TYPE_CHECKING:
    from rich.table import Table

    from actcc.probe.fit import ErrorRow, Fit
    from actcc.probe.probes import Probes
    from actcc.targets import Target

_MOST_NOTES = 4

model_option = together(
    click.argument("model", type=FILE, required=False),
    click.option("--sweep", is_flag=True, help="A standard sweep in the place of a model."),
)
fit_options = together(
    click.option(
        "--base",
        metavar="NAME|FILE.toml",
        help="Fit the rates of this analytic profile; without it the result is a table.",
    ),
    click.option(
        "--as",
        "kind",
        type=click.Choice(["table", "analytic"]),
        help="What the profile prices by [default: table, or analytic with --base].",
    ),
    click.option(
        "--predict",
        is_flag=True,
        help="Let a table predict what is not in it (pip install 'actcc[predict]').",
    ),
)


@click.group("probe", short_help="Measure a device of your own by small graphs.")
def probe_command() -> None:
    """Make a target from what small graphs take on a device; actcc need not be installed there.

    \b
    Example:
      actcc probe kit model.onnx -o kit.zip           here
      unzip kit.zip && python run_probes.py           on the device
      actcc probe fit results.csv -o mydevice.toml    here
      actcc optimize model.onnx -o fast.onnx --target mydevice.toml
    """


@probe_command.command("kit", short_help="Write the graphs to time, and the script that does it.")
@model_option
@click.option("--output", "-o", type=FILE, required=True, metavar="KIT.zip", help="Zip to write.")
@target_option
@pass_options
def kit_command(**options: Any) -> None:
    """Write the distinct subgraphs of MODEL, with every candidate of --target, as a kit.

    Random weights stand in the place of the model's. What stays is its structure, with shapes and
    single numbers such as bounds and the scale of a quantized tensor. The script needs Python,
    numpy and onnxruntime.
    """
    from actcc.output import check_output
    from actcc.probe.kit import RUNNER, write_kit
    from actcc.targets import load_target

    output = check_output(options["output"], options["model"], *options["plugins"])
    probes = _probes(options, load_target(options["target"]))
    left_out = write_kit(probes, output)
    click.echo(f"{output}: {len(probes.probes) - len(left_out)} graphs of {probes.source}")
    _tell((*left_out, *probes.refusals))
    click.echo(f"on the device: unzip it, python {RUNNER}, and bring results.csv back")


@probe_command.command("fit", short_help="Make a target from the script's CSV.")
@click.argument("results", type=FILE)
@click.option("--output", "-o", type=FILE, required=True, metavar="FILE.toml", help="The profile.")
@fit_options
@click.option(
    "--kit", type=FILE, metavar="KIT.zip", help="That RESULTS belongs to [default: found]."
)
@json_option
def fit_command(**options: Any) -> None:
    """Make a target profile from RESULTS, and say by cross-validation how far to trust it."""
    from actcc.probe.fit import fit_target

    fit = fit_target(
        options["results"],
        options["output"],
        base=options["base"],
        kind=options["kind"],
        kit=options["kit"],
        predict=options["predict"],
    )
    _show(fit, options["as_json"])


@probe_command.command("run", short_help="Kit, script and fit on this machine at once.")
@model_option
@click.option("--output", "-o", type=FILE, required=True, metavar="FILE.toml", help="The profile.")
@target_option
@click.option(
    "--runs", default=60, show_default=True, type=click.IntRange(min=8), help="Samples a graph."
)
@fit_options
@pass_options
@json_option
def run_command(**options: Any) -> None:
    """Time the graphs here, as --target says, and make a target of what they took."""
    from actcc.probe.here import Runner, probe_here
    from actcc.targets import load_target

    target = load_target(options["target"])
    runner = Runner.of(target, options["runs"])
    fit = probe_here(
        _probes(options, target),
        runner,
        Path(options["output"]),
        base=options["base"],
        kind=options["kind"],
        predict=options["predict"],
        quiet=options["as_json"],
    )
    _show(fit, options["as_json"])


def _probes(options: dict[str, Any], target: Target) -> Probes:
    from actcc.probe.probes import model_probes
    from actcc.probe.sweep import sweep_probes

    if options["sweep"] == bool(options["model"]):
        raise ModelError("give a MODEL, or --sweep in its place")
    if options["sweep"]:
        return sweep_probes()
    return model_probes(
        options["model"],
        target,
        input_shapes=parse_shapes(options["shapes"]),
        plugins=options["plugins"],
        skip=options["skip"],
        also=options["also"],
    )


def _tell(notes: tuple[str, ...]) -> None:
    for note in notes[:_MOST_NOTES]:
        click.echo(f"note: {note}")
    if len(notes) > _MOST_NOTES:
        click.echo(f"note: {len(notes) - _MOST_NOTES} more like these")


def _show(fit: Fit, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps({"format": 1, **asdict(fit), "path": str(fit.path)}, indent=2))
        return
    from actcc.cli.render import plain_console, titled

    console = plain_console()
    console.print(
        titled(
            str(fit.path),
            f": {fit.kind}, {fit.measured} graphs, {fit.failed} failed on the device; "
            f"a call by itself takes {fit.call_ns / 1e3:.1f} µs",
        ),
        soft_wrap=True,
    )
    if fit.errors:
        console.print(_errors(fit))
    if fit.changes:
        console.print(_rates(fit))
    _tell(fit.notes)


def _errors(fit: Fit) -> Table:
    from rich import box
    from rich.table import Table

    what = "predicted from the others" if fit.kind == "table" else "by rates fitted to the others"
    title = f"error of graphs held out (5 folds), {what}"
    table = Table(box=box.SIMPLE_HEAD, title=title)
    table.add_column("graphs")
    for column in ("number", "median", "90th percentile"):
        table.add_column(column, justify="right")
    bases: tuple[ErrorRow | None, ...] = fit.base_errors or (None,) * len(fit.errors)
    for column in ("median before", "90th before") if fit.base_errors else ():
        table.add_column(column, justify="right")
    for row, base in zip(fit.errors, bases, strict=True):
        cells = [row.kind, str(row.count), _percent(row.median), _percent(row.percentile_90)]
        if base is not None:
            cells += [_percent(base.median), _percent(base.percentile_90)]
        table.add_row(*cells)
    return table


def _rates(fit: Fit) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, title="rates, a cycle of the device's clock")
    table.add_column("rate")
    for column in ("base", "fitted"):
        table.add_column(column, justify="right")
    for name, before, after in fit.changes:
        table.add_row(name, f"{before:.4g}", f"{after:.4g}")
    return table


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %"
