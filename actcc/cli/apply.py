"""`actcc apply`."""

from __future__ import annotations

from pathlib import Path

import click

from actcc.cli.options import model_argument, plugin_option
from actcc.errors import ModelError


@click.command("apply", short_help="Apply a plan again: the same model, bit for bit.")
@model_argument
@click.argument("plan", type=click.Path(dir_okay=False))
@click.option(
    "--output", "-o", required=True, type=click.Path(dir_okay=False), help="Where the model goes."
)
@plugin_option
def apply_command(model: str, plan: str, output: str, plugins: tuple[str, ...]) -> None:
    """Rewrite MODEL as PLAN says, without pricing or measuring anything.

    The result is the file that the plan was verified with, bit for bit. A plan for another model
    is refused with the first difference, and so is one that gives another file here.

    \b
    Example:
      actcc apply yolox_nano.onnx fast.onnx.plan.json -o fast.onnx
    """
    from actcc.apply import apply_plan
    from actcc.plan import Plan

    target = Path(output)
    if target.exists() and Path(model).exists() and target.samefile(model):
        raise ModelError(f"{output}: the output is the input; choose another with -o")
    recipe = Plan.load(Path(plan))
    apply_plan(model, recipe, target, plugins=plugins)
    click.echo(f"wrote {output}: {len(recipe.rewritten)} sites rewritten for {recipe.target}")
