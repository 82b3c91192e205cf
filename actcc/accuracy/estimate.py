"""Accuracy estimates: one site at a time, on calibration data, without labels.

The network is cut at each site. What comes before is run once for a whole chunk of sites and
sample (the shared prefix); the candidate is run on what enters the site; and only the layers that
depend on the site are run behind it. Layers on parallel branches are never run again. Samples
pass one after another, so that no more than one sample's tensors are in memory at a time.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from actcc.accuracy.local_repair import repaired_part, site_part
from actcc.calibration import SampleSet
from actcc.errors import ActccError, ModelError, PassError
from actcc.graph import Array, Graph, Interface, ancestors, extract, verify
from actcc.pass_api import Pass, apply_pass
from actcc.runtime import run, session
from actcc.site import Candidate, OfferedSite

Values = dict[str, Array]
Key = tuple[str, str]
LossTable = dict[Key, float]


@dataclass(frozen=True)
class SiteWork:
    """One site with the candidates to estimate; picklable.

    Attributes:
        offered: the site, as a pass found it.
        part: the site, with the layers around it where candidates are repaired.
        rewritten: by `Candidate.computes`, the part with a candidate that computes that.
        repairs: whether candidates are repaired; those of late passes come behind the repair.
    """

    offered: OfferedSite
    part: Graph
    rewritten: Mapping[str, Graph]
    repairs: bool = False

    @property
    def keys(self) -> list[Key]:
        """What is to be estimated: the site's id with each function."""
        return [(self.offered.id, function) for function in self.rewritten]


Chunk = tuple[SiteWork, ...]


class Tally(Protocol):
    """What was seen of one rewritten network so far."""

    def add(self, index: int, outputs: Mapping[str, Array]) -> None:
        """Count sample `index`; samples come in order."""

    @property
    def loss(self) -> float:
        """Of the samples counted so far; lower is better."""


class Yardstick(Protocol):
    """What a rewritten network is held against; picklable."""

    def tally(self) -> Tally:
        """A tally of nothing."""


@dataclass(frozen=True)
class Task:
    """A chunk of neighbouring sites; independent of all others and picklable.

    Attributes:
        path: file of the normalized model, which workers read; models are too large to pickle.
            Its outputs are what the yardstick looks at.
        input_shapes: concrete shapes for its symbolic inputs.
        work: the chunk.
        enough_loss: after a few samples a candidate that loses more than this is not run on the
            rest; its estimate is what was seen until then.
        repairs: whether the layers around a site are re-fitted to each candidate.
    """

    path: Path
    input_shapes: Mapping[str, Sequence[int]]
    work: Chunk
    samples: SampleSet
    reference: Yardstick
    enough_loss: float
    repairs: bool = False


@dataclass(frozen=True)
class Estimates:
    """Losses by (site id, function), and why some could not be estimated."""

    losses: LossTable
    failed: Mapping[Key, str]

    def to_json(self) -> dict[str, list[list[Any]]]:
        """JSON values; `from_json` reads them back equal."""
        return {
            "losses": [[*key, loss] for key, loss in self.losses.items()],
            "failed": [[*key, reason] for key, reason in self.failed.items()],
        }

    @classmethod
    def from_json(cls, values: Mapping[str, list[list[Any]]]) -> Estimates:
        """What `to_json` wrote."""
        return cls(
            {(site, function): loss for site, function, loss in values["losses"]},
            {(site, function): reason for site, function, reason in values["failed"]},
        )


_PROBE_SAMPLES = 4
_MOST_FITTED_SAMPLES = 8
_CHUNK = 6


def reference_outputs(graph: Graph, samples: SampleSet) -> list[Values]:
    """Outputs of a model for every sample, in order."""
    runner = session(graph)
    return [run(runner, samples[index].inputs) for index in range(len(samples))]


def plan_chunks(
    graph: Graph,
    sites: Sequence[OfferedSite],
    passes: Sequence[Pass],
    *,
    repairs: bool = False,
) -> tuple[list[Chunk], dict[Key, str]]:
    """Work for all approximate candidates, in chunks of neighbouring sites, and what failed.

    Exact candidates lose nothing and need no work.

    Args:
        repairs: whether candidates are to be repaired with the layers around their sites.
    """
    by_name = {found.name: found for found in passes}
    failed: dict[Key, str] = {}
    work: list[SiteWork] = []
    for offered in sites:
        functions = {c.computes: c for c in reversed(offered.candidates) if not c.exact}
        if not functions:
            continue
        repaired = repairs and not by_name[offered.pass_name].late
        try:
            _site_alone(graph, offered)
            part = site_part(graph, offered, repairs=repaired)
        except ActccError as error:
            failed.update(((offered.id, function), str(error)) for function in functions)
            continue
        rewritten: dict[str, Graph] = {}
        for function, candidate in functions.items():
            try:
                rewritten[function] = _rewritten(
                    part, offered, candidate, by_name[offered.pass_name]
                )
            except ActccError as error:
                failed[offered.id, function] = str(error)
        if rewritten:
            work.append(SiteWork(offered, part, rewritten, repaired))
    return [tuple(work[start : start + _CHUNK]) for start in range(0, len(work), _CHUNK)], failed


