"""`actcc targets` and `actcc targets show`."""

from __future__ import annotations

import json

import click

from actcc.cli.options import json_option


@click.group("targets", invoke_without_command=True, short_help="List the built-in targets.")
@json_option
@click.pass_context
def targets_command(context: click.Context, as_json: bool) -> None:
    """List the built-in targets; --target also takes the path of a profile of your own.

    \b
    Example:
      actcc targets
      actcc targets show npu1
    """
    if context.invoked_subcommand is not None:
        return
    from actcc.cli.tables import render_rows
    from actcc.targets import list_targets

    rows = [
        {
            "name": target.name,
            "backend": target.profile.backend,
            "prices": target.entry.source,
            "available": target.entry.missing or "yes",
            "description": target.profile.description,
        }
        for target in list_targets()
    ]
    if as_json:
        click.echo(json.dumps(rows, indent=2))
    else:
        render_rows(rows)


@targets_command.command("show", short_help="Print a target's profile with units.")
@click.argument("name", metavar="NAME|FILE.toml")
@json_option
def show_command(name: str, as_json: bool) -> None:
    """Print the profile of a target, what it inherits included, with the unit of every figure."""
    from actcc.target_fields import profile_fields
    from actcc.targets import load_target

    target = load_target(name)
    fields = profile_fields(target.profile)
    if as_json:
        about = target.profile.model_dump(mode="json")
        units = {field.name: field.unit for field in fields if field.unit}
        shown = {"prices": target.entry.source, "available": target.entry.missing or "yes"}
        click.echo(json.dumps({**about, **shown, "units": units}, indent=2))
        return
    from rich import box
    from rich.table import Table

    from actcc.cli.render import plain_console, titled

    console = plain_console()
    console.print(titled(target.name, f": {target.profile.description}"), soft_wrap=True)
    missing = target.entry.missing
    state = f"not installed: {missing}" if missing else "available"
    console.print(
        f"backend {target.profile.backend}, {target.entry.source}, {state}", soft_wrap=True
    )
    table = Table(box=box.SIMPLE_HEAD)
    for column in ("setting", "value", "unit"):
        table.add_column(column, overflow="fold")
    for field in fields:
        table.add_row(field.name, field.value, field.unit)
    console.print(table)
