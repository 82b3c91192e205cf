"""Accuracy estimates: one site at a time, on calibration data, without labels.

The network is cut at each site. What comes before is run once for a whole chunk of sites and
sample (the shared prefix); the candidate is run on what enters the site; and only the layers that
depend on the site are run behind it. Layers on parallel branches are never run again.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from actcc.accuracy.fidelity import FidelityReference
from actcc.calibration import SampleSet
from actcc.errors import ActccError, ModelError, PassError
from actcc.graph import Graph, extract
from actcc.pass_api import Pass
from actcc.runtime import run, session
from actcc.site import Candidate, OfferedSite

Values = dict[str, "np.ndarray[Any, Any]"]
LossTable = dict[tuple[str, str], float]


@dataclass(frozen=True)
class SiteWork:
    """One site with the candidates to estimate; picklable.

    Attributes:
        site: with one candidate for each function that is to be tried.
        rewritten: by `Candidate.computes`, the site alone with that candidate.
    """

    offered: OfferedSite
    rewritten: Mapping[str, Graph]


@dataclass(frozen=True)
class Task:
    """A chunk of neighbouring sites; independent of all others and picklable.

    Attributes:
        enough_loss: after a few samples a candidate that loses more than this is not run on the
            rest; its estimate is what was seen until then.
    """

    graph: Graph
    work: tuple[SiteWork, ...]
    samples: SampleSet
    reference: FidelityReference
    enough_loss: float


@dataclass(frozen=True)
class Estimates:
    """Losses of fidelity by (site id, function), and why some could not be estimated."""

    losses: LossTable
    failed: Mapping[tuple[str, str], str]


_PROBE_SAMPLES = 4
_CHUNK = 6


def reference_outputs(graph: Graph, samples: SampleSet) -> list[Values]:
    """Outputs of a model for every sample, in order."""
    runner = session(graph)
    return [run(runner, samples[index].inputs) for index in range(len(samples))]


def plan_tasks(
    graph: Graph,
    sites: Sequence[OfferedSite],
    passes: Sequence[Pass],
    samples: SampleSet,
    reference: FidelityReference,
    enough_loss: float,
) -> tuple[list[Task], dict[tuple[str, str], str]]:
    """Tasks for all approximate candidates; exact ones lose nothing and need none."""
    by_name = {found.name: found for found in passes}
    failed: dict[tuple[str, str], str] = {}
    work: list[SiteWork] = []
    for offered in sites:
        functions = {c.computes: c for c in reversed(offered.candidates) if not c.exact}
        rewritten: dict[str, Graph] = {}
        for function, candidate in functions.items():
            try:
                rewritten[function] = _site_alone(graph, offered, candidate, by_name)
                _descendants(graph, offered)
            except ActccError as error:
                failed[offered.id, function] = str(error)
        if rewritten:
            work.append(SiteWork(offered, rewritten))
    chunks = [tuple(work[start : start + _CHUNK]) for start in range(0, len(work), _CHUNK)]
    return [Task(graph, chunk, samples, reference, enough_loss) for chunk in chunks], failed


def _site_alone(
    graph: Graph, offered: OfferedSite, candidate: Candidate, passes: Mapping[str, Pass]
) -> Graph:
    part = extract(graph, offered.site.nodes)
    passes[offered.pass_name].apply(part, offered.site, candidate)
    if [t.name for t in part.outputs] != [offered.site.writes]:
        names = ", ".join(t.name for t in part.outputs)
        raise PassError(f"site '{offered.id}' writes {names}; it must write one tensor")
    return part


def merge(parts: Sequence[Estimates]) -> Estimates:
    """The estimates of all chunks."""
    losses: LossTable = {}
    failed: dict[tuple[str, str], str] = {}
    for part in parts:
        losses.update(part.losses)
        failed.update(part.failed)
    return Estimates(losses, failed)


def run_task(task: Task) -> Estimates:
    """Estimate the sites of one chunk."""
    losses: LossTable = {}
    failed: dict[tuple[str, str], str] = {}
    try:
        prefix = _Prefix(task)
    except ActccError as error:
        every = [(work.offered.id, function) for work in task.work for function in work.rewritten]
        return Estimates({}, dict.fromkeys(every, str(error)))
    for work in task.work:
        identity = work.offered.id
        try:
            suffix = prefix.suffix(work)
        except ModelError as error:
            failed.update(((identity, function), str(error)) for function in work.rewritten)
            continue
        for function, part in work.rewritten.items():
            try:
                losses[identity, function] = _loss(task, prefix, suffix, part)
            except ActccError as error:
                failed[identity, function] = str(error)
    return Estimates(losses, failed)


@dataclass(frozen=True)
class _Suffix:
    """What runs behind a site: a session, what it is fed, and what it cannot change."""

    session: Any
    feeds: tuple[str, ...]
    writes: str


class _Prefix:
    """The original network's tensors at the borders of a chunk, for every sample."""

    def __init__(self, task: Task) -> None:
        self._graph = task.graph
        self._behind = {
            work.offered.id: _descendants(task.graph, work.offered) for work in task.work
        }
        borders: dict[str, None] = {}
        for work in task.work:
            borders.update(dict.fromkeys(_reads(task.graph, self._behind[work.offered.id])))
            for part in work.rewritten.values():
                borders.update((tensor.name, None) for tensor in part.inputs)
        self.samples: list[Values] = list(_border_values(task, [*borders]))

    def suffix(self, work: SiteWork) -> _Suffix:
        site = work.offered.site
        behind = self._behind[work.offered.id]
        if not behind:
            return _Suffix(None, (), site.writes)
        outputs = [t.name for t in self._graph.outputs if _written_by(self._graph, t, behind)]
        part = extract(self._graph, behind, outputs)
        feeds = tuple(t.name for t in part.inputs if t.name != site.writes)
        return _Suffix(session(part), feeds, site.writes)


