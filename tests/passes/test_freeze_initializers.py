"""Initializers that are listed as inputs."""

from __future__ import annotations

import numpy as np
import onnx

from actcc.graph import Graph, Interface, verify
from actcc.graph.compare import compare
from actcc.passes.freeze_initializers import FreezeInitializers
from actcc.runtime import random_feeds


def net(inputs: str) -> Graph:
    return Graph.load(
        onnx.parser.parse_model(
            f"""
            <ir_version: 3, opset_import: ["" : 9]>
            net ({inputs}) => (float[2] y) <float[2] w = {{1.0, 2.0}}, float[2] b = {{3.0, 4.0}}>
            {{ a = Mul(x, w)  y = Add(a, b) }}
            """
        )
    )


def test_listed_initializers_become_constants_and_are_counted() -> None:
    graph = net("float[2] x, float[2] w, float[2] b")
    result, notes = FreezeInitializers().run(graph.copy())
    verify(result, Interface.of(graph), ["freeze-initializers"])
    assert notes == ["2 initializers that were listed as inputs are constants now"]
    np.testing.assert_array_equal(result.constant("w"), [1, 2])
    assert [i.name for i in result.to_proto().graph.input] == ["x"]
    assert compare(graph, result, [random_feeds(graph, 0)]).agrees(0)


def test_a_model_without_them_is_left_alone() -> None:
    _, notes = FreezeInitializers().run(net("float[2] x"))
    assert notes == []
