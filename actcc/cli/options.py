"""Option types and options that several commands share."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, TypeVar

import click

from actcc.errors import ModelError

Decorated = TypeVar("Decorated", bound=Callable[..., Any])

model_argument = click.argument("model", type=click.Path(dir_okay=False))
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
json_option = click.option("--json", "as_json", is_flag=True, help="JSON on stdout, for machines.")


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
