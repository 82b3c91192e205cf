"""Tables of `actcc inspect` and of the lists."""

from __future__ import annotations

from collections import Counter

from rich import box
from rich.table import Table

from actcc.cli.render import kibibytes, milliseconds, plain_console, titled
from actcc.inspection import Inspection


def render_rows(rows: list[dict[str, str]]) -> None:
    """A plain table of equal rows."""
    table = Table(box=box.SIMPLE_HEAD)
    for column in rows[0] if rows else ():
        table.add_column(column)
    for row in rows:
        table.add_row(*row.values())
    plain_console().print(table)


def render_inspection(found: Inspection, *, top: int, explain: bool) -> None:
    """What a model is made of."""
    console = plain_console()
    console.print(
        titled(
            str(found.model),
            f": opset {found.opset}, {found.nodes} nodes, "
            f"{found.parameters / 1e6:.2f} M parameters, {found.macs / 1e6:.1f} M MACs, "
            f"NN-Mass {found.nn_mass:.4g}",
        )
    )
    console.print(
        f"on {found.target}: {milliseconds(found.latency_ns)} ({found.source}), "
        f"peak memory of activations {kibibytes(found.peak_bytes)}"
    )
    sites = Table(box=box.SIMPLE_HEAD, title=f"{sum(r.count for r in found.sites)} activations")
    for column in ("activation", "spelling", "shape", "places"):
        sites.add_column(column, justify="right" if column == "places" else "left")
    for row in found.sites:
        shape = "×".join(str(d) for d in row.shape)
        sites.add_row(row.activation, row.spelling, shape, str(row.count))
    console.print(sites)
    if found.blocks:
        console.print(_blocks(found, top))
    console.print(_operators(found, top))
    console.print(_layers(found, top))
    if explain:
        for name, refusal in found.refusals:
            console.print(f"{name}: {refusal.subject}: {refusal.reason}", soft_wrap=True)


def _blocks(found: Inspection, top: int) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title=f"{sum(r.count for r in found.blocks)} blocks")
    for column in ("block", "layers", "with", "places", "M MACs each", "NN-Mass"):
        numeric = column in ("places", "M MACs each", "NN-Mass")
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in found.blocks[:top]:
        parts = {"squeeze-excite": row.has_gate, "residual": row.has_residual}
        having = ", ".join(name for name, there in parts.items() if there)
        macs = "not known" if row.macs is None else f"{row.macs / 1e6:.2f}"
        mass = f"{row.nn_mass:.4g}"
        table.add_row(row.kind, row.shapes, having, str(row.count), macs, mass)
    rest = found.blocks[top:]
    if rest:
        table.add_row(f"{len(rest)} other shapes", "", "", str(sum(r.count for r in rest)), "", "")
    return table


def _operators(found: Inspection, top: int) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title="where the latency goes, by operator")
    for column in ("operator", "layers", "latency", "share"):
        table.add_column(column, justify="left" if column == "operator" else "right")
    total = sum(layer.latency_ns for layer in found.layers) or 1.0
    counts = Counter(layer.op for layer in found.layers)
    spent = {op: sum(x.latency_ns for x in found.layers if x.op == op) for op in counts}
    for op, latency in sorted(spent.items(), key=lambda entry: -entry[1])[:top]:
        share = f"{100 * latency / total:.1f} %"
        table.add_row(op, str(counts[op]), milliseconds(latency), share)
    return table


def _layers(found: Inspection, top: int) -> Table:
    table = Table(box=box.SIMPLE_HEAD, title="by layer")
    for column in ("layer", "operator", "latency", "share", "bound by"):
        numeric = column in ("latency", "share")
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    total = sum(layer.latency_ns for layer in found.layers) or 1.0
    ordered = sorted(found.layers, key=lambda layer: -layer.latency_ns)
    for layer in ordered[:top]:
        share = f"{100 * layer.latency_ns / total:.1f} %"
        table.add_row(layer.name, layer.op, milliseconds(layer.latency_ns), share, layer.bound)
    rest = ordered[top:]
    if rest:
        spent = sum(layer.latency_ns for layer in rest)
        table.add_row(
            f"{len(rest)} other layers", "", milliseconds(spent), f"{100 * spent / total:.1f} %", ""
        )
    return table