def _site_alone(graph: Graph, offered: OfferedSite) -> Graph:
    part = extract(graph, offered.site.nodes)
    if [t.name for t in part.outputs] != [offered.site.writes]:
        names = ", ".join(t.name for t in part.outputs)
        raise PassError(
            f"site '{offered.id}' writes {names}; it must write '{offered.site.writes}' alone"
        )
    return part


def _rewritten(part: Graph, offered: OfferedSite, candidate: Candidate, found: Pass) -> Graph:
    interface = Interface.of(part)
    rewritten = part.copy()
    apply_pass(found, rewritten, offered.site, candidate)
    verify(rewritten, interface, [found.name])
    return rewritten


def merge(parts: Sequence[Estimates]) -> Estimates:
    """The estimates of all chunks."""
    losses: LossTable = {}
    failed: dict[Key, str] = {}
    for part in parts:
        losses.update(part.losses)
        failed.update(part.failed)
    return Estimates(losses, failed)


def run_task(task: Task) -> Estimates:
    """Estimate the sites of one chunk."""
    failed: dict[Key, str] = {}
    try:
        graph = Graph.load(task.path, task.input_shapes)
        runs = [found for work in task.work for found in _open(graph, work, task.reference, failed)]
        prefix = _Prefix(graph, runs)
        if task.repairs:
            repaired = {key for work in task.work if work.repairs for key in work.keys}
            failed.update(_repair(task, prefix, [r for r in runs if r.key in repaired]))
    except ActccError as error:
        every = [key for work in task.work for key in work.keys]
        return Estimates({}, {**dict.fromkeys(every, str(error)), **failed})
    for index in range(_fitted_samples(task), len(task.samples)):
        under_way = [found for found in runs if found.key not in failed and not found.is_enough]
        if under_way:
            failed.update(_run_sample(task, index, prefix, under_way))
    return Estimates({r.key: r.tally.loss for r in runs if r.key not in failed}, failed)


@dataclass(frozen=True)
class _Suffix:
    """What runs behind a site: a session, if anything does.

    Attributes:
        reads: what it reads of what the site's part writes.
        feeds: what it reads past that.
    """

    session: Any
    reads: tuple[str, ...]
    feeds: tuple[str, ...]


@dataclass
class _CandidateRun:
    """A candidate with what was seen of it so far.

    Attributes:
        session: the site's part, rewritten.
        original, rewritten: that part before and behind the rewrite.
        feeds: what it reads.
        is_enough: it need not be run on further samples.
    """

    key: Key
    session: Any
    original: Graph
    rewritten: Graph
    feeds: tuple[str, ...]
    suffix: _Suffix
    tally: Tally
    count: int = 0
    is_enough: bool = False

    def outputs(self, values: Values) -> Values:
        """Outputs that the candidate changes, and the rest of `values`, for one sample."""
        written = run(self.session, {name: values[name] for name in self.feeds})
        changed = dict(written)
        if self.suffix.session is not None:
            feeds = {name: values[name] for name in self.suffix.feeds}
            feeds |= {name: written[name] for name in self.suffix.reads}
            changed.update(run(self.suffix.session, feeds))
        return {**values, **changed}

    def add(self, index: int, outputs: Values, enough_loss: float) -> None:
        """Count one more sample; over the first few it may prove to be beyond use."""
        self.tally.add(index, outputs)
        self.count += 1
        if self.count == _PROBE_SAMPLES and math.isfinite(enough_loss):
            self.is_enough = self.tally.loss > enough_loss


def _open(
    graph: Graph, work: SiteWork, reference: Yardstick, failed: dict[Key, str]
) -> list[_CandidateRun]:
    """Sessions for the candidates of one site; those that cannot be run are put in `failed`."""
    try:
        suffix = _open_suffix(graph, work.part)
    except ActccError as error:
        failed.update(dict.fromkeys(work.keys, str(error)))
        return []
    runs: list[_CandidateRun] = []
    for key, part in zip(work.keys, work.rewritten.values(), strict=True):
        feeds = tuple(tensor.name for tensor in part.inputs)
        try:
            _check_feeds(graph, (*feeds, *suffix.feeds))
            found = _CandidateRun(
                key, session(part), work.part, part, feeds, suffix, reference.tally()
            )
            runs.append(found)
        except ActccError as error:
            failed[key] = str(error)
    return runs


