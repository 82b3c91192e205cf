"""Edits of initializers: names, sharing, freezing."""

from __future__ import annotations

import numpy as np
from small_graphs import ONE, branching, chain

from actcc.graph import Interface, verify
from actcc.runtime import run, session


def test_a_new_initializer_never_overwrites_one() -> None:
    graph = chain()
    new = graph.initializer("w", np.zeros(4, np.float32))
    assert new.name == "w_1"
    graph.set_input(graph.node("mul"), 1, new)
    newer = graph.initializer("w", np.ones(4, np.float32))
    assert newer.name == "w_2"


def test_an_initializer_takes_no_name_of_a_node_or_of_a_tensor_in_a_subgraph() -> None:
    graph = branching("a")
    taken = {graph.initializer(name, ONE).name for name in ("relu", "a", "t", "x", "y")}
    assert taken == {"relu_1", "a_1", "t_1", "x_1", "y_1"}


def test_changing_a_shared_weight_for_one_node_leaves_the_other_as_it_is() -> None:
    graph = chain(**{"Neg(b)": "Mul(b, w)"})
    graph.set_input(graph.node("mul"), 1, graph.initializer("w", np.zeros(4, np.float32)))
    np.testing.assert_array_equal(graph.constant("w"), [1, 2, 3, 4])
    assert [t.name for t in graph.node("neg").inputs] == ["b", "w"]


def test_a_copy_shares_weights_but_not_their_replacement() -> None:
    graph = chain()
    twin = graph.copy()
    twin.set_input(twin.node("mul"), 1, np.zeros(4, np.float32))
    np.testing.assert_array_equal(run(session(graph), {"x": ONE})["y"], [1, 2, 3, 4])
    np.testing.assert_array_equal(run(session(twin), {"x": ONE})["y"], [0, 0, 0, 0])


def test_freezing_turns_overridable_initializers_into_constants() -> None:
    graph = chain(**{"(float[4] x)": "(float[4] x, float[4] w)", "ir_version: 8": "ir_version: 3"})
    before = Interface.of(graph)
    assert graph.constant("w") is None
    assert graph.freeze_initializers() == ["w"]
    np.testing.assert_array_equal(graph.constant("w"), [1, 2, 3, 4])
    verify(graph, before, ["test"])
    result = graph.to_proto()
    assert [i.name for i in result.graph.input] == ["x"]
    assert result.ir_version == 4
