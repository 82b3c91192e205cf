"""A result as tables for people and as JSON for machines."""

from __future__ import annotations

import json
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from actcc.plan import AccuracyFigures, CandidateFigures, LatencyFigures, Plan
from actcc.program import share_of_loss
from actcc.result import Result
from actcc.site import KEEP

_SHOWN_CHANGES = 12
_SHOWN_NOTES = 4
_FILE_WIDTH = 120


def result_json(result: Result) -> dict[str, Any]:
    """What `--json` prints: status, plan, trials, stages."""
    return {
        "format": 1,
        "status": result.status,
        "reason": result.reason,
        "output": None if result.output is None else str(result.output),
        "changes": result.changes,
        "plan": json.loads(result.plan.to_json()),
        "trials": [
            {
                "changed": trial.changed,
                "predicted_latency_ns": trial.predicted_latency_ns,
                "predicted_loss": trial.predicted_loss,
                "latency_ratio": trial.latency.ratio,
                "drop": trial.drop,
                "drop_before_repair": trial.drop_before_repair,
                "size_bytes": trial.size_bytes,
                "failures": list(trial.failures),
            }
            for trial in result.trials
        ],
        "refusals": [
            {"pass": name, "subject": refusal.subject, "reason": refusal.reason}
            for name, refusal in result.refusals
        ],
        "stage_seconds": dict(result.stage_seconds),
    }


def render_result(result: Result, *, explain: bool = False) -> None:
    """Tables on stdout; colour is left out where NO_COLOR is set or stdout is no terminal."""
    console = plain_console()
    if explain:
        _explain(console, result)
    console.print(_before_after(result))
    if result.plan.sites:
        console.print(_changes(result))
    _notes(console, result)
    verb = "wrote" if result.status == "optimized" else "wrote the original, unchanged, to"
    console.print(titled(result.status, f": {result.reason}"), soft_wrap=True)
    if result.output is not None:
        files = [f"{result.output}{ending}" for ending in ("", ".plan.json", ".report.html")]
        *first, last = [*files, *(str(path) for path in result.beside)]
        console.print(f"{verb} {', '.join(first)} and {last}", soft_wrap=True)


def _before_after(result: Result) -> Table:
    plan = result.plan
    table = Table(box=box.SIMPLE_HEAD, title=f"{plan.model_name} on {plan.target}")
    for column in ("", "original", "result", "change"):
        table.add_column(column, justify="left" if not column else "right")
    if plan.latency is None:
        table.add_row("latency", "not known", "not known", "")
    else:
        _latency_rows(table, plan.latency, plan.predicted_latency_ns)
    _accuracy_row(table, plan)
    memories = [("peak memory of activations", plan.peak_bytes)]
    if any(plan.dram_bytes):
        memories.append(("peak use of DRAM", plan.dram_bytes))
    for name, (before, after) in memories:
        share = f"{100 * after / before:.1f} %" if before and after is not None else ""
        table.add_row(name, kibibytes(before), kibibytes(after), share)
    _size_row(table, plan)
    _structure_rows(table, plan)
    return table


def _size_row(table: Table, plan: Plan) -> None:
    """The size of the file; nothing where it stays."""
    before, after = plan.size_bytes
    if before and after is not None and before != after:
        share = f"{100 * after / before:.1f} %"
        table.add_row("size of the file", kibibytes(before), kibibytes(after), share)


def _structure_rows(table: Table, plan: Plan) -> None:
    """What a plan that restructures blocks did to the network; nothing for activations alone."""
    before, after = plan.macs
    if before and after is not None and before != after:
        share = f"{100 * after / before:.1f} %"
        table.add_row(
            "multiply-accumulates", f"{before / 1e6:.1f} M", f"{after / 1e6:.1f} M", share
        )
        masses = [f"{mass:.4g}" for mass in plan.nn_mass]
        table.add_row("NN-Mass", *masses, "")


def _latency_rows(table: Table, latency: LatencyFigures, predicted: float | None) -> None:
    noise = f" ± {100 * latency.ratio_noise:.1f} %" if latency.ratio_noise else ""
    table.add_row(
        f"latency ({latency.source})",
        milliseconds(latency.original_ns),
        milliseconds(latency.result_ns),
        f"{1 / latency.ratio:.3f}× ({100 * latency.ratio:.1f} %{noise})",
    )
    if predicted is not None and latency.original_ns:
        share = f"{100 * predicted / latency.original_ns:.1f} %"
        table.add_row("latency predicted for the plan", "", milliseconds(predicted), share)


def _accuracy_row(table: Table, plan: Plan) -> None:
    if plan.accuracy is None:
        difference = plan.max_relative_difference
        shown = "not a number" if difference is None else f"{difference:.1e}"
        table.add_row("largest output difference", "", shown, "")
        return
    figures = plan.accuracy
    if figures.original_in_int8 is not None:
        lost = f"{figures.original_in_int8 - figures.original:+.4f}"
        shown = f"{figures.original_in_int8:.4f}"
        table.add_row(f"{figures.metric} of the original in int8", "", shown, lost)
    if figures.unrepaired is not None:
        lost = f"{figures.unrepaired - figures.original:+.4f}"
        table.add_row(f"{figures.metric} before the repair", "", f"{figures.unrepaired:.4f}", lost)
    table.add_row(
        f"{figures.metric} ({_measured_on(figures)})",
        f"{figures.original:.4f}",
        f"{figures.result:.4f}",
        _change(figures),
    )


