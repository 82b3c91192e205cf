"""`actcc inspect` and `actcc passes`."""

from __future__ import annotations

import json
from typing import Any

import click

from actcc.cli.options import (
    json_option,
    model_argument,
    parse_shapes,
    plugin_option,
    shape_option,
    target_option,
)


@click.command("inspect", short_help="Show sites, MACs, and where the latency goes.")
@model_argument
@target_option
@shape_option
@plugin_option
@click.option(
    "--top",
    default=15,
    show_default=True,
    type=click.IntRange(min=1),
    help="Rows of the latency table.",
)
@click.option("--explain", is_flag=True, help="Say why places that look like sites are none.")
@json_option
def inspect_command(**options: Any) -> None:
    """Show what MODEL is made of: sites, MACs, parameters, and where its latency goes.

    \b
    Example:
      actcc inspect yolox_nano.onnx --target npu1
    """
    from actcc.cli.tables import render_inspection
    from actcc.inspection import inspect_model

    found = inspect_model(
        options["model"],
        options["target"],
        input_shapes=parse_shapes(options["shapes"]),
        plugins=options["plugins"],
    )
    if options["as_json"]:
        click.echo(json.dumps(found.to_json(), indent=2))
    else:
        render_inspection(found, top=options["top"], explain=options["explain"])


@click.command("passes", short_help="List the passes in running order.")
@plugin_option
@json_option
def passes_command(plugins: tuple[str, ...], as_json: bool) -> None:
    """List the passes, built in, installed and from plug-ins, in the order in which they run."""
    from actcc.cli.tables import render_rows
    from actcc.inspection import list_passes

    _print(list_passes(plugins), as_json, render_rows)


def _print(rows: list[dict[str, str]], as_json: bool, render: Any) -> None:
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    else:
        render(rows)
