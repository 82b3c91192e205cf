"""Estimates that run networks: what some tensors become when a site, or a plan, is rewritten.

The tensors may be the outputs, as for fidelity, or any others, as for scores of the network itself.
One site at a time, `actcc.accuracy.estimate` runs no layer twice that the site does not change.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from actcc.accuracy.estimate import (
    Estimates,
    Key,
    Task,
    Yardstick,
    merge,
    plan_chunks,
    run_task,
)
from actcc.calibration import SampleSet
from actcc.estimators.estimator import Subject
from actcc.graph import Array, Graph, ancestors, extract
from actcc.progress import Advance
from actcc.runtime import run, session
from actcc.tasks import map_tasks


@dataclass(frozen=True)
class MeasuredLoss:
    """Runs a network on samples and holds tensors of it against the original's; picklable.

    Attributes:
        observed: names of the tensors.
        yardstick: is given their values, sample by sample.
    """

    observed: tuple[str, ...]
    samples: SampleSet
    yardstick: Yardstick

    def __call__(self, rewritten: Graph) -> float:
        """See `actcc.estimators.estimator.NetworkLoss`."""
        tally = self.yardstick.tally()
        run_through(rewritten, self.observed, self.samples, tally)
        return tally.loss


class Counting(Protocol):
    """What samples are counted in."""

    def add(self, index: int, outputs: Mapping[str, Array]) -> None:
        """Count sample `index`; samples come in order."""


def run_through(
    graph: Graph, observed: Sequence[str], samples: SampleSet, counting: Counting
) -> None:
    """Run all samples, one after another, and count the observed tensors of each.

    Raises:
        ModelError: the network cannot be run or cut at the tensors.
    """
    runner = session(observing(graph, observed))
    wanted = {value.name for value in runner.get_inputs()}
    for index in range(len(samples)):
        feeds = {k: v for k, v in samples[index].inputs.items() if k in wanted}
        counting.add(index, run(runner, feeds))


def observing(graph: Graph, observed: Sequence[str]) -> Graph:
    """The part of a network that computes some tensors, which are its outputs.

    Raises:
        ModelError: the part has no static shapes, or control flow is in it.
    """
    if list(observed) == [tensor.name for tensor in graph.outputs]:
        return graph
    return extract(graph, ancestors(graph, observed), observed)


def single_losses(
    subject: Subject, measured: MeasuredLoss, title: str, *, repairs: bool = False
) -> Estimates:
    """What each approximate (site, function) loses alone, as the yardstick says.

    The loss is NaN where no observed tensor depends on the site.

    Args:
        repairs: whether the layers around a site are re-fitted to each candidate first.
    """
    graph = observing(subject.graph, measured.observed)
    upstream = {node.name for node in graph.nodes()}
    seen = [site for site in subject.sites if not upstream.isdisjoint(site.site.nodes)]
    chunks, failed = plan_chunks(subject.graph, seen, subject.passes, repairs=repairs)
    with (
        tempfile.TemporaryDirectory(prefix="actcc-estimates-") as folder,
        subject.progress.stage(title, len(chunks)) as advance,
    ):
        path = Path(folder) / "normalized.onnx"
        graph.save(path, external=subject.graph.external)
        tasks = [
            Task(
                path,
                graph.input_shapes,
                chunk,
                measured.samples,
                measured.yardstick,
                subject.enough_loss,
                repairs,
            )
            for chunk in chunks
        ]
        found = merge(_run_or_recall(subject, title, tasks, advance))
    wanted = [key for chunk in chunks for work in chunk for key in work.keys]
    late = late_keys(subject, wanted, found)
    behind = [site for site in subject.sites if upstream.isdisjoint(site.site.nodes)]
    unseen = {(s.id, c.computes): math.nan for s in behind for c in s.candidates if not c.exact}
    return Estimates({**unseen, **found.losses}, {**late, **failed, **found.failed})


def _run_or_recall(
    subject: Subject, title: str, tasks: Sequence[Task], advance: Advance
) -> list[Estimates]:
    """Estimates of all tasks; those that an interrupted run has made are not made again."""
    journal = subject.journal
    names = [f"{title} {[work.keys for work in task.work]}" for task in tasks]
    recalled = [Estimates.from_json(journal.known[n]) for n in names if n in journal.known]
    for _ in recalled:
        advance()
    left = [
        (name, task) for name, task in zip(names, tasks, strict=True) if name not in journal.known
    ]

    def keep(index: int, found: Estimates) -> None:
        journal.record(left[index][0], found.to_json())

    made = map_tasks(
        subject.executor,
        run_task,
        [task for _, task in left],
        advance,
        deadline=subject.deadline,
        finished=keep,
    )
    return [*recalled, *made]


def late_keys(subject: Subject, wanted: Sequence[Key], found: Estimates) -> dict[Key, str]:
    """What was not estimated by the deadline, and that as the reason; said once."""
    late = [key for key in wanted if key not in found.losses and key not in found.failed]
    if late:
        subject.progress.note(
            f"time limit: {len(late)} of {len(wanted)} candidates were not estimated and are not "
            "offered; raise --time-limit"
        )
    return dict.fromkeys(late, "the time limit came first; raise --time-limit")
