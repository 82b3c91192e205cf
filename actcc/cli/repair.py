"""`actcc repair`."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from actcc.cli.options import (
    FILE,
    json_option,
    parse_shapes,
    preprocess_option,
    quiet_option,
    repair_method,
    repair_options,
    seed_option,
    shape_option,
)

if TYPE_CHECKING:
    from actcc.model_repair import ModelRepair

_WORST = 5


@click.command("repair", short_help="Re-fit the weights of a rewritten model, without labels.")
@click.argument("original", type=FILE)
@click.argument("rewritten", type=FILE)
@click.option("--output", "-o", required=True, type=FILE, help="Where the repaired model goes.")
@click.option(
    "--calib",
    metavar="PATH",
    required=True,
    help="Unlabelled samples: folder of images, .npz, .npy, or file.py:function.",
)
@preprocess_option
@click.option("--samples", type=click.IntRange(min=2), help="Use at most this many samples.")
@click.option(
    "--metric",
    metavar="NAME",
    default="fidelity",
    show_default=True,
    help="What is reported before and after; one that needs no labels: fidelity, agreement.",
)
@repair_options
@shape_option
@seed_option("Of the samples that are held out and the positions that are fitted.")
@click.option("--workers", type=click.IntRange(min=1), help="Processes [default: one a core].")
@json_option
@quiet_option
def repair_command(**options: Any) -> None:
    """Re-fit the weights of REWRITTEN, which any tool may have made, so that it does what ORIGINAL
    does.

    Layers (Conv, ConvTranspose, Gemm, MatMul) belong together where they write tensors of the same
    name. Part of the samples is held out; nothing is written where the repair does not help there.

    \b
    Example:
      actcc repair yolox.onnx yolox_relu.onnx --calib coco/ --preprocess yolox -o repaired.onnx
    """
    from actcc.cli.progress import console_progress
    from actcc.errors import RepairError
    from actcc.model_repair import repair_model

    if options["repair"] == "none":
        raise RepairError("--repair none: nothing would be done; choose closed-form or distill")
    quiet = options["quiet"] or options["as_json"]
    found = repair_model(
        options["original"],
        options["rewritten"],
        options["output"],
        calibration=options["calib"],
        preprocessing=options["preprocess"],
        samples=options["samples"],
        metric=options["metric"],
        method=repair_method(options),
        input_shapes=parse_shapes(options["shapes"]),
        seed=options["seed"],
        workers=options["workers"],
        progress=console_progress(quiet),
    )
    if options["as_json"]:
        click.echo(json.dumps(_json(found), indent=2))
    elif not options["quiet"]:
        _render(found)


def _json(found: ModelRepair) -> dict[str, Any]:
    repaired = found.repaired
    return {
        "format": 1,
        "output": str(found.output),
        "metric": found.metric,
        "before": found.before,
        "after": found.after,
        "held_out_samples": found.held_out,
        "seconds": repaired.seconds,
        "memory_bytes": repaired.memory_bytes,
        "spilled_bytes": repaired.spilled_bytes,
        "layers": [asdict(layer) for layer in repaired.layers],
        "left_alone": dict(repaired.refused),
    }


def _render(found: ModelRepair) -> None:
    from rich import box
    from rich.table import Table

    from actcc.cli.render import plain_console, titled

    console, repaired = plain_console(), found.repaired
    table = Table(box=box.SIMPLE_HEAD, title=f"{found.output.name}: the layers that miss most")
    table.add_column("layer")
    table.add_column("misses before its fit", justify="right")
    table.add_column("after", justify="right")
    for layer in sorted(repaired.layers, key=lambda entry: -entry.missed[1])[:_WORST]:
        table.add_row(layer.node, *(f"{100 * share:.2f} %" for share in layer.missed))
    console.print(table)
    for node, reason in repaired.refused.items():
        console.print(f"left alone: {node}: {reason}", style="dim", soft_wrap=True)
    console.print(
        titled(
            found.metric,
            f" on {found.held_out} held-out samples: {found.before:.4f} → {found.after:.4f}; "
            f"{len(repaired.layers)} layers re-fitted in {repaired.seconds:.1f} s",
        ),
        soft_wrap=True,
    )
    console.print(f"wrote {found.output}", soft_wrap=True)
