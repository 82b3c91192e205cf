"""The front: verified plans from the most accurate to the fastest, as a table and as files."""

from __future__ import annotations

import csv
import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from decimal import Decimal
from pathlib import Path

from actcc.budget import Amount
from actcc.errors import ModelError
from actcc.graph import Graph
from actcc.graph.files import write_text, writing
from actcc.plan import Plan
from actcc.prices import Source
from actcc.result import TrialFigures
from actcc.site import KEEP


@dataclass(frozen=True)
class Row:
    """One point in figures: a line of the table and of the CSV file.

    Attributes:
        budget: the drop that was allowed, "1 %"; empty for the original.
        latency_ms: in one run with all other points.
        latency_ratio: to the original's latency.
        latency_noise: half width of the interval in which the ratio lies.
        value: of the metric.
        drop: of the metric, in its units.
        least_drop, most_drop: one-sided bounds of the drop; None where there are none.
        size_bytes: of the file, weights beside it included.
        sites: number of sites that are rewritten.
        model: the file; empty if none was written.
    """

    budget: str
    latency_ms: float
    latency_ratio: float
    latency_noise: float
    latency_source: Source
    metric: str
    value: float
    drop: float
    least_drop: float | None
    most_drop: float | None
    confidence: float
    samples: int
    peak_bytes: int | None
    size_bytes: int | None
    sites: int
    model: str


@dataclass(frozen=True)
class Point:
    """One verified model of the front.

    Attributes:
        budget: the smallest of the drops that were asked for whose fastest plan this is; None for
            the original.
        plan: with the latency of the run in which all points were timed together.
        graph: the verified model.
        output: the file that was written; None if none was asked for, and for the original.
    """

    budget: Amount | None
    plan: Plan
    graph: Graph
    output: Path | None = None

    @property
    def row(self) -> Row:
        """The point in figures.

        Raises:
            ModelError: the plan has no latency or no accuracy.
        """
        plan, latency, accuracy = self.plan, self.plan.latency, self.plan.accuracy
        if latency is None or accuracy is None:
            raise ModelError(
                f"{plan.model_name}: a plan without latency or accuracy has no place on a front"
            )
        return Row(
            budget="" if self.budget is None else str(self.budget),
            latency_ms=latency.result_ns / 1e6,
            latency_ratio=latency.ratio,
            latency_noise=latency.ratio_noise,
            latency_source=latency.source,
            metric=accuracy.metric,
            value=accuracy.result,
            drop=accuracy.drop,
            least_drop=accuracy.least_drop,
            most_drop=accuracy.most_drop,
            confidence=accuracy.confidence,
            samples=accuracy.samples,
            peak_bytes=plan.peak_bytes[1],
            size_bytes=plan.size_bytes[1],
            sites=sum(site.chosen != KEEP for site in plan.sites),
            model="" if self.output is None else str(self.output),
        )


@dataclass(frozen=True)
class Front:
    """What `pareto_front()` returns.

    Attributes:
        points: the original first; each of the others is faster than the one before it, beyond
            the noise, and may lose more.
        empty: budgets that have no point of their own, since nothing that keeps them was faster
            than what keeps a smaller one.
        trials: every plan that was verified, in order.
        stage_seconds: wall time by stage.
    """

    points: tuple[Point, ...]
    empty: tuple[Amount, ...]
    trials: tuple[TrialFigures, ...]
    stage_seconds: Mapping[str, float]

    @property
    def rows(self) -> tuple[Row, ...]:
        """The points in figures."""
        return tuple(point.row for point in self.points)

    def to_csv(self) -> str:
        """A header and a line for each point; the columns are the attributes of `Row`."""
        text = io.StringIO()
        names = [field.name for field in fields(Row)]
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(names)
        for row in self.rows:
            values = [getattr(row, name) for name in names]
            writer.writerow(["" if value is None else value for value in values])
        return text.getvalue()

    def save_csv(self, path: Path) -> None:
        """Write the table as CSV, whole or not at all.

        Raises:
            ModelError: the file cannot be written.
        """
        write_text(path, self.to_csv())

    def save_plot(self, path: Path) -> None:
        """Draw the front as `.svg` or `.png`; needs the extra `plot`.

        Raises:
            PlotError: another suffix, or matplotlib is not installed.
            ModelError: the file cannot be written.
        """
        from actcc.front_plot import save_plot

        save_plot(self, path)


def front_file_name(model_name: str, budget: Amount) -> str:
    """`model.drop1.onnx` for 1 % of `model.onnx`; `model.drop0.5abs.onnx` for an absolute drop.

    Budgets that differ have names that differ: a drop is written with fifteen digits.
    """
    value = Decimal(f"{100 * budget.value if budget.relative else budget.value:.15g}")
    unit = "" if budget.relative else "abs"
    return f"{Path(model_name).stem}.drop{value:f}{unit}.onnx"


def check_folder(folder: Path) -> None:
    """Refuse a folder for the front that is a file or is not empty.

    Raises:
        ModelError: models of another run would lie among those of this one.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ModelError(f"{folder}: is there and not an empty folder; choose another with -o")


def deliver_folder(staged: Path, folder: Path) -> None:
    """Rename a staged folder into place: it is there with all its files, or not at all."""
    with writing(folder):
        if folder.exists():
            folder.rmdir()
        os.replace(staged, folder)


def distinct(budgets: Sequence[Amount], metric_value: float) -> list[Amount]:
    """The budgets from the smallest to the largest, each once."""
    allowed = {budget.against(metric_value): budget for budget in budgets}
    return [allowed[limit] for limit in sorted(allowed)]
