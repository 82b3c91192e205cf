"""The cheap verifier that runs after every pass (rule 1 of the design)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import onnx

from actcc.errors import ModelError, PassError
from actcc.graph.export import outer_reads
from actcc.graph.graph import Graph
from actcc.graph.shapes import TensorType


@dataclass(frozen=True)
class Interface:
    """What a pass may not change: names, order and types of inputs and outputs.

    Attributes:
        types: of the outputs.
        consistent: whether every node fits its inputs' types, which must stay so.
    """

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    types: tuple[TensorType | None, ...]
    consistent: bool = True

    @classmethod
    def of(cls, graph: Graph) -> Interface:
        """The interface of a graph."""
        names = tuple(t.name for t in graph.inputs), tuple(t.name for t in graph.outputs)
        types = tuple(graph.types.get(name) for name in names[1])
        return cls(*names, types, consistent=not graph.contradiction)


def verify(graph: Graph, expected: Interface, passes: Sequence[str]) -> None:
    """Check a graph after the last of `passes`.

    Node and tensor names are unique (SSA), nodes are sorted, no input dangles, shapes are still
    inferred, and the interface is `expected`.

    Raises:
        PassError: naming the pass and those that ran before it.
    """
    try:
        problem = _first_problem(graph.frame().graph)
        if problem:
            raise PassError(_blame(problem, passes))
        found = Interface.of(graph)
    except ModelError as error:
        raise PassError(_blame(str(error), passes)) from error
    if (found.inputs, found.outputs) != (expected.inputs, expected.outputs):
        raise PassError(_blame(f"inputs or outputs changed to {found}", passes))
    if expected.consistent and not found.consistent:
        raise PassError(_blame(f"shape inference failed: {graph.contradiction}", passes))
    for name, before, after in zip(expected.outputs, expected.types, found.types, strict=True):
        if before is not None and not _compatible(before, after):
            raise PassError(_blame(f"output '{name}' changed from {before} to {after}", passes))


def _compatible(before: TensorType, after: TensorType | None) -> bool:
    """Same element type, and no known dimension turned into another number or an unknown."""
    if after is None or before.element != after.element:
        return False
    if before.shape is None:
        return True
    if after.shape is None or len(before.shape) != len(after.shape):
        return False
    return all(
        not isinstance(b, int) or b == a for b, a in zip(before.shape, after.shape, strict=True)
    )


def _first_problem(graph: onnx.GraphProto) -> str | None:
    defined = {value.name for value in graph.input} | {t.name for t in graph.initializer}
    defined |= {tensor.values.name for tensor in graph.sparse_initializer}
    names: set[str] = set()
    for node in graph.node:
        if node.name in names:
            return f"two nodes are named '{node.name}'"
        names.add(node.name)
        for name in (*node.input, *outer_reads(node)):
            if name and name not in defined:
                return f"node '{node.name}' reads '{name}', which nothing before it writes"
        for name in node.output:
            if name and name in defined:
                return f"tensor '{name}' is written twice"
            defined.add(name)
    for value in graph.output:
        if value.name not in defined:
            return f"output '{value.name}' is written by no node"
    return None


def _blame(problem: str, passes: Sequence[str]) -> str:
    before = ", ".join(passes[:-1]) or "none"
    last = passes[-1] if passes else "loading"
    return f"pass '{last}' (after: {before}) left an invalid graph: {problem}; skip it by name"