def _check_feeds(graph: Graph, names: Iterable[str]) -> None:
    """Refuse what only a caller knows: initializers that are listed as inputs."""
    for name in names:
        if name in graph.overridable:
            raise ModelError(
                f"initializer '{name}' is listed as an input; do not skip the pass that freezes it"
            )


def _fitted_samples(task: Task) -> int:
    """How many samples, the first ones, weights are fitted to; losses are measured on the others.

    A layer that a rewrite made has as many weights as it has rows on a few samples: on those it
    would seem to lose nothing.
    """
    return min(_MOST_FITTED_SAMPLES, len(task.samples) // 2) if task.repairs else 0


def _repair(task: Task, prefix: _Prefix, runs: Sequence[_CandidateRun]) -> dict[Key, str]:
    """Let every candidate run repaired; those that cannot be, with the reason."""
    count = max(_fitted_samples(task), 1)
    values = [prefix.run(task.samples[index].inputs) for index in range(count)]
    failed: dict[Key, str] = {}
    for found in runs:
        feeds = [{name: sample[name] for name in found.feeds} for sample in values]
        try:
            found.session = session(repaired_part(found.original, found.rewritten, feeds))
        except ActccError as error:
            failed[found.key] = str(error)
    return failed


def _open_suffix(graph: Graph, cut: Graph) -> _Suffix:
    written = [tensor.name for tensor in cut.outputs]
    behind = _descendants(graph, written) - {node.name for node in cut.nodes()}
    if not behind:
        return _Suffix(None, (), ())
    outputs = [t.name for t in graph.outputs if _written_by(graph, t, behind)]
    part = extract(graph, behind, outputs, static=False)
    names = [tensor.name for tensor in part.inputs]
    reads = tuple(name for name in names if name in written)
    return _Suffix(session(part), reads, tuple(name for name in names if name not in written))


def _run_sample(
    task: Task, index: int, prefix: _Prefix, runs: Sequence[_CandidateRun]
) -> dict[Key, str]:
    """Add the loss of one sample to each candidate; those that fail, with the reason."""
    try:
        values = prefix.run(task.samples[index].inputs)
    except ActccError as error:
        return dict.fromkeys((found.key for found in runs), str(error))
    failed: dict[Key, str] = {}
    for found in runs:
        try:
            found.add(index, found.outputs(values), task.enough_loss)
        except ActccError as error:
            failed[found.key] = str(error)
    return failed


class _Prefix:
    """Runs the original network as far as the borders of a chunk, and to its outputs."""

    def __init__(self, graph: Graph, runs: Iterable[_CandidateRun]) -> None:
        borders = dict.fromkeys(
            name for found in runs for name in (*found.suffix.feeds, *found.feeds)
        )
        names = list(dict.fromkeys([*borders, *(tensor.name for tensor in graph.outputs)]))
        given = {tensor.name for tensor in graph.inputs}
        self._given = [name for name in names if name in given]
        constants = {name: graph.constant(name) for name in names if name not in given}
        self._constants = {name: value for name, value in constants.items() if value is not None}
        wanted = [name for name in constants if name not in self._constants]
        needed = ancestors(graph, wanted)
        self._session = session(extract(graph, needed, wanted, static=False)) if needed else None
        self._feeds = (
            {value.name for value in self._session.get_inputs()} if self._session else set()
        )

    def run(self, inputs: Mapping[str, Array]) -> Values:
        """The tensors at the borders, and all outputs, for one sample."""
        values = {**self._constants, **{name: inputs[name] for name in self._given}}
        if self._session is not None:
            feeds = {name: value for name, value in inputs.items() if name in self._feeds}
            values.update(run(self._session, feeds))
        return values


def _descendants(graph: Graph, tensors: Iterable[str]) -> set[str]:
    """Names of the nodes that depend on the tensors."""
    found: set[str] = set()
    frontier = [graph.tensor(name) for name in tensors]
    while frontier:
        for reader in graph.readers(frontier.pop()):
            if reader.name not in found:
                found.add(reader.name)
                frontier += [t for t in reader.outputs if not t.is_empty()]
    return found


def _written_by(graph: Graph, tensor: Any, nodes: set[str]) -> bool:
    writer = graph.producer(tensor)
    return writer is not None and writer.name in nodes
