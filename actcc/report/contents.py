"""Everything that the report shows, as values for its template."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple, dataclass

from actcc.graph import Graph
from actcc.plan import CandidateFigures, SitePlan
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
from actcc.site import KEEP


@dataclass(frozen=True)
class Limits:
    """How much is shown, so that the report stays small.

    Attributes:
        rows: sites in the table.
        details: sites with a list of their candidates, those that could save most first.
        boxes: of the picture.
        subjects: named under each reason of a refusal.
        reasons: different reasons for refusals.
    """

    rows: int = 2000
    details: int = 400
    boxes: int = 2500
    subjects: int = 40
    reasons: int = 200

    def halved(self) -> Limits:
        """Half of everything."""
        return Limits(*(limit // 2 for limit in astuple(self)))


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
        candidates: none where they are left out.
        offered: number of candidates.
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
    candidates: tuple[CandidateRow, ...]
    offered: int


@dataclass(frozen=True)
class TrialRow:
    """One verified plan, in words."""

    number: int
    changed: int
    predicted: str
    predicted_loss: str
    latency: str
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


def gather(result: Result, original: Graph, network: Graph, limits: Limits) -> Contents:
    """Put the report together.

    Args:
        network: the graph that is drawn, and in which sites have their shapes.
    """
    plan = result.plan
    chosen = _chosen_trial(result)
    legend = Legend.of(plan.sites)
    groups = _refusal_groups(result, limits.subjects)
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
        picture=draw(network, plan.sites, legend, limits.boxes),
        sites=_site_rows(plan.sites, network, legend, limits),
        site_count=len(plan.sites),
        several_passes=len({site.pass_name for site in plan.sites}) > 1,
        detailed=min(limits.details, len(plan.sites)),
        refusals=groups[: limits.reasons],
        refusal_count=len(result.refusals),
        trials=tuple(_trial_row(i, trial, i == chosen) for i, trial in enumerate(result.trials)),
        cleaned=tuple((name, clip(line, 300)) for name, line in plan.normalized),
        price_source=plan.latency.source,
        tool=plan.tool,
        provenance=_provenance(result),
    )


def _chosen_trial(result: Result) -> int | None:
    if result.status == "unchanged":
        return None
    changed = sum(site.chosen != KEEP for site in result.plan.sites)
    for index, trial in enumerate(result.trials):
        if trial.latency == result.plan.latency and trial.changed == changed:
            return index
    return None


def _site_rows(
    sites: Sequence[SitePlan], network: Graph, legend: Legend, limits: Limits
) -> tuple[SiteRow, ...]:
    ranking = sorted(range(len(sites)), key=lambda index: (_most_saved(sites[index]), index))
    detailed = set(ranking[: limits.details])
    return tuple(
        _site_row(index, site, network, legend.colours[index], index in detailed)
        for index, site in enumerate(sites[: limits.rows])
    )


def _most_saved(site: SitePlan) -> float:
    return min((c.difference_ns or 0.0 for c in site.candidates), default=0.0)


def _site_row(index: int, site: SitePlan, network: Graph, colour: str, detailed: bool) -> SiteRow:
    written = site.id.partition(":")[2] or site.id
    figures = chosen_figures(site)
    spelled = f"{site.kind} as {site.spelling}" if site.spelling != site.kind else site.kind
    rows = tuple(_candidate_row(c) for c in site.candidates) if detailed else ()
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
        candidates=rows,
        offered=len(site.candidates),
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
        drop="" if trial.drop is None else signed(-trial.drop),
        verdict="; ".join(trial.failures),
        chosen=chosen,
    )


def _refusal_groups(result: Result, subjects: int) -> tuple[RefusalGroup, ...]:
    """Refusals by pass and reason, the commonest first; what differs only in names is one."""
    found: dict[tuple[str, str], list[str]] = {}
    for name, refusal in result.refusals:
        found.setdefault((name, refusal.reason), []).append(refusal.subject)
    groups = [
        RefusalGroup(
            name, clip(reason, 400), tuple(clip(s) for s in members[:subjects]), len(members)
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
        ("prices and timing", f"{plan.latency.source}, {plan.tool}"),
        ("seed", str(plan.seed)),
        *((name.replace("_", " "), value) for name, value in plan.settings.items()),
        ("versions", ", ".join(f"{name} {version}" for name, version in plan.versions.items())),
    ]
    spent = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in result.stage_seconds.items())
    if spent:
        entries.append(("time", spent))
    return tuple((name, clip(value, 300)) for name, value in entries)
