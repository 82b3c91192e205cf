"""Live memory of activations."""

from __future__ import annotations

import onnx
import pytest

from actcc.errors import ModelError
from actcc.graph import Graph
from actcc.memory import compile_time_tensors, peak_memory


def load(body: str, inputs: str = "float[1,4,8,8] x", outputs: str = "float[1,4,8,8] y") -> Graph:
    text = f'<ir_version: 8, opset_import: ["" : 17]> g ({inputs}) => ({outputs}) {body}'
    model = onnx.parser.parse_model(text)
    for index, node in enumerate(model.graph.node):
        node.name = f"{node.op_type}{index}"
    return Graph.load(model)


MAP = 4 * 8 * 8  # elements of x


def test_a_step_holds_its_input_and_its_output() -> None:
    profile = peak_memory(load("{ y = MaxPool<kernel_shape = [1, 1]>(x) }"))
    assert profile.steps == (("MaxPool0", 2 * MAP * 4),)
    assert profile.peak_bytes == 2 * MAP * 4


def test_elements_have_the_size_of_the_device() -> None:
    graph = load("{ y = MaxPool<kernel_shape = [1, 1]>(x) }")
    assert peak_memory(graph, 1).peak_bytes == 2 * MAP
    assert peak_memory(graph, 0.5).peak_bytes == MAP


def test_an_element_wise_step_writes_over_an_input_that_dies() -> None:
    assert peak_memory(load("{ y = HardSwish(x) }"), 1).peak_bytes == MAP


def test_a_spelled_out_silu_holds_one_tensor_more_than_a_hard_swish() -> None:
    silu = peak_memory(load("{ s = Sigmoid(x)  y = Mul(x, s) }"), 1)
    hard_swish = peak_memory(load("{ y = HardSwish(x) }"), 1)
    assert silu.peak_bytes - hard_swish.peak_bytes == MAP


def test_an_input_that_is_read_later_stays_alive() -> None:
    body = "{ a = Relu(x)  b = MaxPool<kernel_shape = [1, 1]>(a)  y = Add(x, b) }"
    sizes = [size for _, size in peak_memory(load(body), 1).steps]
    assert sizes == [2 * MAP, 3 * MAP, 2 * MAP]


def test_a_graph_output_stays_alive_to_the_end() -> None:
    body = "{ y = Relu(x)  a = MaxPool<kernel_shape = [2, 2]>(y)  z = Relu(a) }"
    graph = load(body, outputs="float[1,4,8,8] y, float[1,4,7,7] z")
    small = 4 * 7 * 7
    assert [s for _, s in peak_memory(graph, 1).steps] == [MAP, MAP + small, MAP + small]


def test_an_input_of_another_size_is_not_written_over() -> None:
    graph = load("{ y = Add(x, b) }", inputs="float[1,4,8,8] x, float[4,1,1] b")
    assert peak_memory(graph, 1).peak_bytes == MAP + 4


def test_views_share_the_storage_of_their_input() -> None:
    body = "<int64[2] s = {4, 64}> { a = Reshape(x, s)  b = Identity(a)  y = Softmax(b) }"
    sizes = [size for _, size in peak_memory(load(body, outputs="float[4,64] y"), 1).steps]
    assert sizes == [MAP, MAP, 2 * MAP]


def test_a_view_keeps_its_input_alive() -> None:
    body = """<int64[2] s = {4, 64}> {
        a = Reshape(x, s)  b = MaxPool<kernel_shape = [1, 1]>(x)  c = Relu(b)
        d = Reshape(c, s)  y = Mul(a, d) }"""
    sizes = [size for _, size in peak_memory(load(body, outputs="float[4,64] y"), 1).steps]
    assert sizes == [MAP, 2 * MAP, 2 * MAP, 2 * MAP, 2 * MAP]


def test_a_change_of_format_is_a_tensor_of_its_own_unless_the_device_has_one_format() -> None:
    graph = load("{ h = Cast<to = 10>(x)  y = Cast<to = 1>(h) }")
    assert peak_memory(graph).peak_bytes == MAP * 4 + MAP * 2
    assert peak_memory(graph, 1).peak_bytes == MAP