def _border_values(task: Task, names: Sequence[str]) -> Iterator[Values]:
    """The named tensors and all outputs of the original, sample by sample."""
    graph = task.graph
    fed = {tensor.name for tensor in graph.inputs}
    inner = [name for name in names if name not in fed]
    outputs = [tensor.name for tensor in graph.outputs]
    wanted = list(dict.fromkeys([*inner, *outputs]))
    needed = _ancestors(graph, wanted)
    runner = session(extract(graph, needed, wanted)) if needed else None
    accepted = {value.name for value in runner.get_inputs()} if runner else set()
    for index in range(len(task.samples)):
        inputs = task.samples[index].inputs
        given = {name: value for name, value in inputs.items() if name in accepted}
        computed = run(runner, given) if runner else {}
        yield {**{name: inputs[name] for name in names if name in fed}, **computed}


def _loss(task: Task, prefix: _Prefix, suffix: _Suffix, part: Graph) -> float:
    """Mean loss over the samples; over the first few where it is beyond use already."""
    site = session(part)
    names = [tensor.name for tensor in part.inputs]
    outputs = [tensor.name for tensor in task.graph.outputs]
    total, count = 0.0, 0
    for index, values in enumerate(prefix.samples):
        written = run(site, {name: values[name] for name in names})
        changed = dict(written)
        if suffix.session is not None:
            feeds = {name: values[name] for name in suffix.feeds}
            changed.update(run(suffix.session, {**feeds, **written}))
        results = {name: changed.get(name, values[name]) for name in outputs}
        total += task.reference.sample_loss(index, results)
        count += 1
        if count == _PROBE_SAMPLES and total / count > task.enough_loss:
            break
    return max(total / count, 0.0)


def _descendants(graph: Graph, offered: OfferedSite) -> set[str]:
    """Names of the nodes that depend on what the site writes."""
    found: set[str] = set()
    frontier = [graph.tensor(offered.site.writes)]
    top = {node.name for node in graph.nodes()}
    while frontier:
        for reader in graph.consumers(frontier.pop()):
            if reader.name not in top:
                raise ModelError("a subgraph reads what depends on the site; it is left alone")
            if reader.name not in found:
                found.add(reader.name)
                frontier += [t for t in reader.outputs if not t.is_empty()]
    return found


def _ancestors(graph: Graph, tensors: Sequence[str]) -> set[str]:
    """Names of the nodes that the tensors depend on."""
    found: set[str] = set()
    frontier = [graph.tensor(name) for name in tensors]
    while frontier:
        writer = graph.producer(frontier.pop())
        if writer is not None and writer.name not in found:
            found.add(writer.name)
            frontier += [t for t in writer.inputs if not t.is_empty()]
    return found


def _reads(graph: Graph, nodes: set[str]) -> list[str]:
    """Tensors that the nodes read and none of them writes, weights left out."""
    names: dict[str, None] = {}
    for name in sorted(nodes):
        for tensor in graph.node(name).inputs:
            writer = None if tensor.is_empty() else graph.producer(tensor)
            is_input = any(tensor is given for given in graph.inputs)
            if is_input or (writer is not None and writer.name not in nodes):
                names[tensor.name] = None
    return list(names)


def _written_by(graph: Graph, tensor: Any, nodes: set[str]) -> bool:
    writer = graph.producer(tensor)
    return writer is not None and writer.name in nodes
