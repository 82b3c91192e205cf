"""The verdict in a sentence, and what changed from the original to the result."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from actcc.graph import Graph
from actcc.graph.files import initializer_bytes
from actcc.plan import AccuracyFigures, Plan
from actcc.report.formats import bytes_of, change_of, latency, minus, signed
from actcc.result import Result
from actcc.site import KEEP


@dataclass(frozen=True)
class Row:
    """One figure before and after.

    Attributes:
        note: how the figure came about.
        change: in words; may be empty.
    """

    name: str
    note: str
    before: str
    after: str
    change: str


def verdict(result: Result) -> str:
    """What came of it: "1.15× faster on npu1; top1 0.923 → 0.917, within its budget"."""
    plan = result.plan
    if result.status == "unchanged":
        return f"Unchanged: {result.reason}."
    parts = [f"{1 / plan.latency.ratio:.2f}× faster"]
    if plan.accuracy is not None:
        figures = plan.accuracy
        within = "" if figures.allowed_drop is None else ", within its budget"
        parts.append(f"{figures.metric} {figures.original:.4g} → {figures.result:.4g}{within}")
    elif plan.max_relative_difference is not None:
        parts.append(f"outputs agree within {plan.max_relative_difference:.0e} of their range")
    changed = sum(site.chosen != KEEP for site in plan.sites)
    parts.append(f"{changed} of {len(plan.sites)} sites rewritten")
    return minus("; ".join(parts)) + "."


def before_and_after(result: Result, original: Graph) -> tuple[Row, ...]:
    """The table at the top."""
    plan = result.plan
    rows = [_latency_row(plan)]
    if result.status == "optimized":
        share = change_of(plan.latency.original_ns, plan.predicted_latency_ns)
        predicted = latency(plan.predicted_latency_ns)
        rows.append(Row("Latency as predicted", "sum of the chosen prices", "", predicted, share))
    rows.append(_difference_row(plan) if plan.accuracy is None else _accuracy_row(plan.accuracy))
    before, after = plan.peak_bytes
    note = "of activations, by the target's own rules"
    rows.append(
        Row("Peak memory", note, bytes_of(before), bytes_of(after), change_of(before, after))
    )
    sizes = model_bytes(original), model_bytes(result.graph)
    rows.append(
        Row("Model size", "weights included", *map(bytes_of, sizes), change_of(*sizes)),
    )
    counts = operators(original).total(), operators(result.graph).total()
    rows.append(Row("Operators", "", *(f"{n:,}" for n in counts), change_of(*counts)))
    return tuple(rows)


def _latency_row(plan: Plan) -> Row:
    figures = plan.latency
    noise = f" ± {100 * figures.ratio_noise:.1f} %" if figures.ratio_noise else ""
    change = f"{1 / figures.ratio:.3f}× ({100 * figures.ratio:.1f} %{noise})"
    return Row(
        "Latency",
        figures.source,
        latency(figures.original_ns),
        latency(figures.result_ns),
        change if figures.ratio != 1.0 else "the same",
    )


def _accuracy_row(figures: AccuracyFigures) -> Row:
    said = signed(-figures.drop)
    if figures.most_drop is not None:
        sure = f"{100 * figures.confidence:g} %"
        said += f", with {sure} confidence {signed(-figures.bound)} or better"
    if figures.allowed_drop is not None:
        said += f"; allowed {signed(-figures.allowed_drop)}"
    note = f"{figures.metric} on {figures.samples:,} held-out samples"
    values = f"{figures.original:.4f}", f"{figures.result:.4f}"
    return Row("Accuracy", note, *values, said)


def _difference_row(plan: Plan) -> Row:
    difference = plan.max_relative_difference
    if difference is None:
        shown = "not a number"
    else:
        shown = minus(f"{difference:.1e}") if difference else "none"
    return Row("Largest output difference", "relative to the output's range", "", shown, "")


def operators(graph: Graph) -> Counter[str]:
    """Number of nodes of the main graph by operator."""
    return Counter(str(node.op) for node in graph.nodes())


def changed_operators(original: Graph, result: Graph) -> tuple[Row, ...]:
    """Operators whose number changed, those that changed most first."""
    before, after = operators(original), operators(result)
    changes = {op: after[op] - before[op] for op in before.keys() | after.keys()}
    changed = sorted((op for op in changes if changes[op]), key=lambda op: (-abs(changes[op]), op))
    return tuple(
        Row(op, "", str(before[op]), str(after[op]), signed(changes[op], 0)) for op in changed
    )


def model_bytes(graph: Graph) -> int:
    """Size of the model as a file, up to a few bytes; weights beside the file count too."""
    frame = graph.frame()
    kept = sum(initializer_bytes(tensor) for tensor in frame.graph.initializer)
    return int(frame.ByteSize()) - kept + graph.weight_bytes