def test_weights_and_what_follows_from_them_do_not_count() -> None:
    body = """<float[4,4,1,1] w = {1,0,0,0, 0,1,0,0, 0,0,1,0, 0,0,0,1}> {
        v = Relu(w)  y = Conv(x, v) }"""
    graph = load(body)
    assert compile_time_tensors(graph) == {"v"}
    assert peak_memory(graph, 1).peak_bytes == 2 * MAP


def test_shapes_are_known_beforehand() -> None:
    graph = load("{ s = Shape(x)  y = Reshape(x, s) }")
    assert compile_time_tensors(graph) == {"s"}


def test_nodes_that_run_as_one_do_not_write_what_only_they_read() -> None:
    body = """<float[8,4,1,1] w = {1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1,1}>
        { a = Conv(x, w)  y = MaxPool<kernel_shape = [2, 2], strides = [2, 2]>(a) }"""
    graph = load(body, outputs="float[1,8,4,4] y")
    small = 8 * 4 * 4
    assert peak_memory(graph, 1).peak_bytes == MAP + 2 * MAP
    fused = peak_memory(graph, 1, [("Conv0", "MaxPool1")])
    assert fused.steps == (("Conv0", MAP + small), ("MaxPool1", MAP + small))


def test_a_tensor_that_is_read_outside_the_group_is_written() -> None:
    body = "{ a = MaxPool<kernel_shape = [1, 1]>(x)  b = Relu(a)  y = Add(a, b) }"
    fused = peak_memory(load(body), 1, [("MaxPool0", "Relu1")])
    assert dict(fused.steps)["MaxPool0"] == 3 * MAP


def test_a_group_waits_for_all_that_it_reads() -> None:
    body = """{ a = MaxPool<kernel_shape = [1, 1]>(x)  b = MaxPool<kernel_shape = [1, 1]>(x)
        y = Add(a, b) }"""
    fused = peak_memory(load(body), 1, [("MaxPool0", "Add2")])
    assert [name for name, _ in fused.steps] == ["MaxPool1", "MaxPool0", "Add2"]


def test_a_group_with_another_node_in_between_is_refused() -> None:
    body = "{ a = Relu(x)  b = Tanh(a)  y = Add(a, b) }"
    with pytest.raises(ModelError, match=r"Relu0, Add2 cannot run as one"):
        peak_memory(load(body), 1, [("Relu0", "Add2")])


def test_scratch_counts_while_its_node_runs() -> None:
    graph = load("{ a = Relu(x)  y = Tanh(a) }")
    assert peak_memory(graph, 1, scratch={"Tanh1": 100}).steps == (
        ("Relu0", MAP),
        ("Tanh1", MAP + 100),
    )


def test_a_result_that_nothing_reads_lives_for_one_step() -> None:
    graph = load(
        "{ a, m = MaxPool<kernel_shape = [1, 1]>(x)  y = MaxPool<kernel_shape = [1, 1]>(a) }"
    )
    assert [size for _, size in peak_memory(graph, 1).steps] == [3 * MAP, 2 * MAP]


def test_a_subgraph_keeps_what_it_reads_alive() -> None:
    body = """{
        c = MaxPool<kernel_shape = [1, 1]>(x)
        y = If<then_branch = t () => (float[1,4,8,8] p) { p = Add(x, c) },
               else_branch = e () => (float[1,4,8,8] q) { q = Relu(c) }>(k) }"""
    graph = load(body, inputs="float[1,4,8,8] x, bool k")
    assert dict(peak_memory(graph, 1).steps)["If1"] == 3 * MAP + 1


def test_a_graph_without_nodes_needs_nothing() -> None:
    graph = load("{ }", inputs="float[2] x", outputs="float[2] x")
    assert peak_memory(graph).peak_bytes == 0


def test_a_tensor_without_a_static_shape_is_named() -> None:
    graph = load("{ y = Relu(x) }", inputs="float[1,n] x", outputs="float[1,n] y")
    with pytest.raises(ModelError, match=r"tensor 'x' has no static shape.*--shape"):
        peak_memory(graph)
