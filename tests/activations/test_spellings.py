"""Every spelling is written, recognised as the same function again, and has its values."""

from __future__ import annotations

import numpy as np
import onnx
import pytest

from actcc.activations import Activation, find_activations
from actcc.activations.functions import NAMES
from actcc.activations.operators import CONTRIB
from actcc.activations.spellings import spellings_of, write
from actcc.errors import PassError
from actcc.graph import Graph, Interface, verify
from actcc.site import Site

ACTIVATIONS = [
    *(Activation(name) for name in NAMES if name not in ("Clip", "PRelu", "Identity")),
    Activation.of("Clip", min=-1.0, max=1.0),
    Activation.of("Clip", min=0.5),
    Activation.of("Clip", max=2.0),
    Activation.of("LeakyRelu", alpha=0.1),
    Activation.of("Celu", alpha=2.0),
    Activation.of("HardSigmoid", alpha=1 / 6, beta=0.5),
    Activation.of("HardSigmoid", alpha=0.25, beta=0.0),
]
WAYS = [(activation, way) for activation in ACTIVATIONS for way in spellings_of(activation)]
IDS = [f"{activation} as {way.name}" for activation, way in WAYS]


def written(activation, way, element, opset, build_model):
    """`y = Tanh(x)` with the activation in the place of Tanh."""
    dtype = {"float32": "float", "float64": "double"}.get(element, element)
    graph = Graph.load(build_model("y = Tanh(x)", opset=opset, dtype=dtype))
    interface = Interface.of(graph)
    write(graph, Site(list(graph.nodes()), "x", "y"), activation, way, element)
    verify(graph, interface, ["write"])
    return graph


@pytest.mark.parametrize("element", ["float16", "float32"])
@pytest.mark.parametrize(("activation", "way"), WAYS, ids=IDS)
def test_round_trip(activation, way, element, build_model, run_model, samples):
    opset = max(way.opset, 7)
    if way.obstacle(activation, opset, element, True):
        assert (way.name, element) == ("Celu", "float16")  # ONNX defines it for float32 alone
        return
    graph = written(activation, way, element, opset, build_model)
    (match,) = find_activations(graph)
    same = Activation("Elu") if activation == Activation("Celu") else activation
    assert match.activation.name == same.name
    precision = 1.5e-3 if element == "float16" else 1e-6
    assert dict(match.activation.parameters) == pytest.approx(dict(same.parameters), rel=precision)
    assert match.spelling.split("+") == list(way.operators(activation))
    x = samples.astype(element)
    (found,) = run_model(graph.to_proto(), x=x)
    tolerance = 2e-2 if element == "float16" else 2e-6
    np.testing.assert_allclose(found, activation(x), rtol=1e-5 + tolerance, atol=tolerance)


@pytest.mark.parametrize(("activation", "way"), WAYS, ids=IDS)
def test_named_opset_is_the_first_that_has_the_operators(activation, way):
    calls = list(way.expression(activation).calls())
    needed = []
    for call in calls:
        versions = [
            schema.since_version
            for schema in onnx.defs.get_all_schemas_with_history()
            if schema.name == call.operator and schema.domain == call.domain
        ]
        needed.append(min(versions, default=1))
    assert way.opset >= max(needed)
    assert way.opset <= max(*needed, 9)


@pytest.mark.parametrize("opset", [10, 11])
def test_clip_has_its_bounds_where_the_opset_wants_them(opset, build_model, run_model, samples):
    (way,) = spellings_of(Activation("Relu6"))
    graph = written(Activation("Relu6"), way, "float32", opset, build_model)
    (node,) = graph.nodes("Clip", min=0.0, max=6.0)
    assert len(node.inputs) == (1 if opset == 10 else 3)
    np.testing.assert_array_equal(run_model(graph.to_proto(), x=samples)[0], np.clip(samples, 0, 6))


def test_constants_have_the_type_of_the_tensor(build_model):
    way = next(way for way in spellings_of(Activation("HardSwish")) if way.name == "Clip+Mul")
    graph = written(Activation("HardSwish"), way, "float16", 17, build_model)
    types = {tensor.data_type for tensor in graph.to_proto().graph.initializer}
    assert types == {onnx.TensorProto.FLOAT16}


def test_the_opset_is_never_raised_and_says_so():
    ways = spellings_of(Activation("HardSwish"))
    obstacles = {
        way.name: way.obstacle(Activation("HardSwish"), 11, "float32", False) for way in ways
    }
    assert obstacles == {
        "HardSwish": "needs opset 14, the model has 11",
        "HardSigmoid+Mul": "",
        "Clip+Mul": "",
    }


def test_bfloat16_is_refused():
    (way,) = spellings_of(Activation("Relu"))
    obstacle = way.obstacle(Activation("Relu"), 17, "bfloat16", False)
    assert obstacle == "constants of type bfloat16 cannot be written"


def test_operators_of_one_runtime_need_leave():
    way = next(way for way in spellings_of(Activation("Silu")) if way.domain == CONTRIB)
    assert "contrib_operators = true" in way.obstacle(Activation("Silu"), 17, "float32", False)
    assert way.obstacle(Activation("Silu"), 17, "float32", True) == ""


def test_writing_refuses_where_an_inner_tensor_is_used_outside(build_model):
    model = build_model("s = Sigmoid(x) y = Mul(x, s)", outputs=", float[1,2,4,8] s")
    graph = Graph.load(model)
    site = Site(list(graph.nodes()), "x", "y")
    with pytest.raises(PassError, match="used outside it"):
        write(graph, site, Activation("Relu"), spellings_of(Activation("Relu"))[0], "float32")
