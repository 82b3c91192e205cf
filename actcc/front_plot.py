"""The front as a picture: latency across, accuracy up, one mark a point with its interval."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from actcc.errors import ModelError, PlotError
from actcc.front import Front, Row
from actcc.graph.files import staging_folder, writing

FORMATS = (".svg", ".png")
_INK, _FRONT, _TRIED = "#222222", "#0b5fa5", "#b5b5b5"


def check_plot(path: Path) -> Path:
    """The path itself, if a plot can be drawn there.

    Raises:
        PlotError: another suffix, or matplotlib is not installed.
        ModelError: the folder does not exist.
    """
    if path.suffix.lower() not in FORMATS:
        raise PlotError(f"{path}: a plot is written as {' or '.join(FORMATS)}; name it so")
    if not path.parent.is_dir():
        raise ModelError(f"{path}: folder '{path.parent}' does not exist; create it first")
    _matplotlib()
    return path


def save_plot(front: Front, path: Path) -> None:
    """Draw the front; see `Front.save_plot`."""
    check_plot(path)
    figure = draw(front)
    with writing(path), staging_folder(path.parent) as staging:
        staged = staging / path.name
        # Neither a date nor random ids: the same front gives the same file.
        metadata = {"Date": None} if path.suffix.lower() == ".svg" else {"Software": None}
        with _matplotlib().rc_context({"svg.hashsalt": "actcc", "svg.fonttype": "none"}):
            figure.savefig(staged, metadata=metadata, dpi=160)
        os.replace(staged, path)


def draw(front: Front) -> Any:
    """A matplotlib figure of the front.

    Raises:
        PlotError: matplotlib is not installed.
    """
    _matplotlib()
    from matplotlib.figure import Figure  # without pyplot: no window, no global state

    rows = front.rows
    figure = Figure(figsize=(7.2, 4.6), layout="constrained")
    axes = figure.add_subplot()
    _draw_tried(axes, front, rows[0])
    _draw_points(axes, rows)
    _draw_texts(axes, front, rows)
    return figure


def _draw_tried(axes: Any, front: Front, original: Row) -> None:
    points = {(p.plan.predicted_loss, p.row.drop) for p in front.points}
    lowest = min(row.value - _down(row) for row in front.rows)
    shown = [
        trial
        for trial in front.trials
        if (trial.predicted_loss, trial.drop) not in points
        and original.value - (trial.drop or 0.0) >= lowest
    ]
    axes.scatter(
        [trial.latency.ratio * original.latency_ms for trial in shown],
        [original.value - (trial.drop or 0.0) for trial in shown],
        s=14,
        color=_TRIED,
        label="other verified plans",
        zorder=1,
    )


def _draw_points(axes: Any, rows: Sequence[Row]) -> None:
    original = rows[0]
    axes.plot(
        [row.latency_ms for row in rows],
        [row.value for row in rows],
        color=_FRONT,
        linewidth=1.0,
        alpha=0.6,
        drawstyle="steps-pre",
        zorder=2,
    )
    for row in rows[1:]:
        axes.errorbar(
            row.latency_ms,
            row.value,
            xerr=row.latency_noise * original.latency_ms,
            yerr=[[_down(row)], [_up(row)]],
            color=_FRONT,
            marker="o",
            markersize=5,
            linewidth=1.0,
            capsize=2.5,
            zorder=3,
        )
        axes.annotate(
            f"≤ {row.budget}",
            (row.latency_ms, row.value),
            xytext=(-6, 4),  # the front runs to the lower left: above that nothing is in the way
            textcoords="offset points",
            horizontalalignment="right",
            fontsize=8,
            color=_INK,
        )
    axes.plot([], [], color=_FRONT, marker="o", markersize=5, label="front, with allowed drop")
    axes.plot(
        original.latency_ms,
        original.value,
        color=_INK,
        marker="*",
        markersize=12,
        linestyle="none",
        label="original",
        zorder=4,
    )


def _down(row: Row) -> float:
    """How much lower the metric may be than measured."""
    return 0.0 if row.most_drop is None else max(row.most_drop - row.drop, 0.0)


def _up(row: Row) -> float:
    return 0.0 if row.least_drop is None else max(row.drop - row.least_drop, 0.0)


def _draw_texts(axes: Any, front: Front, rows: Sequence[Row]) -> None:
    original, plan = rows[0], front.points[0].plan
    axes.set_title(f"{plan.model_name} on {plan.target}", fontsize=11, loc="left")
    axes.set_xlabel(f"latency, {original.latency_source} (ms)")
    axes.set_ylabel(f"{original.metric} on {original.samples} held-out samples")
    axes.margins(x=0.12, y=0.1)
    axes.grid(color="#e6e6e6", linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    bars = []
    if any(row.most_drop is not None for row in rows[1:]):
        bars.append(f"one-sided {100 * original.confidence:g} % bounds of the drop")
    if any(row.latency_noise for row in rows):
        bars.append("noise of the latency")
    if bars:
        axes.plot([], [], linestyle="none", label=f"bars: {', '.join(bars)}")
    # Outside the axes: wherever it lay inside, it would cover some front.
    axes.figure.legend(fontsize=8, frameon=False, loc="outside lower center", ncols=2)


def _matplotlib() -> Any:
    try:
        import matplotlib
    except ImportError as error:
        raise PlotError(
            "a plot needs matplotlib, which is not installed; python -m pip install 'actcc[plot]'"
        ) from error
    return matplotlib
