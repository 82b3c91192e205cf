"""The trade-off as a plot: what was measured, and what the program predicted."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from actcc.plan import Plan
from actcc.report.formats import latency, minus, signed
from actcc.report.front import predicted_front
from actcc.result import TrialFigures

WIDTH, HEIGHT = 440.0, 310.0
LEFT, RIGHT, TOP, BOTTOM = 70.0, 18.0, 16.0, 48.0
_TICKS = 5
_ROOM = 1.15  # beyond the outermost point
_MOST_OF_BUDGET = 2.5  # what lies further out is drawn at the edge, or it would squeeze the rest
_CHARACTER = 7.0
_MOST_DIGITS = 4


@dataclass(frozen=True)
class Tick:
    """A line across the panel with its label."""

    at: float
    text: str


@dataclass(frozen=True)
class Mark:
    """A point.

    Attributes:
        style: CSS class: "original", "holds", "fails", "chosen" or "predicted".
        label: number of the trial, or nothing.
        text_x, text_y: where the label stands.
        beyond: whether the point lies outside and is drawn at the upper edge.
        reach: half lengths of the error bars to the left, right, top and bottom, in pixels.
    """

    x: float
    y: float
    style: str
    label: str
    tooltip: str
    text_x: float
    text_y: float
    beyond: bool
    reach: tuple[float, float, float, float]


@dataclass(frozen=True)
class Panel:
    """One plot; positions in pixels of a WIDTH × HEIGHT box."""

    name: str
    title: str
    x_label: str
    y_label: str
    x_ticks: tuple[Tick, ...]
    y_ticks: tuple[Tick, ...]
    marks: tuple[Mark, ...]
    budget: Tick | None
    front: str


@dataclass(frozen=True)
class _Datum:
    """A point in the units of the axes, with its interval (low x, high x, low y, high y)."""

    x: float
    y: float
    style: str = ""
    label: str = ""
    tooltip: str = ""
    interval: tuple[float, float, float, float] | None = None


@dataclass(frozen=True)
class _Draft:
    """A panel in the units of its axes.

    Attributes:
        data: points; those without a style only make room for the front.
        most: y beyond which points are drawn at the edge; None where none is.
    """

    name: str
    title: str
    y_label: str
    data: tuple[_Datum, ...]
    allowed: float | None = None
    front: tuple[tuple[float, float], ...] = ()
    most: float | None = None


@dataclass(frozen=True)
class _Scale:
    """From the units of both axes to pixels."""

    x_low: float
    x_high: float
    y_low: float
    y_high: float

    def x(self, value: float) -> float:
        share = (value - self.x_low) / (self.x_high - self.x_low)
        return LEFT + share * (WIDTH - LEFT - RIGHT)

    def y(self, value: float) -> float:
        share = (value - self.y_low) / (self.y_high - self.y_low)
        return HEIGHT - BOTTOM - share * (HEIGHT - TOP - BOTTOM)


def trade_off(plan: Plan, trials: Sequence[TrialFigures], chosen: int | None) -> tuple[Panel, ...]:
    """The measured panel where accuracy was measured, the predicted one where loss was estimated.

    Args:
        chosen: index of the trial that became the result; None if the original is kept.
    """
    if plan.latency is None:
        return ()
    drafts = []
    unit = plan.latency.original_ns / 100
    if any(trial.drop is not None for trial in trials):
        drafts.append(_measured(plan, trials, chosen, plan.latency.source))
    if any(candidate.loss for site in plan.sites for candidate in site.candidates):
        drafts.append(_predicted(plan, trials, chosen, unit))
    across = _ticks(*_x_range([datum for draft in drafts for datum in draft.data]))
    label = f"latency, % of the original's {latency(plan.latency.original_ns)}"
    return tuple(_panel(draft, across, label) for draft in drafts)


def _measured(
    plan: Plan, trials: Sequence[TrialFigures], chosen: int | None, source: str
) -> _Draft:
    data = [_Datum(100.0, 0.0, "original", "", "the original")]
    for index, trial in enumerate(trials):
        accuracy = trial.accuracy
        if accuracy is None:
            continue
        ratio, noise = 100 * trial.latency.ratio, 100 * trial.latency.ratio_noise
        drop = accuracy.drop
        low = drop if accuracy.least_drop is None else min(drop, accuracy.least_drop)
        style = "chosen" if index == chosen else "fails" if trial.failures else "holds"
        said = "; ".join(trial.failures) or "keeps the budgets"
        tooltip = f"plan {index + 1}: {ratio:.1f} % latency, {signed(-drop)}: {said}"
        interval = (ratio - noise, ratio + noise, low, accuracy.bound)
        data.append(_Datum(ratio, drop, style, str(index + 1), tooltip, interval))
    allowed = None if plan.accuracy is None else plan.accuracy.allowed_drop
    metric = "accuracy" if plan.accuracy is None else plan.accuracy.metric
    return _Draft(
        "measured",
        f"{source.capitalize()} latency, measured accuracy",
        f"drop of {metric}",
        tuple(data),
        allowed=allowed,
        most=None if allowed is None else _MOST_OF_BUDGET * allowed,
    )


def _predicted(
    plan: Plan, trials: Sequence[TrialFigures], chosen: int | None, unit: float
) -> _Draft:
    data = []
    for index, trial in enumerate(trials):
        share = trial.predicted_latency_ns / trial.latency.original_ns * 100
        style = "chosen" if index == chosen else "predicted"
        loss = 100 * trial.predicted_loss
        tooltip = f"plan {index + 1}: predicted {share:.1f} % latency, {loss:.3g} % of fidelity"
        data.append(_Datum(share, loss, style, str(index + 1), tooltip))
    front = [(point.latency_ns / unit, 100 * point.loss) for point in predicted_front(plan)]
    tried = max((datum.y for datum in data), default=0.0)
    most = 1.6 * tried if tried > 0 else max((loss for _, loss in front), default=1.0)
    shown = [point for point in front if point[1] <= most]
    return _Draft(
        "predicted",
        "Predicted, with the front of all plans",
        "loss of fidelity, summed, %",
        (*data, *(_Datum(x, y) for x, y in shown)),
        front=tuple(front),
        most=most,
    )


def _panel(draft: _Draft, x_ticks: Sequence[float], x_label: str) -> Panel:
    y_ticks = _ticks(*_y_range(draft))
    scale = _Scale(x_ticks[0], x_ticks[-1], y_ticks[0], y_ticks[-1])
    allowed = draft.allowed
    return Panel(
        draft.name,
        draft.title,
        x_label,
        draft.y_label,
        tuple(Tick(scale.x(at), _tick_text(at, x_ticks)) for at in x_ticks),
        tuple(Tick(scale.y(at), _tick_text(at, y_ticks)) for at in y_ticks),
        tuple(_marks([datum for datum in draft.data if datum.style], scale)),
        None if allowed is None else Tick(scale.y(allowed), f"budget {allowed:.3g}"),
        "".join(
            f"{'L' if index else 'M'}{scale.x(x):.1f} {scale.y(y):.1f}"
            for index, (x, y) in enumerate(draft.front)
        ),
    )


def _x_range(data: Iterable[_Datum]) -> tuple[float, float]:
    values = [100.0]
    for datum in data:
        values += [datum.x, *(datum.interval or ())[:2]]
    spare = max(0.06 * (max(values) - min(values)), 0.5)
    return min(values) - spare, max(values) + spare


def _y_range(draft: _Draft) -> tuple[float, float]:
    values = [0.0] if draft.allowed is None else [0.0, draft.allowed]
    for datum in draft.data:
        ys = (datum.y, *(datum.interval or ())[2:])
        values += [y for y in ys if draft.most is None or y <= draft.most]
    high = max(values) * _ROOM
    return min(values) * _ROOM, high if high > 0 else 1e-3


def _ticks(low: float, high: float) -> list[float]:
    """Round values that enclose a range, in steps of 1, 2 or 5 times a power of ten."""
    rough = (high - low) / _TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [index * step for index in range(first, last + 1)]


def _tick_text(value: float, ticks: Sequence[float]) -> str:
    step = ticks[1] - ticks[0]
    digits = max(0, -math.floor(math.log10(step) + 1e-9))
    return minus(f"{value:g}" if digits > _MOST_DIGITS else f"{value + 0.0:.{digits}f}")


def _marks(data: Sequence[_Datum], scale: _Scale) -> list[Mark]:
    taken = [(scale.x(datum.x), scale.y(min(datum.y, scale.y_high))) for datum in data]
    boxes = [(x - 6, y - 6, x + 6, y + 6) for x, y in taken]
    marks = []
    for datum, (x, y) in zip(data, taken, strict=True):
        text_x, text_y, box = _label_place(x, y, datum.label, boxes)
        boxes.append(box)
        beyond = datum.y > scale.y_high
        reach = (0.0, 0.0, 0.0, 0.0)
        if datum.interval is not None and not beyond:
            left, right, low, high = datum.interval
            reach = (
                x - scale.x(left),
                scale.x(right) - x,
                y - scale.y(min(high, scale.y_high)),
                scale.y(max(low, scale.y_low)) - y,
            )
        marks.append(
            Mark(x, y, datum.style, datum.label, datum.tooltip, text_x, text_y, beyond, reach)
        )
    return marks


def _label_place(
    x: float, y: float, label: str, taken: Sequence[tuple[float, float, float, float]]
) -> tuple[float, float, tuple[float, float, float, float]]:
    """The first place around a point where its label covers nothing: baseline, and the box."""
    width, height = _CHARACTER * len(label), 11.0
    places = ((8.0, 4.0), (-8.0 - width, 4.0), (-width / 2, -9.0), (-width / 2, 18.0), (7.0, -7.0))
    found = None
    for dx, dy in places:
        box = (x + dx, y + dy - height, x + dx + width, y + dy)
        clear = all(
            box[2] <= b[0] or b[2] <= box[0] or box[3] <= b[1] or b[3] <= box[1] for b in taken
        )
        inside = box[0] >= LEFT and box[2] <= WIDTH - 2 and box[1] >= 0
        found = found or (x + dx, y + dy, box)
        if clear and inside:
            return x + dx, y + dy, box
    return found or (x, y, (x, y, x, y))
