"""Where a network is cut, and what of it is compared."""

from __future__ import annotations

import onnx
import pytest
from networks import Builder, residual_network

from actcc.graph import Graph
from actcc.repair.distill.matching import features, output_groups, shared_tensors
from actcc.repair.distill.spans import LEAST_LAYERS, blocks, segments, shares
from actcc.repair.layers import find_layers


def chain(layers: int, channels: int = 4) -> Graph:
    """Convolutions with ReLU, and a branch that keeps two tensors live inside each pair."""
    build = Builder()
    x = build.conv("images", 3, channels)
    for _ in range(layers - 1):
        x = build.conv(build.add("Relu", x), channels, channels)
    build.add("Identity", x, output="y")
    return Graph.load(build.model((1, 3, 8, 8), {"y": (1, channels, 8, 8)}))


def test_blocks_follow_each_other_and_hold_every_node_once():
    graph = chain(40)
    layers, _ = find_layers(graph)
    (whole,) = segments(graph, layers, ())

    found = blocks(graph, whole, layers)

    assert [name for block in found for name in block.nodes] == [n.name for n in graph.nodes()]
    assert sum(len(block.layers) for block in found) == 40
    assert min(len(block.layers) for block in found) >= LEAST_LAYERS


def test_a_block_ends_where_one_tensor_is_live_and_not_inside_a_residual():
    build = Builder()
    x = build.conv("images", 3, 4)
    for _ in range(8):
        inner = build.add("Relu", build.conv(x, 4, 4))
        x = build.add("Add", x, build.conv(inner, 4, 4))
    build.add("Identity", x, output="y")
    graph = Graph.load(build.model((1, 3, 8, 8), {"y": (1, 4, 8, 8)}))
    layers, _ = find_layers(graph)
    (whole,) = segments(graph, layers, ())

    found = blocks(graph, whole, layers)

    assert len(found) > 1
    assert all(len(block.reads) == 1 for block in found)


def test_a_small_network_is_one_block():
    graph = Graph.load(residual_network())
    layers, _ = find_layers(graph)
    (whole,) = segments(graph, layers, ())

    assert blocks(graph, whole, layers) == [whole]


def test_a_node_that_cannot_be_run_ends_a_segment():
    graph = chain(4)
    layers, _ = find_layers(graph)
    second = list(graph.nodes("Relu"))[1].name

    before, after = segments(graph, layers, {second})

    assert (len(before.layers), len(after.layers)) == (2, 2)
    assert second not in before.nodes + after.nodes
    assert after.reads == (graph.node(second).outputs[0].name,)


def test_features_are_what_layers_read_in_both_networks():
    original = chain(3)
    rewritten = original.copy()
    first = next(rewritten.nodes("Relu"))
    reader = rewritten.consumers(first.outputs[0])[0]
    rewritten.set_input(reader, 0, rewritten.insert("Abs", [first.outputs[0]]))
    layers, _ = find_layers(rewritten)

    found = features(list(layers.values()), shared_tensors(original, rewritten))

    other = list(original.nodes("Relu"))[1].outputs[0].name
    assert [feature.name for feature in found] == [other]


def test_outputs_are_traced_to_boxes_and_probabilities():
    model = onnx.parser.parse_model(
        """
        <ir_version: 8, opset_import: ["": 17]>
        detector (float[1,4,5] boxes, float[1,1,5] seen, float[1,3,5] class) => (float[1,5,8] y)
        {
            box = Neg(boxes)
            objectness = Sigmoid(seen)
            classes = Sigmoid(class)
            joined = Concat<axis = 1>(box, objectness, classes)
            y = Transpose<perm = [0, 2, 1]>(joined)
        }
        """
    )
    graph = Graph.load(model)

    (group,) = output_groups(graph, shared_tensors(graph, graph))

    assert [(leaf.name, leaf.kind) for leaf in group.leaves] == [
        ("box", "value"),
        ("objectness", "sigmoid"),
        ("classes", "sigmoid"),
    ]
    assert group.axis == 1


def test_an_output_of_another_shape_is_not_compared():
    original, wider = chain(2), chain(2, channels=5)

    assert output_groups(original, shared_tensors(original, wider)) == ()


def test_blocks_share_the_time_and_one_with_larger_activations_has_more_of_it():
    build = Builder()
    x = build.conv("images", 3, 4)
    for index in range(15):
        x = build.conv(build.add("Relu", x), 4, 4, stride=2 if index == 6 else 1)
    build.add("Identity", x, output="y")
    graph = Graph.load(build.model((1, 3, 8, 8), {"y": (1, 4, 4, 4)}))
    layers, _ = find_layers(graph)
    (whole,) = segments(graph, layers, ())

    first, second = shares(graph, blocks(graph, whole, layers))

    assert first + second == pytest.approx(1)
    assert first > 1.5 * second
