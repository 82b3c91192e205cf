"""`actcc compare`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from actcc.cli.options import (
    FILE,
    json_option,
    parse_shapes,
    seed_option,
    shape_option,
    target_option,
)

if TYPE_CHECKING:
    from actcc.comparison import ModelComparison


@click.command("compare", short_help="Compare two models: outputs, latency, size, operators.")
@click.argument("first", type=FILE)
@click.argument("second", type=FILE)
@target_option
@click.option(
    "--calib", metavar="PATH", help="Samples to compare on, as for optimize [default: random]."
)
@click.option("--preprocess", metavar="NAME|FILE.toml", help="As for optimize.")
@click.option("--samples", type=click.IntRange(min=1), help="Use at most this many samples.")
@shape_option
@seed_option("Of random values.")
@json_option
def compare_command(**options: Any) -> None:
    """Show how far SECOND is from FIRST: each output, latency in turns, size, operators.

    \b
    Example:
      actcc compare yolox_nano.onnx fast.onnx --target npu1 --calib coco/ --preprocess yolox
    """
    from actcc.comparison import compare_models

    found = compare_models(
        options["first"],
        options["second"],
        options["target"],
        calibration=options["calib"],
        preprocessing=options["preprocess"],
        samples=options["samples"],
        input_shapes=parse_shapes(options["shapes"]),
        seed=options["seed"],
    )
    if options["as_json"]:
        click.echo(json.dumps(found.to_json(), indent=2))
    else:
        _render(found)


def _render(found: ModelComparison) -> None:
    from rich import box
    from rich.table import Table

    from actcc.cli.render import kibibytes, milliseconds, plain_console

    console = plain_console()
    first, second = found.first, found.second
    table = Table(box=box.SIMPLE_HEAD, title=f"{first.model} and {second.model} on {found.target}")
    for column in ("", "first", "second", "change"):
        table.add_column(column, justify="right" if column else "left")
    a, b = first.timing, second.timing
    noise = f" ± {100 * b.ratio_noise:.1f} %" if b.ratio_noise else ""
    table.add_row(
        f"latency ({a.source})",
        milliseconds(a.latency_ns),
        milliseconds(b.latency_ns),
        f"{1 / b.ratio:.3f}× ({100 * b.ratio:.1f} %{noise})",
    )
    table.add_row("peak memory of activations", kibibytes(a.peak_bytes), kibibytes(b.peak_bytes))
    table.add_row("file", kibibytes(first.file_bytes), kibibytes(second.file_bytes))
    for name, one, other in (
        ("parameters", first.parameters, second.parameters),
        ("MACs", first.macs, second.macs),
        ("nodes", sum(first.operators.values()), sum(second.operators.values())),
    ):
        table.add_row(name, f"{one:,}", f"{other:,}", f"{other - one:+,}" if other != one else "")
    for name in dict.fromkeys([*first.operators, *second.operators]):
        one, other = first.operators.get(name, 0), second.operators.get(name, 0)
        if one != other:
            table.add_row(f"  {name}", str(one), str(other), f"{other - one:+}")
    console.print(table)
    outputs = Table(box=box.SIMPLE_HEAD, title=f"outputs on {found.samples} samples ({found.fed})")
    for column in ("output", "largest difference", "relative to the largest value", "cosine"):
        outputs.add_column(column, justify="left" if column == "output" else "right")
    for output in found.outputs:
        figures = f"{output.largest_difference:.3g}", f"{output.relative:.3g}"
        outputs.add_row(output.name, *figures, f"{output.cosine:.6f}")
    console.print(outputs)
