"""Graphs from ONNX text with given constants, and a check that a normalizing pass is exact."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import onnx

from actcc.graph import Graph, Interface, verify
from actcc.graph.compare import compare
from actcc.pass_api import NormalizingPass
from actcc.runtime import random_feeds


def graph_of(
    body: str,
    x: tuple[int, ...] = (1, 4, 6, 6),
    constants: Mapping[str, object] | None = None,
    outputs: str = "y",
    opset: int = 17,
    element: str = "float",
) -> Graph:
    """A network of one input x; an output is "y", or "int64:y" of another type than the input."""
    named = [entry.rpartition(":") for entry in outputs.split()]
    declared = ", ".join(f"{kind or element}[] {name}" for kind, _, name in named)
    sizes = ", ".join(map(str, x))
    text = (
        f'<ir_version: 8, opset_import: ["" : {opset}, "com.microsoft" : 1]> '
        f"network ({element}[{sizes}] x) => ({declared}) {{ {body} }}"
    )
    model = onnx.parser.parse_model(text)
    for info in model.graph.output:
        info.type.tensor_type.ClearField("shape")
    for name, values in (constants or {}).items():
        model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(values), name))
    return Graph.load(model)


def operators(graph: Graph) -> list[str]:
    return [node.op for node in graph.nodes() if node.op != "Constant"]


def rewritten(graph: Graph, by: NormalizingPass, tolerance: float = 1e-5) -> tuple[Graph, str]:
    """The pass's result, valid and equal without the runtime's optimisations, and its notes."""
    result, notes = by.run(graph.copy())
    verify(result, Interface.of(graph), [by.name])
    feeds = [random_feeds(graph, 3)]
    assert compare(graph, result, feeds, optimise=False).worst_relative <= tolerance
    return result, "; ".join(notes)


def assert_kept(graph: Graph, by: NormalizingPass, reason: str = "") -> None:
    before = operators(graph)
    result, notes = rewritten(graph, by)
    assert operators(result) == before
    assert reason in notes
    assert reason or not notes
