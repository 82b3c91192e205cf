"""`actcc cache`: the measured prices that are kept between runs."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import click

from actcc.cli.options import json_option

if TYPE_CHECKING:
    from actcc.price_cache import CacheContents


@click.group("cache", short_help="Show or clear the prices that are kept between runs.")
def cache_group() -> None:
    """Prices that were measured once on this machine are kept, and not measured again.

    They are kept by the structure of the layers, the tool with its version and settings, and the
    processor; ACTCC_CACHE_DIR names another folder, and --no-cache does without.
    """


@cache_group.command("info", short_help="Where they are, how many, and from which tools.")
@json_option
def info_command(as_json: bool) -> None:
    """Show where prices are kept, how much room they take, and which tools they come from."""
    from actcc.cli.render import kibibytes
    from actcc.cli.tables import render_rows
    from actcc.price_cache import PriceCache

    found = PriceCache().contents()
    if as_json:
        click.echo(json.dumps(found.to_json(), indent=2))
        return
    total = sum(found.entries.values())
    click.echo(f"{found.path}: {total} entries, {kibibytes(found.size_bytes)}")
    if found.damaged:
        click.echo(f"{_damaged(found)} beside it; `actcc cache clear` removes what is damaged too")
    if found.entries:
        render_rows([{"entries": str(n), "tool": tool} for tool, n in found.entries.items()])


@cache_group.command("clear", short_help="Remove all of them.")
def clear_command() -> None:
    """Remove all prices that are kept, without asking, and say what was removed."""
    from actcc.cli.render import kibibytes
    from actcc.price_cache import PriceCache

    removed = PriceCache().clear()
    total = sum(removed.entries.values())
    damaged = f" and {_damaged(removed)}" if removed.damaged else ""
    click.echo(
        f"removed {total} entries{damaged} ({kibibytes(removed.size_bytes)}) from {removed.path}"
    )


def _damaged(contents: CacheContents) -> str:
    count = len(contents.damaged)
    return f"{count} damaged file{'' if count == 1 else 's'}"
