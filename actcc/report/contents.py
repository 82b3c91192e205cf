"""Everything that the report shows, as values for its template."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from actcc.graph import Graph
from actcc.plan import CandidateFigures, Plan, SitePlan
from actcc.report.formats import (
    chosen_figures,
    clip,
    difference,
    latency,
    loss,
    shape,
    signed,
)
from actcc.report.legend import Legend
from actcc.report.picture import Picture, draw
from actcc.report.plot import Panel, trade_off
from actcc.report.summary import Row, before_and_after, changed_operators, verdict
from actcc.result import Result, TrialFigures


@dataclass(frozen=True)
class Limits:
    """How much is shown.

    Attributes:
        rows: sites in the table.
        details: sites with a list of their candidates, those that could save most first.
        boxes: of the picture.
        names: of nodes in the tooltip of a box.
        reasons: different reasons for refusals.
        subjects: named under each of them.
    """

    rows: int
    details: int
    boxes: int
    names: int
    reasons: int
    subjects: int


# From all there is down to what fits for any model: lists of candidates and of names go first.
STEPS = (
    Limits(rows=5000, details=5000, boxes=5000, names=8, reasons=400, subjects=40),
    Limits(rows=5000, details=400, boxes=5000, names=4, reasons=200, subjects=20),
    Limits(rows=5000, details=200, boxes=5000, names=2, reasons=100, subjects=10),
    Limits(rows=3000, details=60, boxes=3000, names=0, reasons=50, subjects=3),
    Limits(rows=1500, details=20, boxes=1500, names=0, reasons=50, subjects=3),
    Limits(rows=700, details=20, boxes=700, names=0, reasons=50, subjects=3),
    Limits(rows=300, details=20, boxes=300, names=0, reasons=20, subjects=1),
    Limits(rows=50, details=5, boxes=50, names=0, reasons=10, subjects=1),
)


@dataclass(frozen=True)
class CandidateRow:
    """One candidate of a site, in words."""

    name: str
    exact: bool
    price: str
    loss: str
    reason: str


@dataclass(frozen=True)
class SiteRow:
    """One site, in words; `saved_ns` and `lost` are what the table sorts by.

    Attributes:
        number: from 0, in order of execution.
        colour: CSS class of what was chosen.
        chosen: the candidate's name, or `keep`.
        most_saved_ns: by any candidate.
        candidates: none where they are left out.
    """

    number: int
    name: str
    pass_name: str
    kind: str
    shape: str
    colour: str
    chosen: str
    price: str
    loss: str
    saved_ns: float
    lost: float
    most_saved_ns: float
    candidates: tuple[CandidateRow, ...]


@dataclass(frozen=True)
class TrialRow:
    """One verified plan, in words."""

    number: int
    changed: int
    predicted: str
    predicted_loss: str
    latency: str
    unrepaired: str
    drop: str
    verdict: str
    chosen: bool


@dataclass(frozen=True)
class RefusalGroup:
    """What one pass did not offer for one reason.

    Attributes:
        subjects: some of them.
        count: all of them.
    """

    pass_name: str
    reason: str
    subjects: tuple[str, ...]
    count: int


@dataclass(frozen=True)
class Contents:
    """The report."""

    model: str
    target: str
    status: str
    reason: str
    verdict: str
    rows: tuple[Row, ...]
    operators: tuple[Row, ...]
    panels: tuple[Panel, ...]
    legend: Legend
    picture: Picture
    sites: tuple[SiteRow, ...]
    site_count: int
    several_passes: bool
    detailed: int
    refusals: tuple[RefusalGroup, ...]
    refusal_count: int
    trials: tuple[TrialRow, ...]
    cleaned: tuple[tuple[str, str], ...]
    price_source: str
    tool: str
    provenance: tuple[tuple[str, str], ...]

    def within(self, limits: Limits) -> Contents:
        """As much of it as the limits allow; the template says what is left out."""
        ranking = sorted(self.sites, key=lambda site: (-site.most_saved_ns, site.number))
        detailed = {site.number for site in ranking[: limits.details]}
        return replace(
            self,
            picture=self.picture.within(limits.boxes, limits.names),
            sites=tuple(
                site if site.number in detailed else replace(site, candidates=())
                for site in self.sites[: limits.rows]
            ),
            refusals=tuple(
                replace(group, subjects=group.subjects[: limits.subjects])
                for group in self.refusals[: limits.reasons]
            ),
            detailed=min(limits.details, len(self.sites)),
        )


def gather(result: Result, original: Graph, network: Graph) -> Contents:
    """Put the report together.

    Args:
        network: the graph that is drawn, and in which sites have their shapes.
    """
    plan = result.plan
    chosen = result.chosen_trial
    legend = Legend.of(plan.sites)
    return Contents(
        model=plan.model_name,
        target=plan.target,
        status=result.status,
        reason=result.reason,
        verdict=verdict(result),
        rows=before_and_after(result, original),
        operators=changed_operators(original, result.graph),
        panels=trade_off(plan, result.trials, chosen),
        legend=legend,
        picture=draw(network, plan.sites, legend),
        sites=_site_rows(plan.sites, network, legend),
        site_count=len(plan.sites),
        several_passes=len({site.pass_name for site in plan.sites}) > 1,
        detailed=len(plan.sites),
        refusals=_refusal_groups(result),
        refusal_count=len(result.refusals),
        trials=tuple(_trial_row(i, trial, i == chosen) for i, trial in enumerate(result.trials)),
        cleaned=tuple((name, clip(line, 300)) for name, line in plan.normalized),
        price_source=_source(plan),
        tool=plan.tool,
        provenance=_provenance(result),
    )


def _source(plan: Plan) -> str:
    """How prices came about: "measured"; in a word that fits where there are none."""
    return "given" if plan.latency is None else plan.latency.source


def _site_rows(sites: Sequence[SitePlan], network: Graph, legend: Legend) -> tuple[SiteRow, ...]:
    return tuple(
        _site_row(index, site, network, legend.colours[index]) for index, site in enumerate(sites)
    )


def _site_row(index: int, site: SitePlan, network: Graph, colour: str) -> SiteRow:
    written = site.id.partition(":")[2] or site.id
    figures = chosen_figures(site)
    spelled = f"{site.kind} as {site.spelling}" if site.spelling != site.kind else site.kind
    return SiteRow(
        number=index,
        name=clip(written),
        pass_name=site.pass_name,
        kind=spelled if site.spelling else site.kind,
        shape=shape(network.shape(written)),
        colour=colour,
        chosen=site.chosen,
        price="" if figures is None else difference(figures),
        loss="" if figures is None else loss(figures.loss),
        saved_ns=0.0 if figures is None else -(figures.difference_ns or 0.0),
        lost=0.0 if figures is None else figures.loss or 0.0,
        most_saved_ns=-min((c.difference_ns or 0.0 for c in site.candidates), default=0.0),
        candidates=tuple(_candidate_row(candidate) for candidate in site.candidates),
    )


def _candidate_row(figures: CandidateFigures) -> CandidateRow:
    return CandidateRow(
        figures.name,
        figures.exact,
        difference(figures) or "not priced",
        "exact" if figures.exact else loss(figures.loss) or "not known",
        clip(figures.reason, 200) or "chosen",
    )


def _trial_row(index: int, trial: TrialFigures, chosen: bool) -> TrialRow:
    noise = f" ± {100 * trial.latency.ratio_noise:.1f}" if trial.latency.ratio_noise else ""
    return TrialRow(
        number=index + 1,
        changed=trial.changed,
        predicted=latency(trial.predicted_latency_ns),
        predicted_loss=loss(trial.predicted_loss),
        latency=f"{latency(trial.latency.result_ns)} ({100 * trial.latency.ratio:.1f}{noise} %)",
        unrepaired=("" if trial.drop_before_repair is None else signed(-trial.drop_before_repair)),
        drop="" if trial.drop is None else signed(-trial.drop),
        verdict="; ".join(trial.failures),
        chosen=chosen,
    )


def _refusal_groups(result: Result) -> tuple[RefusalGroup, ...]:
    """Refusals by pass and reason, the commonest first; what differs only in names is one."""
    found: dict[tuple[str, str], list[str]] = {}
    for name, refusal in result.refusals:
        found.setdefault((name, refusal.reason), []).append(refusal.subject)
    groups = [
        RefusalGroup(
            name, clip(reason, 400), tuple(clip(subject) for subject in members), len(members)
        )
        for (name, reason), members in found.items()
    ]
    return tuple(sorted(groups, key=lambda group: -group.count))


def _provenance(result: Result) -> tuple[tuple[str, str], ...]:
    plan = result.plan
    entries = [
        ("model", plan.model_name),
        ("model hash", plan.model_hash),
        ("target", plan.target),
        ("prices and timing", f"{_source(plan)}, {plan.tool}"),
        ("seed", str(plan.seed)),
        *((name.replace("_", " "), value) for name, value in plan.settings.items()),
        ("versions", ", ".join(f"{name} {version}" for name, version in plan.versions.items())),
    ]
    spent = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in result.stage_seconds.items())
    if spent:
        entries.append(("time", spent))
    return tuple((name, clip(value, 300)) for name, value in entries)
