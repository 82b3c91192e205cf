"""`actcc apply`."""

from __future__ import annotations

from pathlib import Path

import click

from actcc.cli.options import FILE, model_argument, plugin_option, preprocess_option


@click.command("apply", short_help="Apply a plan again: the same model, bit for bit.")
@model_argument
@click.argument("plan", type=FILE)
@click.option("--output", "-o", required=True, type=FILE, help="Where the model goes.")
@click.option(
    "--calib",
    metavar="PATH",
    help="The samples that the plan was made with, where weights were re-fitted or chosen on them.",
)
@preprocess_option
@plugin_option
def apply_command(
    model: str,
    plan: str,
    output: str,
    calib: str | None,
    preprocess: str | None,
    plugins: tuple[str, ...],
) -> None:
    """Rewrite MODEL as PLAN says, without pricing or measuring anything.

    The result is the file that the plan was verified with, bit for bit. A plan for another model
    is refused with the first difference, and so is one that gives another file here. Weights that
    were re-fitted are re-fitted again, on the same samples.

    \b
    Example:
      actcc apply yolox_nano.onnx fast.onnx.plan.json -o fast.onnx --calib coco/ \\
          --preprocess yolox
    """
    from actcc.apply import apply_plan
    from actcc.plan import Plan

    apply_plan(model, plan, output, calibration=calib, preprocessing=preprocess, plugins=plugins)
    recipe = Plan.load(Path(plan))
    click.echo(f"wrote {output}: {len(recipe.rewritten)} sites rewritten for {recipe.target}")
