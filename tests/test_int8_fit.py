"""Weights fitted to feature maps in int8."""

from __future__ import annotations

import numpy as np
import pytest
from networks import Builder
from onnx import TensorProto, numpy_helper

from actcc.calibration import load_samples
from actcc.graph import Graph
from actcc.int8_fit import fit_to_int8
from actcc.repair import RepairMethod
from actcc.runtime import run, session

SHAPE = (1, 8, 12, 12)


def network(opset: int = 17) -> Graph:
    build = Builder(opset=opset)
    first = build.add("Relu", build.conv("images", 8, 8))
    second = build.add("Relu", build.conv(first, 8, 8))
    build.add("Add", build.conv(second, 8, 8), first, output="y")
    return Graph.load(build.model(SHAPE, {"y": SHAPE}))


def samples(graph: Graph):
    values = np.random.default_rng(0).standard_normal((8, *SHAPE[1:])).astype(np.float32)
    return load_samples({"images": values}, graph)


def relus(graph: Graph) -> list[str]:
    return [node.outputs[0].name for node in graph.nodes("Relu")]


def rounded_output(graph: Graph, step: float, values: np.ndarray) -> np.ndarray:
    """The output with every ReLU rounded to a multiple of a step, as floats."""
    twin = graph.copy()
    for name in relus(twin):
        readers = twin.consumers(name)
        tensor = twin.tensor(name)
        scale = np.float32(step).reshape(())
        even = twin.insert("Round", [twin.insert("Div", [name, scale], like=name)], like=name)
        back = twin.insert("Mul", [even, scale], like=name)
        for node in readers:
            for index, operand in enumerate(list(node.inputs)):
                if operand is tensor:
                    twin.set_input(node, index, back)
    return run(session(twin), {"images": values})["y"]


def test_a_coarse_step_costs_less_with_fitted_weights() -> None:
    graph, step = network(), 1.5
    data = samples(graph)
    fitted = fit_to_int8(graph, dict.fromkeys(relus(graph), (step, 0)), data, RepairMethod())
    values = np.random.default_rng(9).standard_normal(SHAPE).astype(np.float32)
    wanted = run(session(graph), {"images": values})["y"]
    errors = [
        float(np.square(rounded_output(g, step, values) - wanted).mean()) for g in (graph, fitted)
    ]
    assert errors[1] < 0.8 * errors[0]


def test_nodes_and_names_stay() -> None:
    graph = network()
    steps = dict.fromkeys(relus(graph), (0.1, 0))
    fitted = fit_to_int8(graph, steps, samples(graph), RepairMethod())
    assert [(n.op, n.name) for n in fitted.nodes()] == [(n.op, n.name) for n in graph.nodes()]
    assert [t.name for t in fitted.outputs] == ["y"]


@pytest.mark.parametrize("opset", [9])
def test_an_operator_set_without_rounding_is_left_alone(opset: int) -> None:
    graph = network(opset)
    steps = dict.fromkeys(relus(graph), (0.1, 0))
    assert fit_to_int8(graph, steps, samples(graph), RepairMethod()) is graph


@pytest.mark.parametrize("step", [0.02, 0.1])
def test_weights_stay_where_held_out_samples_gain_nothing(step: float) -> None:
    graph = network()
    steps = dict.fromkeys(relus(graph), (step, 0))
    assert fit_to_int8(graph, steps, samples(graph), RepairMethod()) is graph


def test_one_sample_is_not_enough() -> None:
    graph = network()
    steps = dict.fromkeys(relus(graph), (1.5, 0))
    assert fit_to_int8(graph, steps, samples(graph)[:1], RepairMethod()) is graph


@pytest.mark.parametrize("opset", [10, 12])
def test_the_oldest_operator_sets_with_rounding_are_fitted(opset: int) -> None:
    graph = network(opset)
    steps = dict.fromkeys(relus(graph), (1.5, 0))
    fitted = fit_to_int8(graph, steps, samples(graph), RepairMethod())
    assert [n.name for n in fitted.nodes()] == [n.name for n in graph.nodes()]
    assert fitted is not graph


def test_a_network_in_float16_is_left_alone() -> None:
    build = Builder()
    build.add("Relu", build.conv("images", 8, 8), output="y")
    model = build.model(SHAPE, {"y": SHAPE})
    for weight in model.graph.initializer:
        values = numpy_helper.to_array(weight).astype(np.float16)
        weight.CopyFrom(numpy_helper.from_array(values, weight.name))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = TensorProto.FLOAT16
    graph = Graph.load(model)
    values = np.zeros((4, *SHAPE[1:]), np.float16)
    data = load_samples({"images": values}, graph)
    assert fit_to_int8(graph, {"images": (0.1, 0)}, data, RepairMethod()) is graph
