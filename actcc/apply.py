"""A plan applied again: the same model, bit for bit, on another machine, without prices."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib import metadata
from pathlib import Path

from actcc.calibration import Preprocessing, SampleSet, load_samples
from actcc.errors import PassError, PlanError
from actcc.graph import Graph, content_hash
from actcc.graph.files import deliver, staging_folder, writing
from actcc.graph.fingerprint import first_difference, model_parts
from actcc.normalize import normalize
from actcc.output import check_output
from actcc.pass_api import select_passes, sites_of
from actcc.plan import Plan, SitePlan
from actcc.repair import RepairMethod
from actcc.result import copy_of_original
from actcc.rewriting import rewrite_network
from actcc.site import Candidate, OfferedSite, Site

_OTHER_VERSION = "was the plan made with another version of actcc or of the pass?"


def apply_plan(
    model: str | Path,
    plan: str | Path | Plan,
    output: str | Path,
    *,
    calibration: str | Path | SampleSet | None = None,
    preprocessing: str | Preprocessing | None = None,
    plugins: Sequence[str | Path] = (),
) -> Graph:
    """Rewrite a model as a plan says, and write the file that the plan was verified with.

    Args:
        plan: a plan, or the path of its JSON.
        calibration: the samples that the plan names, where what it writes depends on them.
        preprocessing: of those samples.
        plugins: files with the user's own passes that the plan uses.

    Returns:
        The model that was written.

    Raises:
        ModelError: the model cannot be read, or the output cannot be written or is an input.
        PlanError: the plan cannot be read, was made for another model, or other versions of the
            libraries than those it was made with give another file. Nothing is written then.
    """
    source, target = Path(model), check_output(output, model, plan, *plugins)
    recipe = plan if isinstance(plan, Plan) else Plan.load(Path(plan))
    original = Graph.load(source)
    difference = first_difference(recipe.model_parts, model_parts(original))
    if difference:
        raise PlanError(
            f"{source}: not the model that the plan was made for ({recipe.model_name}): "
            f"{difference}; give that model, or optimise this one"
        )
    with writing(target), staging_folder(target.parent) as staging:
        staged = staging / target.name
        if recipe.rewritten:
            graph = _rewritten(original, recipe, plugins, calibration, preprocessing)
            graph.save(staged, external=original.external)
        else:
            graph = original
            copy_of_original(source, original, staged)
        if content_hash(Graph.load(staged)) != recipe.result_hash:
            raise PlanError(
                f"{source}: the plan gives another file here than where it was made"
                f"{_other_versions(recipe.versions)}"
            )
        deliver(staged, target)
    return graph


def _rewritten(
    original: Graph,
    plan: Plan,
    plugins: Sequence[str | Path],
    calibration: str | Path | SampleSet | None,
    preprocessing: str | Preprocessing | None,
) -> Graph:
    names = {site.pass_name for site in plan.rewritten}
    passes = [p for p in select_passes(None, plugins, also=sorted(names)) if p.name in names]
    bound = original.with_input_shapes(plan.input_shapes)
    graph = normalize(bound, skip=plan.skip).graph
    approximate = {site.pass_name for site in plan.rewritten if not _is_exact(site)}
    observing = any(found.observes for found in passes if found.name in approximate)
    samples = None
    if observing and "calibration_samples" in plan.settings:
        samples = _samples(bound, plan, calibration, preprocessing)
    places: dict[str, Site] = {}
    for found in passes:
        if not found.late:  # those find their places in the rewritten network
            places |= {s.id: s for s in sites_of(graph, found, samples) if isinstance(s, Site)}
    method = RepairMethod.from_settings(plan.settings)
    late = {found.name for found in passes if found.late}
    places |= {s.id: _as_planned(s) for s in plan.rewritten if s.pass_name in late}
    chosen = [(_offered(site, places), site.chosen) for site in plan.rewritten]
    repairs = bool(approximate - late) and method.name != "none"
    if samples is None and repairs:
        samples = _samples(bound, plan, calibration, preprocessing)

    def repaired(before: Graph, after: Graph) -> Graph:
        assert samples is not None
        return method.run(before, after, samples, seed=plan.seed).graph

    repair = repaired if method.name != "none" and samples is not None else None
    try:
        return rewrite_network(graph, passes, chosen, repair=repair, samples=samples).graph
    except PassError as error:
        raise PlanError(f"the plan: {error}; {_OTHER_VERSION}") from error


def _is_exact(site: SitePlan) -> bool:
    return all(candidate.exact for candidate in site.candidates if candidate.name == site.chosen)


def _samples(
    graph: Graph,
    plan: Plan,
    calibration: str | Path | SampleSet | None,
    preprocessing: str | Preprocessing | None,
) -> SampleSet:
    """The samples that the plan was observed and repaired on, in its order."""
    if plan.settings["repair"] == "distill":
        raise PlanError(
            "the plan's weights were fine-tuned, which gives other weights each time; keep the "
            "file that was written with it, or optimise again"
        )
    wanted: list[str] = json.loads(plan.settings["calibration_samples"])
    if calibration is None:
        raise PlanError(
            f"the plan's weights were chosen or re-fitted on {len(wanted)} samples of "
            f"{plan.settings['calibration']}; give them with --calib"
        )
    if isinstance(calibration, SampleSet):
        found = calibration
    else:
        found = load_samples(calibration, graph, preprocessing)
    places = dict(zip(found.names, found.indices, strict=True))
    missing = next((name for name in wanted if name not in places), None)
    if missing is not None:
        raise PlanError(
            f"{found.source}: no sample '{missing}', which the plan's weights depend on; "
            "give the samples that the plan was made with"
        )
    return replace(found, indices=tuple(places[name] for name in wanted))


def _as_planned(site: SitePlan) -> Site:
    """The place that a plan names, for one that is looked for later."""
    return Site(site.nodes, "", site.id.partition(":")[2], site.kind, id=site.id)


def _offered(site: SitePlan, places: Mapping[str, Site]) -> OfferedSite:
    """The site with what was chosen."""
    place = places.get(site.id)
    if place is None or place.nodes != site.nodes:
        raise PlanError(
            f"the plan rewrites '{site.id}', which pass '{site.pass_name}' does not find here; "
            f"{_OTHER_VERSION}"
        )
    exact = next((c.exact for c in site.candidates if c.name == site.chosen), None)
    candidate = Candidate(site.chosen, exact)
    return OfferedSite(place, site.pass_name, (candidate,))


def _other_versions(made_with: Mapping[str, str]) -> str:
    """What differs, for the message, and what to do."""
    differing = []
    for name, version in made_with.items():
        if name == "python":
            continue
        try:
            here = metadata.version(name)
        except metadata.PackageNotFoundError:
            here = "not installed"
        if here != version:
            differing.append(f"{name} {version} (here {here})")
    if differing:
        return f"; it was made with {', '.join(differing)}: install those, or optimise again"
    return ", though the versions are the same; optimise again on this machine"
