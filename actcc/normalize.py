"""The first stage: exact rewrites that offer no choice, so that sites are found in one spelling."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from actcc.errors import ActccError, ModelError
from actcc.graph import Array, Graph, Interface, verify
from actcc.graph.compare import Outputs, compare_outputs, rounding_tolerance
from actcc.graph.files import EXTERNAL_DATA_THRESHOLD
from actcc.pass_api import NormalizingPass
from actcc.runtime import random_feeds, run, session

_NAME = "normalize"
_TOLERANCE = 1e-5
_SEED = 0

Note = tuple[str, str]


@dataclass(frozen=True)
class Normalized:
    """A normalized graph.

    Attributes:
        graph: computes what the original computes, with the same inputs and outputs.
        notes: what was done, and what was not and why: (name of the pass, one line).
    """

    graph: Graph
    notes: tuple[Note, ...]


def normalize(
    graph: Graph,
    passes: Sequence[NormalizingPass] | None = None,
    skip: Collection[str] = (),
    feeds: Sequence[Mapping[str, Array]] | None = None,
) -> Normalized:
    """Run the normalizing passes in order; the given graph stays as it is.

    A pass that raises, or leaves a graph that is not valid, is left out with a note. At the end the
    outputs are compared with the original's in ONNX Runtime; if they differ, the first pass behind
    which they do is left out too. They differ if the difference, relative to an output's largest
    magnitude, exceeds both 1e-5 and eight times what the runtime's own optimisations change (of
    which 1e-3 at most counts). A model that cannot be run, whose outputs are random, or that
    is too large for one protobuf message is not compared, and a note says so.

    Passes see the shapes that the model declares, not those of `--shape`, so that the result holds
    for every shape.

    Args:
        passes: all built-in ones if left out.
        skip: names of passes to leave out.
        feeds: inputs for the comparison; random ones if left out.

    Raises:
        ModelError: the given graph itself contradicts itself.
    """
    if passes is None:
        from actcc.passes import NORMALIZING

        passes = [cls() for cls in NORMALIZING]
    chosen = [found for found in passes if found.name not in skip]
    notes: list[Note] = [
        (found.name, "left out: skipped by name") for found in passes if found.name in skip
    ]
    original = graph.without_input_shapes()
    steps = _run_passes(original, chosen)
    changed = any(step.graph is not None for step in steps)
    judge = _Judge.of(graph, feeds) if changed else None
    if isinstance(judge, str):
        notes.append((_NAME, f"not compared with the original: {judge}"))
    elif judge is not None:
        steps = _without_wrong_passes(original, steps, judge)
    notes += [(step.by.name, line) for step in steps for line in step.notes]
    return Normalized(_bound(_last(original, steps), graph), tuple(notes))


@dataclass(frozen=True)
class _Step:
    """What one pass did; no graph where it failed or changed nothing."""

    by: NormalizingPass
    graph: Graph | None
    notes: tuple[str, ...]


def _last(original: Graph, steps: Sequence[_Step]) -> Graph:
    return next((step.graph for step in reversed(steps) if step.graph is not None), original)


def _bound(graph: Graph, like: Graph) -> Graph:
    return graph.with_input_shapes(like.input_shapes) if like.input_shapes else graph


def _run_passes(original: Graph, passes: Sequence[NormalizingPass]) -> list[_Step]:
    interface = Interface.of(original)
    current = original
    ran: list[str] = []
    steps: list[_Step] = []
    for found in passes:
        ran.append(found.name)
        try:
            rewritten, lines = found.run(current.copy())
            verify(rewritten, interface, ran)
        except ActccError as error:
            steps.append(_Step(found, None, (f"left out: {error}",)))
            ran.pop()
            continue
        except Exception as error:  # whatever a pass raises, the model is better off without it
            reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            steps.append(_Step(found, None, (f"left out: it failed ({reason})",)))
            ran.pop()
            continue
        changed = not _same(current, rewritten)
        current = rewritten if changed else current
        steps.append(_Step(found, rewritten if changed else None, tuple(lines)))
    return steps


def _same(before: Graph, after: Graph) -> bool:
    """Whether a pass changed nothing; weights are never edited, they only get new names."""
    models = before.frame(), after.frame()
    frames = [
        ({t.name for t in m.graph.initializer}, {i.name for i in m.graph.input}) for m in models
    ]
    return frames[0] == frames[1] and list(models[0].graph.node) == list(models[1].graph.node)


def _without_wrong_passes(original: Graph, steps: list[_Step], judge: _Judge) -> list[_Step]:
    """Steps after which the outputs are still the original's."""
    if judge.accepts(_last(original, steps)):
        return steps
    for index, step in enumerate(steps):
        if step.graph is None or judge.accepts(step.graph):
            continue
        wrong = _Step(step.by, None, ("left out: with it the outputs differ from the original's",))
        before = steps[:index]
        rest = _run_passes(_last(original, before), [later.by for later in steps[index + 1 :]])
        return _without_wrong_passes(original, [*before, wrong, *rest], judge)
    return steps


@dataclass(frozen=True)
class _Judge:
    """Compares graphs with the original's outputs, without the runtime's own optimisations."""

    original: Graph
    feeds: tuple[Mapping[str, Array], ...]
    outputs: tuple[Outputs, ...]
    tolerance: float

    @classmethod
    def of(cls, original: Graph, feeds: Sequence[Mapping[str, Array]] | None) -> _Judge | str:
        """A judge, or why there can be none."""
        if original.weight_bytes > EXTERNAL_DATA_THRESHOLD:
            return "it would have to be held in memory four times"
        try:
            samples = tuple(feeds) if feeds else (random_feeds(original, _SEED),)
            plain, optimised = (session(original, optimise=level) for level in (False, True))
            outputs = tuple(run(plain, sample) for sample in samples)
            again = tuple(run(plain, sample) for sample in samples)
            fused = tuple(run(optimised, sample) for sample in samples)
        except ModelError as error:
            return str(error)
        if compare_outputs(outputs, again).worst_relative > 0:
            return "it gives other outputs each time it is run"
        tolerance = max(_TOLERANCE, rounding_tolerance(outputs, fused))
        return cls(original, samples, outputs, tolerance)

    def accepts(self, graph: Graph) -> bool:
        """Whether the graph runs and its outputs agree."""
        try:
            rewritten = session(_bound(graph, self.original), optimise=False)
            found = [run(rewritten, sample) for sample in self.feeds]
            return compare_outputs(self.outputs, found).agrees(self.tolerance)
        except ModelError:
            return False
