"""Small graphs to edit and to ask."""

from __future__ import annotations

import numpy as np
import onnx

from actcc.graph import Graph, Interface, verify

ONE = np.ones(4, np.float32)


def chain(**changes: str) -> Graph:
    """x → Relu → Neg → Abs → y, with a weight."""
    text = """
        <ir_version: 8, opset_import: ["" : 17]>
        net (float[4] x) => (float[4] y) <float[4] w = {1.0, 2.0, 3.0, 4.0}>
        { [relu] a = Relu(x)  [mul] b = Mul(a, w)  [neg] c = Neg(b)  [abs] y = Abs(c) }
    """
    for old, new in changes.items():
        text = text.replace(old, new)
    return Graph.load(onnx.parser.parse_model(text))


def branching(outer: str) -> Graph:
    """A graph whose If reads the tensor `outer` from inside its branches."""
    return Graph.load(
        onnx.parser.parse_model(
            f"""
            <ir_version: 8, opset_import: ["" : 17]>
            net (float[4] x, bool c) => (float[4] y) {{
              [relu] a = Relu(x)
              [copy] b = Identity(a)
              [if] y = If(c) <
                then_branch = then_graph () => (float[4] t) {{ t = Neg({outer}) }},
                else_branch = else_graph () => (float[4] e) {{ e = Abs({outer}) }}
              >
            }}
            """
        )
    )


def checked(graph: Graph, like: Graph) -> Graph:
    verify(graph, Interface.of(like), ["test"])
    onnx.checker.check_model(graph.to_proto(), full_check=True)
    return graph


def operators(graph: Graph) -> list[str]:
    return [node.op for node in graph.nodes()]
