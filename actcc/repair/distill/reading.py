"""What the operator table reads of an ONNX node before it is run in PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch

from actcc.graph import Array, Graph, Node

Value: TypeAlias = "torch.Tensor | None"
Function: TypeAlias = Callable[[Sequence[Any]], Any]
"""Takes the node's inputs (None where one is left out), gives its outputs as one tensor or many."""


class UntranslatableError(Exception):
    """A node has no counterpart in the table; the message is the reason, without the node."""


@dataclass(frozen=True)
class Reading:
    """A node, with the attributes and constants that decide what it computes."""

    graph: Graph
    node: Node

    @property
    def opset(self) -> int:
        """Version of the default operator set."""
        return self.graph.opset

    def attribute(self, name: str, default: Any = None) -> Any:
        """An attribute, or `default` where the node has none."""
        return self.node.attrs.get(name, default)

    def text(self, name: str, default: str) -> str:
        """A string attribute, which files may hold as bytes."""
        value = self.attribute(name, default)
        return value.decode() if isinstance(value, bytes) else str(value)

    def has(self, index: int) -> bool:
        """Whether input `index` is given."""
        return index < len(self.node.inputs) and not self.node.inputs[index].is_empty()

    def constant(self, index: int) -> Array | None:
        """Values of input `index`; None where it is left out.

        Raises:
            UntranslatableError: the run decides it.
        """
        if not self.has(index):
            return None
        value = self.graph.constant(self.node.inputs[index])
        if value is None:
            raise UntranslatableError(f"input {index} of {self.node.op} is not constant")
        return value

    def numbers(self, name: str, index: int) -> list[int] | None:
        """Integers that older operator sets give as an attribute and newer ones as an input."""
        if name in self.node.attrs:
            return [int(value) for value in self.node.attrs[name]]
        found = self.constant(index)
        return None if found is None else [int(value) for value in found.reshape(-1)]

    def rank(self, index: int = 0) -> int:
        """Rank of input `index`.

        Raises:
            UntranslatableError: it is unknown.
        """
        shape = self.graph.shape(self.node.inputs[index])
        if shape is None:
            raise UntranslatableError(f"the rank of input {index} of {self.node.op} is unknown")
        return len(shape)

    def refuse_unless(self, allowed: bool, reason: str) -> None:
        """Raise UntranslatableError with that reason where it is not allowed."""
        if not allowed:
            raise UntranslatableError(f"{self.node.op} {reason}")