def _measured_on(figures: AccuracyFigures) -> str:
    precision = "" if figures.original_in_int8 is None else ", result in int8"
    return f"{figures.samples} held-out samples{precision}"


def _change(figures: AccuracyFigures) -> str:
    """The change, how bad it may be, and what was allowed: "−0.006 (−0.009 at 80 %) of −0.010"."""
    said = f"{0.0 - figures.drop:+.4f}"
    if figures.most_drop is not None:
        said += f" ({0.0 - figures.bound:+.4f} at {100 * figures.confidence:g} %)"
    return said if figures.allowed_drop is None else f"{said} of −{figures.allowed_drop:.4f}"


def _changes(result: Result) -> Table:
    plan = result.plan
    changed = [site for site in plan.sites if site.chosen != KEEP]
    claimed = {node for site in changed for node in site.nodes}
    # A place that several passes offer is one place: rewritten by one, it is not kept by another.
    kept = len({s.nodes for s in plan.sites if s.chosen == KEEP and claimed.isdisjoint(s.nodes)})
    title = f"{len(changed)} of {len(changed) + kept} sites rewritten"
    table = Table(box=box.SIMPLE_HEAD, title=title)
    table.add_column("rewrite")
    table.add_column("sites", justify="right")
    table.add_column("predicted", justify="right")
    saved: dict[str, float] = {}
    for site in plan.sites:
        for candidate in site.candidates:
            if candidate.name == site.chosen and candidate.difference_ns is not None:
                saved[site.change] = saved.get(site.change, 0.0) + candidate.difference_ns
    rows = list(result.changes.items())
    for name, count in rows[:_SHOWN_CHANGES]:
        predicted = f"{saved[name] / 1e3:+.1f} µs" if name in saved else ""
        table.add_row(name, str(count), predicted)
    if len(rows) > _SHOWN_CHANGES:
        rest = rows[_SHOWN_CHANGES:]
        table.add_row(f"and {len(rest)} other rewrites", str(sum(n for _, n in rest)), "")
    if kept:
        table.add_row("keep", str(kept), "")
    return table


def _notes(console: Console, result: Result) -> None:
    for name, line in result.plan.normalized[:_SHOWN_NOTES]:
        console.print(f"{name}: {line}", style="dim", soft_wrap=True)
    stages = ", ".join(f"{name} {spent:.1f} s" for name, spent in result.stage_seconds.items())
    if stages:
        console.print(f"time: {stages}", style="dim", soft_wrap=True)
    console.print(f"prices: {result.plan.tool}", style="dim", soft_wrap=True)


def _explain(console: Console, result: Result) -> None:
    for site in result.plan.sites:
        console.print(titled(site.id, f" ({site.kind}): {site.chosen}"), soft_wrap=True)
        for candidate in site.candidates:
            said = _explained(candidate, site.chosen, result.plan.settings.get("estimator", ""))
            console.print(f"  {said}", soft_wrap=True)
    for name, refusal in result.refusals:
        console.print(f"{name}: {refusal.subject}: {refusal.reason}", soft_wrap=True)


def _explained(candidate: CandidateFigures, chosen: str, estimator: str) -> str:
    parts = []
    if candidate.difference_ns is not None:
        parts.append(f"{candidate.difference_ns / 1e3:+.2f} µs ± {candidate.noise_ns or 0:.0f} ns")
    if candidate.size_bytes is not None:
        parts.append(f"{candidate.size_bytes / 2**10:+.1f} KiB")
    if candidate.loss is not None:
        loss = share_of_loss(candidate.loss, estimator)
        parts.append("exact" if candidate.exact else f"loses {loss}")
    figures = ", ".join(parts)
    verdict = "chosen" if candidate.name == chosen else candidate.reason
    return f"{candidate.name}: {figures + '; ' if figures else ''}{verdict}"


def plain_console() -> Console:
    """Stdout; where it is no terminal, wide enough that no table is folded.

    Text is printed as it is: names and paths of the user's may hold what would be markup.
    """
    console = Console(highlight=False, markup=False)
    if console.is_terminal:
        return console
    return Console(highlight=False, markup=False, width=_FILE_WIDTH)


def titled(title: str, rest: str) -> Text:
    """A line that begins with what it is about, in bold."""
    return Text.assemble((title, "bold"), rest)


def milliseconds(nanoseconds: float) -> str:
    """A latency for people."""
    return f"{nanoseconds / 1e6:.3f} ms"


def kibibytes(size: int | None) -> str:
    """A size for people."""
    return "depends on data" if size is None else f"{size / 2**10:.0f} KiB"
