"""Option types and options that several commands share."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, TypeVar

import click

from actcc.effort import PRECISIONS, REPAIR_METHODS, STRATEGY_NAMES
from actcc.errors import ModelError

Decorated = TypeVar("Decorated", bound=Callable[..., Any])
Decorator = Callable[[Decorated], Decorated]
# Every generator and solver takes these.
_LARGEST_SEED = 2**31 - 1


class NamedPath(click.Path):
    """A path that has a name: an empty one is a variable of a script that was not set."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """See `click.ParamType`."""
        if not value:
            name = "the path" if param is None else param.get_error_hint(ctx)
            raise ModelError(f"{name} is empty; give the path of a file")
        return super().convert(value, param, ctx)


class Seconds(click.FloatRange):
    """A time above 0 that ends."""

    def __init__(self) -> None:
        super().__init__(min=0, min_open=True)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """See `click.ParamType`."""
        seconds = super().convert(value, param, ctx)
        if not math.isfinite(seconds):
            self.fail(f"{value} is no number of seconds.", param, ctx)
        return seconds


FILE = NamedPath(dir_okay=False)
FOLDER = NamedPath(file_okay=False)
SECONDS = Seconds()
# Options that may name a file that is read, beside the plug-ins.
INPUTS = ("model", "target", "calib", "evaluation", "preprocess", "labels", "metric")

model_argument = click.argument("model", type=FILE)
target_option = click.option(
    "--target",
    "-t",
    default="cpu",
    show_default=True,
    metavar="NAME|FILE.toml",
    help="Device and toolchain; `actcc targets` lists the built-in ones.",
)
shape_option = click.option(
    "--shape",
    "shapes",
    multiple=True,
    metavar="INPUT=1x3x416x416",
    help="Concrete shape for an input with symbolic dimensions; the output keeps its symbols.",
)
plugin_option = click.option(
    "--plugin",
    "plugins",
    multiple=True,
    type=click.Path(),
    metavar="FILE.py",
    help="Python file with passes of your own (docs/passes.md).",
)
skip_option = click.option(
    "--skip",
    multiple=True,
    metavar="PASS",
    help="Leave a pass out, by name; may be repeated.",
)
also_option = click.option(
    "--pass",
    "also",
    multiple=True,
    metavar="PASS",
    help="Also run a pass that is off by default; may be repeated.",
)
precision_option = click.option(
    "--precision",
    type=click.Choice(list(PRECISIONS)),
    default="auto",
    show_default=True,
    help="What is verified. auto: int8 where the target computes in it (Ethos-U, with --calib), "
    "else float; float: the ONNX file as it is. mixed: layers may also run in int8, each where it "
    "pays, as QuantizeLinear and DequantizeLinear, on targets that run these (cpu, openvino-cpu); "
    "int8: all of them that can; both need --calib.",
)
json_option = click.option("--json", "as_json", is_flag=True, help="JSON on stdout, for machines.")
preprocess_option = click.option(
    "--preprocess",
    metavar="NAME|FILE.toml",
    help="How images become inputs: yolox, yolo, imagenet, … ; needed for folders of images.",
)
confidence_option = click.option(
    "--confidence",
    metavar="80%",
    help="With which the drop must be within its limit, by resampling the samples; 50% takes the "
    "measured drop as it is [default: 80%].",
)
memory_option = click.option("--max-memory", metavar="4MiB|60%", help="Peak memory of activations.")
size_option = click.option(
    "--max-size",
    metavar="2MiB|50%",
    help="Size of the file; lets layers store their weights in float16 or int8 (docs/size.md).",
)
search_option = click.option(
    "--search",
    type=click.Choice(STRATEGY_NAMES),
    default=STRATEGY_NAMES[0],
    show_default=True,
    help="How plans are proposed; cpsat is the compiler's own, the others are for comparison.",
)
resume_option = click.option(
    "--resume", is_flag=True, help="Go on where an interrupted run with the same options stopped."
)
quiet_option = click.option("--quiet", "-q", is_flag=True, help="No progress and no tables.")


def together(*options: Callable[[Any], Any]) -> Decorator[Any]:
    """One decorator for several options, shown in this order."""

    def decorate(command: Any) -> Any:
        for option in reversed(options):
            command = option(command)
        return command

    return decorate


def seed_option(meaning: str) -> Decorator[Any]:
    """`--seed`, with what it decides."""
    return click.option(
        "--seed",
        default=0,
        show_default=True,
        type=click.IntRange(min=0, max=_LARGEST_SEED),
        help=meaning,
    )


repair_options = together(
    click.option(
        "--repair",
        type=click.Choice(REPAIR_METHODS),
        default=REPAIR_METHODS[0],
        show_default=True,
        help="How weights are re-fitted behind approximate rewrites, without labels: closed-form; "
        "distill fine-tunes them afterwards (pip install 'actcc[distill]').",
    ),
    click.option(
        "--repair-memory",
        metavar="2GiB",
        default="2GiB",
        show_default=True,
        help="Memory for activations between layers; what is beyond goes to temporary files.",
    ),
    click.option(
        "--distill-time",
        metavar="SECONDS",
        type=SECONDS,
        default=60.0,
        show_default=True,
        help="Of --repair distill, for each network.",
    ),
)


def repair_method(options: dict[str, Any]) -> Any:
    """What the three options of the repair say, as `actcc.repair.RepairMethod`."""
    from actcc.budget import parse_size
    from actcc.repair import RepairMethod

    memory = parse_size(options["repair_memory"], "--repair-memory")
    return RepairMethod(options["repair"], memory, options["distill_time"])


def data_options(calibration: str, *, needed: bool = False, limit: str) -> Decorator[Any]:
    """What is measured, and on what: `--calib`, `--eval`, `--preprocess`, `--metric`, `--labels`.

    Args:
        calibration: what a command adds to the help of `--calib`.
        needed: whether there must be a `--calib`.
        limit: name of the option for the number of samples.
    """
    return together(
        click.option(
            "--calib",
            metavar="PATH",
            required=needed,
            help="Unlabelled samples: folder of images, .npz, .npy, or file.py:function. "
            + calibration,
        ),
        click.option(
            "--eval",
            "evaluation",
            metavar="PATH",
            help="Samples for the verification, as --calib [default: part of --calib is held out].",
        ),
        preprocess_option,
        click.option(
            limit,
            type=click.IntRange(min=2),
            help="Use at most this many samples of --calib, and of --eval.",
        ),
        click.option(
            "--metric",
            metavar="NAME|FILE.py:FUNCTION",
            default="fidelity",
            show_default=True,
            help="What accuracy means. Without labels: fidelity (of all outputs), agreement (with "
            "the original's detections or classes). With labels: top1, top5, coco-map, coco-map50, "
            "segmentation-iou. NAME:HOW says how outputs are read where their shapes do not tell, "
            "e.g. coco-map:yolov8. Or your own metric(outputs, samples) -> float, higher is "
            "better.",
        ),
        click.option(
            "--labels",
            metavar="FILE.csv|COCO.json|FOLDER|folders",
            help="What the metric needs to know of the images of --eval (of --calib without it): "
            "classes by file name, boxes, masks as PNG, or `folders` where each class has its own.",
        ),
    )


pass_options = together(shape_option, skip_option, also_option, plugin_option)


def work_options(seed: str, cache: str = "Measure every price anew.") -> Decorator[Any]:
    """`--seed`, `--workers`, `--no-cache`, with what the first and the last decide."""
    return together(
        seed_option(seed),
        click.option(
            "--workers", type=click.IntRange(min=1), help="Processes [default: one a core]."
        ),
        click.option("--no-cache", is_flag=True, help=cache),
    )


def run_arguments(options: dict[str, Any]) -> dict[str, Any]:
    """What `data_options`, `pass_options` and `work_options` say, by the names of their arguments
    in `actcc.optimize`, `actcc.pareto_front` and `actcc.rank_model`; the limit of samples is left
    out, which has several names.
    """
    return {
        "calibration": options["calib"],
        "evaluation": options["evaluation"],
        "preprocessing": options["preprocess"],
        "metric": options["metric"],
        "labels": options["labels"],
        "input_shapes": parse_shapes(options["shapes"]),
        "skip": options["skip"],
        "also": options["also"],
        "plugins": options["plugins"],
        "seed": options["seed"],
        "workers": options["workers"],
        "cache": not options["no_cache"],
    }


def parse_shapes(texts: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    """`("images=1x3x416x416",)` as a mapping; raises ModelError on anything else."""
    shapes: dict[str, tuple[int, ...]] = {}
    for text in texts:
        name, separator, numbers = text.rpartition("=")
        if not separator or not re.fullmatch(r"\d+([x,]\d+)*", numbers):
            raise ModelError(
                f"--shape: '{text}' cannot be understood; write it as images=1x3x416x416"
            )
        shapes[name] = tuple(int(number) for number in re.split("[x,]", numbers))
    return shapes
