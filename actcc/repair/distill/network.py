"""A graph that runs in PyTorch, any part of it, with weights that the caller may replace."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import torch

from actcc.graph import Array, Graph, Node
from actcc.graph.operators import ONNX_DOMAINS
from actcc.repair.distill.arithmetic import ARITHMETIC
from actcc.repair.distill.movement import MOVEMENT
from actcc.repair.distill.reading import Function, Reading, UntranslatableError
from actcc.repair.distill.spatial import SPATIAL

Tensors = dict[str, torch.Tensor]

OPERATORS: Mapping[str, Callable[[Reading], Function]] = MappingProxyType(
    {**ARITHMETIC, **MOVEMENT, **SPATIAL}
)


@dataclass(frozen=True)
class Step:
    """One node.

    Attributes:
        reads: names; empty where an input is left out.
    """

    name: str
    op: str
    function: Function
    reads: tuple[str, ...]
    writes: tuple[str, ...]


@dataclass(frozen=True)
class TorchNetwork:
    """A graph as PyTorch functions in topological order.

    Attributes:
        steps: one a node that could be translated.
        constants: by name, floats as float32.
        refused: why a node could not be translated, by its name.
    """

    steps: tuple[Step, ...]
    constants: Mapping[str, torch.Tensor]
    refused: Mapping[str, str]

    @classmethod
    def of(cls, graph: Graph, device: torch.device) -> TorchNetwork:
        """Translate what the operator table knows."""
        steps: list[Step] = []
        constants: Tensors = {}
        refused: dict[str, str] = {}
        for node in graph.nodes():
            for tensor in node.inputs:
                if not tensor.is_empty() and tensor.name not in constants:
                    value = graph.constant(tensor)
                    if value is not None:
                        constants[tensor.name] = to_torch(value, device)
            if node.op == "Constant":
                continue
            try:
                steps.append(_step(graph, node))
            except UntranslatableError as error:
                refused[node.name] = str(error)
        return cls(tuple(steps), constants, refused)

    def between(self, given: Collection[str], wanted: Collection[str]) -> tuple[Step, ...]:
        """The steps that lead from the given tensors to the wanted ones."""
        needed = set(wanted) - set(given)
        chosen: list[Step] = []
        for step in reversed(self.steps):
            if needed.intersection(step.writes):
                chosen.append(step)
                needed.update(name for name in step.reads if name not in given)
        return tuple(reversed(chosen))


def execute(
    steps: Sequence[Step],
    constants: Mapping[str, torch.Tensor],
    weights: Mapping[str, torch.Tensor],
    given: Mapping[str, torch.Tensor],
    wanted: Collection[str],
) -> Tensors:
    """Run steps; a tensor is let go of after its last reader.

    Args:
        weights: take the place of constants.
    """
    last = {name: index for index, step in enumerate(steps) for name in step.reads}
    known: Tensors = dict(given)
    for index, step in enumerate(steps):
        values = [_value(name, known, weights, constants) for name in step.reads]
        results = step.function(values)
        results = [results] if isinstance(results, torch.Tensor) else results
        known.update(zip(step.writes, results, strict=False))
        for name in step.reads:
            if last[name] == index and name not in wanted:
                known.pop(name, None)
    return {name: known[name] for name in wanted}


def _value(name: str, *sources: Mapping[str, torch.Tensor]) -> torch.Tensor | None:
    if not name:
        return None
    return next(source[name] for source in sources if name in source)


def _step(graph: Graph, node: Node) -> Step:
    factory = OPERATORS.get(node.op)
    if factory is None or node.domain not in ONNX_DOMAINS:
        raise UntranslatableError(f"{node.op} is not in the table of operators")
    reads = tuple("" if tensor.is_empty() else str(tensor.name) for tensor in node.inputs)
    writes = tuple(str(tensor.name) for tensor in node.outputs)
    return Step(node.name, node.op, factory(Reading(graph, node)), reads, writes)


def to_torch(values: Array, device: torch.device) -> torch.Tensor:
    """A tensor; floats of any width become float32."""
    if values.dtype.kind == "f" or values.dtype.name == "bfloat16":
        values = values.astype(np.float32, copy=False)
    owned = values if values.flags.writeable else values.copy()
    return torch.from_numpy(np.ascontiguousarray(owned)).to(device)
