"""What a span is fed with and fitted to: the activations of both networks under ONNX Runtime."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from actcc.graph import Array, Graph, extract
from actcc.repair.distill.network import Tensors, to_torch
from actcc.runtime import run, session


class Tap:
    """Reads tensors inside a network."""

    def __init__(self, graph: Graph, names: Collection[str]) -> None:
        fed = {str(tensor.name) for tensor in graph.inputs}
        self._fed = [name for name in names if name in fed]
        self._names = [name for name in names if name not in fed]
        self._session: Any = None
        if self._names:
            nodes = _ancestors(graph, self._names)
            part = extract(graph, nodes, self._names, static=False)
            self._reads = [str(tensor.name) for tensor in part.inputs]
            self._session = session(part)

    def read(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """The tensors by name."""
        found = {name: feeds[name] for name in self._fed}
        if self._session is not None:
            found.update(run(self._session, {name: feeds[name] for name in self._reads}))
        return found


@dataclass(frozen=True)
class Batch:
    """Some samples.

    Attributes:
        given: what enters the span, a dict a chunk; chunks are run one after another.
        targets: the original's tensors, likewise.
    """

    given: tuple[Tensors, ...]
    targets: tuple[Tensors, ...]


@dataclass(frozen=True)
class Feeder:
    """Makes batches for a span.

    Attributes:
        joins: whether samples may be run together, along the first axis.
    """

    before: Tap
    original: Tap
    device: torch.device
    joins: bool = False

    def batch(self, samples: Sequence[Mapping[str, Array]]) -> Batch:
        """The samples, in one chunk where they may be joined."""
        given = [self.before.read(sample) for sample in samples]
        targets = [self.original.read(sample) for sample in samples]
        return Batch(self._chunks(given), self._chunks(targets))

    def _chunks(self, tensors: Sequence[Mapping[str, Array]]) -> tuple[Tensors, ...]:
        rows = [
            {name: to_torch(value, self.device) for name, value in entry.items()}
            for entry in tensors
        ]
        if not self.joins or len(rows) < 2:
            return tuple({n: _joined([value]) for n, value in entry.items()} for entry in rows)
        return ({name: _joined([entry[name] for entry in rows]) for name in rows[0]},)


def _joined(values: Sequence[torch.Tensor]) -> torch.Tensor:
    """Along the first axis; images with their channels last, which convolutions are faster with."""
    first = values[0]
    if first.ndim != 4:
        return first if len(values) == 1 else torch.cat(list(values))
    shape = (sum(value.shape[0] for value in values), *first.shape[1:])
    joined = torch.empty(
        shape, dtype=first.dtype, device=first.device, memory_format=torch.channels_last
    )
    row = 0
    for value in values:
        joined[row : row + value.shape[0]].copy_(value)
        row += value.shape[0]
    return joined


def _ancestors(graph: Graph, names: Collection[str]) -> list[str]:
    """Nodes that the tensors are computed by."""
    wanted = set(names)
    found: list[str] = []
    for node in reversed(list(graph.nodes())):
        if any(tensor.name in wanted for tensor in node.outputs):
            found.append(str(node.name))
            wanted.update(str(tensor.name) for tensor in graph.reads(node))
    return found[::-1]
