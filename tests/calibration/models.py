"""Small models whose inputs the tests of this folder feed."""

from __future__ import annotations

from onnx import TensorProto, helper

from actcc.graph import Graph


def model_with(
    *inputs: tuple[str, list[int | str]], element: int = TensorProto.FLOAT
) -> Graph:
    """A model that passes each of its inputs on."""
    nodes = [helper.make_node("Identity", [name], [f"{name}_out"]) for name, _ in inputs]
    values = [helper.make_tensor_value_info(name, element, shape) for name, shape in inputs]
    results = [
        helper.make_tensor_value_info(f"{name}_out", element, shape) for name, shape in inputs
    ]
    graph = helper.make_graph(nodes, "passes_on", values, results)
    opset = [helper.make_opsetid("", 17)]
    return Graph.load(helper.make_model(graph, opset_imports=opset, ir_version=8))
