"""The verdict in a sentence, and what changed from the original to the result."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from actcc.graph import Graph
from actcc.graph.size import model_bytes
from actcc.plan import AccuracyFigures, LatencyFigures, Plan
from actcc.report.formats import bytes_of, change_of, minus, signed
from actcc.report.formats import latency as latency_of
from actcc.result import Result


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
    before, after = plan.size_bytes
    smaller = _size_counts(plan) and before and after is not None and after < before
    parts = [f"{100 * (1 - (after or 0) / before):.0f} % smaller"] if smaller and before else []
    if plan.latency is not None:
        parts.append(_no_slower(plan.latency) if smaller else _speed_up(plan.latency.ratio))
    if plan.accuracy is not None:
        figures = plan.accuracy
        within = "" if figures.allowed_drop is None else ", within its budget"
        parts.append(f"{figures.metric} {figures.original:.4g} → {figures.result:.4g}{within}")
    elif plan.max_relative_difference is not None:
        parts.append(f"outputs agree within {plan.max_relative_difference:.0e} of their range")
    parts.append(f"{len(plan.rewritten)} of {len(plan.sites)} sites rewritten")
    return minus("; ".join(parts)) + "."


def _size_counts(plan: Plan) -> bool:
    unlimited = plan.settings.get("max_size", "no limit") == "no limit"
    return plan.settings.get("objective") == "size" or not unlimited


def _no_slower(latency: LatencyFigures) -> str:
    """The latency of what is smaller, which need not be faster."""
    if abs(latency.ratio - 1) <= latency.ratio_noise:
        return "as fast as before"
    return _speed_up(latency.ratio) if latency.ratio < 1 else f"{latency.ratio:.2f}× slower"


def _speed_up(ratio: float) -> str:
    factor = 1 / ratio
    return f"{factor:.2f}× faster" if factor >= 1.005 else f"{100 * (1 - ratio):.2g} % faster"


def before_and_after(result: Result, original: Graph) -> tuple[Row, ...]:
    """The table at the top."""
    plan = result.plan
    rows = list(_latency_rows(plan, rewritten=result.status == "optimized"))
    rows += [_difference_row(plan)] if plan.accuracy is None else _accuracy_rows(plan.accuracy)
    before, after = plan.peak_bytes
    note = "of activations, by the target's own rules"
    rows.append(
        Row("Peak memory", note, bytes_of(before), bytes_of(after), change_of(before, after))
    )
    before, after = plan.dram_bytes
    if before or after:
        change = change_of(before, after)
        rows.append(Row("DRAM", "peak use", bytes_of(before), bytes_of(after), change))
    macs, left = plan.macs
    if macs and left and macs != left:
        shown = (f"{macs / 1e6:,.1f} M", f"{left / 1e6:,.1f} M", change_of(macs, left))
        rows.append(Row("Multiply-accumulates", "of one inference", *shown))
    rows.append(_size_row(model_bytes(original), model_bytes(result.graph)))
    rows.append(_count_row(len(list(original.nodes())), len(list(result.graph.nodes()))))
    return tuple(rows)


def _size_row(before: int, after: int) -> Row:
    change = change_of(before, after)
    return Row("Model size", "weights included", bytes_of(before), bytes_of(after), change)


def _count_row(before: int, after: int) -> Row:
    return Row("Operators", "", f"{before:,}", f"{after:,}", change_of(before, after))


def _latency_rows(plan: Plan, *, rewritten: bool) -> Iterator[Row]:
    figures, predicted = plan.latency, plan.predicted_latency_ns
    if figures is None:
        yield Row("Latency", "the target cannot time this model", "", "", "")
        return
    noise = f" ± {100 * figures.ratio_noise:.1f} %" if figures.ratio_noise else ""
    change = f"{1 / figures.ratio:.3f}× ({100 * figures.ratio:.1f} %{noise})"
    yield Row(
        "Latency",
        figures.source,
        latency_of(figures.original_ns),
        latency_of(figures.result_ns),
        change if figures.ratio != 1.0 else "the same",
    )
    if rewritten and predicted is not None:
        share = change_of(figures.original_ns, predicted)
        yield Row(
            "Latency as predicted", "sum of the chosen prices", "", latency_of(predicted), share
        )


def _accuracy_rows(figures: AccuracyFigures) -> Iterator[Row]:
    if figures.original_in_int8 is not None:
        lost = signed(figures.original_in_int8 - figures.original)
        value = f"{figures.original_in_int8:.4f}"
        yield Row("Accuracy of the original in int8", figures.metric, "", value, lost)
    said = signed(-figures.drop)
    if figures.most_drop is not None:
        sure = f"{100 * figures.confidence:g} %"
        said += f", with {sure} confidence {signed(-figures.bound)} or better"
    if figures.allowed_drop is not None:
        said += f"; allowed {signed(-figures.allowed_drop)}"
    note = f"{figures.metric} on {figures.samples:,} held-out samples"
    if figures.original_in_int8 is not None:
        note += ", result in int8"
    yield Row("Accuracy", note, f"{figures.original:.4f}", f"{figures.result:.4f}", said)


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
