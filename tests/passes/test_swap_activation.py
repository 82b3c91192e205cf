"""Swapping activations between a convolution and what follows, under ONNX Runtime."""

from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest

from actcc.activations import Activation, recognise
from actcc.errors import PassError
from actcc.graph import Graph
from actcc.latency_models import Profile
from actcc.pass_api import apply_candidates, discover, find_sites
from actcc.passes.swap_activation import SwapActivation
from actcc.site import Candidate
from actcc.targets import Target

X = np.linspace(-8, 8, 48, dtype=np.float32).reshape(1, 3, 4, 4)
OFFERED = {
    "y = Relu(k)": [],
    "y = Clip(k, zero, six)": ["Relu"],
    "y = LeakyRelu<alpha=0.2>(k)": ["LeakyRelu as Mul+Max", "Relu"],
    "y = Elu(k)": [
        "HardSwish",
        "HardSwish as HardSigmoid+Mul",
        "HardSwish as Clip+Mul",
        "Silu as Sigmoid+Mul",
        "Gelu as Erf",
        "LeakyRelu",
        "LeakyRelu as Mul+Max",
        "Relu",
        "Relu6",
    ],
    "s = Sigmoid(k) y = Mul(k, s)": [
        "HardSwish",
        "HardSwish as HardSigmoid+Mul",
        "HardSwish as Clip+Mul",
        "Gelu as Erf",
        "LeakyRelu",
        "LeakyRelu as Mul+Max",
        "Relu",
        "Relu6",
    ],
    "y = HardSwish(k)": [
        "HardSwish as HardSigmoid+Mul",
        "HardSwish as Clip+Mul",
        "Silu as Sigmoid+Mul",
        "Gelu as Erf",
        "LeakyRelu",
        "LeakyRelu as Mul+Max",
        "Relu",
        "Relu6",
    ],
    "y = Sigmoid(k)": ["HardSigmoid", "HardSigmoid as Mul+Clip"],
    "y = Tanh(k)": ["HardTanh", "HardTanh as Max+Min"],
    "y = Softsign(k)": ["Softsign as Abs+Div"],
    "y = HardSigmoid(k)": ["HardSigmoid as Mul+Clip"],
    "y = PRelu(k, slope)": ["LeakyRelu", "LeakyRelu as Mul+Max", "Relu"],
}


def model_of(body, *, opset=17, dtype="float", outputs=""):
    """`k = Conv(x)` and an activation of `k`."""
    model = onnx.parser.parse_model(
        f'<ir_version: 8, opset_import: ["": {opset}]>\n'
        f"g ({dtype}[1,3,4,4] x) => ({dtype}[1,2,4,4] y{outputs}) "
        f"{{ k = Conv(x, weight, bias) {body} }}"
    )
    kind = {"float": np.float32, "float16": np.float16}[dtype]
    weight = np.random.default_rng(0).normal(0, 1, (2, 3, 1, 1))
    tensors = {
        "weight": weight,
        "bias": [0.5, -0.5],
        "zero": 0.0,
        "six": 6.0,
        "slope": [[[0.1]], [[0.3]]],
    }
    for name, values in tensors.items():
        tensor = onnx.numpy_helper.from_array(np.asarray(values, kind), name)
        model.graph.initializer.append(tensor)
    return model


def target(**settings):
    return Target(Profile(name="t", description="", backend="analytic", settings=settings))


def survey(model, *, exact_only=False, **settings):
    graph = Graph.load(model)
    swap = SwapActivation()
    return graph, swap, find_sites(graph, [swap], target(**settings), exact_only=exact_only)


def run(model, *outputs):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    kind = np.float16 if "float16" in session.get_inputs()[0].type else np.float32
    return session.run(list(outputs), {"x": X.astype(kind)})


def function_of(name):
    """The function that an approximate candidate promises by its name."""
    title = name.split(" as ")[0]
    if title == "HardTanh":
        return Activation.of("Clip", min=-1.0, max=1.0)
    parameters = {"LeakyRelu": {"alpha": 0.1}, "HardSigmoid": {"alpha": 1 / 6, "beta": 0.5}}
    return Activation.of(title, **parameters.get(title, {}))


@pytest.mark.parametrize("body", OFFERED)
def test_candidates_of_each_family(body):
    _, _, found = survey(model_of(body))
    names = [c.name for site in found.sites for c in site.candidates]
    assert names == OFFERED[body]


@pytest.mark.parametrize("body", [body for body, offered in OFFERED.items() if offered])
def test_every_candidate_computes_what_it_says(body):
    model = model_of(body, outputs=", float[1,2,4,4] k")
    graph, swap, found = survey(model)
    before, before_activation = run(model, "y", "k")
    (site,) = found.sites
    for candidate in site.candidates:
        rewritten = apply_candidates(graph, [swap], [(site, candidate.name)])
        (after,) = run(rewritten.to_proto(), "y")
        expected = before if candidate.exact else function_of(candidate.name)(before_activation)
        np.testing.assert_allclose(after, expected, rtol=1e-5, atol=2e-6, err_msg=candidate.name)


@pytest.mark.parametrize("body", ["s = Sigmoid(k) y = Mul(k, s)", "y = HardSwish(k)"])
def test_every_candidate_runs_in_half_precision(body):
    model = model_of(body, dtype="float16", outputs=", float16[1,2,4,4] k")
    graph, swap, found = survey(model)
    before, before_activation = run(model, "y", "k")
    (site,) = found.sites
    for candidate in site.candidates:
        (after,) = run(apply_candidates(graph, [swap], [(site, candidate.name)]).to_proto(), "y")
        expected = before if candidate.exact else function_of(candidate.name)(before_activation)
        np.testing.assert_allclose(after, expected, rtol=5e-3, atol=5e-3, err_msg=candidate.name)


def test_new_nodes_say_where_they_come_from():
    graph, swap, found = survey(model_of("y = HardSwish(k)"))
    name = "HardSwish as HardSigmoid+Mul"
    rewritten = apply_candidates(graph, [swap], [(found.sites[0], name)])
    nodes = [node for node in rewritten.to_proto().graph.node if node.op_type != "Conv"]
    assert [node.op_type for node in nodes] == ["HardSigmoid", "Mul"]
    for node in nodes:
        properties = {entry.key: entry.value for entry in node.metadata_props}
        assert properties["actcc.pass"] == "swap-activation"
        assert properties["actcc.candidate"] == name


def test_site_says_what_is_there():
    (site,) = survey(model_of("y = LeakyRelu<alpha=0.2>(k)"))[2].sites
    assert site.site.kind == "LeakyRelu"
    assert (site.site.reads, site.site.writes) == ("k", "y")
    assert site.site.facts == {
        "activation": "LeakyRelu",
        "spelling": "LeakyRelu",
        "opset": 17,
        "dtype": "float32",
        "quantized": False,
        "alpha": 0.2,
    }


def test_spellings_are_exact_and_other_functions_share_one_estimate():
    (site,) = survey(model_of("y = HardSwish(k)"))[2].sites
    exact = {c.name for c in site.candidates if c.exact}
    assert exact == {"HardSwish as HardSigmoid+Mul", "HardSwish as Clip+Mul"}
    leaky = {c.computes for c in site.candidates if c.name.startswith("LeakyRelu")}
    assert leaky == {"LeakyRelu(alpha=0.1)"}


def test_without_calibration_data_only_spellings_are_offered():
    (site,) = survey(model_of("y = HardSwish(k)"), exact_only=True)[2].sites
    assert all(candidate.exact for candidate in site.candidates)


def test_the_opset_decides_and_the_reason_names_what_is_offered_instead():
    model = model_of("s = Sigmoid(k) y = Mul(k, s)", opset=11)
    graph, swap, found = survey(model)
    reasons = {refusal.subject: refusal.reason for _, refusal in found.refusals}
    assert reasons["y → HardSwish"] == (
        "needs opset 14, the model has 11; HardSigmoid+Mul is offered instead"
    )
    assert reasons["y → Silu as Swish"] == "needs opset 24, the model has 11"
    (site,) = found.sites
    for candidate in site.candidates:
        rewritten = apply_candidates(graph, [swap], [(site, candidate.name)])
        assert rewritten.opset == 11
        assert len(run(rewritten.to_proto(), "y")) == 1


def test_newer_opsets_offer_the_operators():
    (site,) = survey(model_of("s = Sigmoid(k) y = Mul(k, s)", opset=24))[2].sites
    names = {candidate.name for candidate in site.candidates}
    assert {"Silu as Swish", "Gelu", "HardSwish"} <= names


def test_operators_of_onnx_runtime_are_offered_where_the_target_allows_them():
    model = model_of("s = Sigmoid(k) y = Mul(k, s)")
    assert not any("com.microsoft" in c.name for c in survey(model)[2].sites[0].candidates)
    graph, swap, found = survey(model, contrib_operators=True)
    rewritten = apply_candidates(
        graph, [swap], [(found.sites[0], "Silu as com.microsoft.QuickGelu")]
    )
    assert rewritten.opsets["com.microsoft"] == 1
    np.testing.assert_allclose(
        run(rewritten.to_proto(), "y")[0], run(model, "y")[0], rtol=1e-5, atol=1e-6
    )


QDQ = (
    "q = QuantizeLinear(k, scale, point) d = DequantizeLinear(q, scale, point) {} "
    "p = QuantizeLinear(a, scale, point) y = DequantizeLinear(p, scale, point)"
)


def test_what_is_inside_qdq_is_left_to_the_pass_for_it():
    model = model_of(QDQ.format("a = HardSwish(d)"))
    for name, values in (("scale", np.float32(0.1)), ("point", np.uint8(100))):
        tensor = onnx.numpy_helper.from_array(np.asarray(values), name)
        model.graph.initializer.append(tensor)
    _, _, found = survey(model)
    assert not found.sites


def test_near_misses_are_reported_with_the_pass():
    _, _, found = survey(model_of("s = Sigmoid(k) z = Mul(k, s) y = Add(z, s)"))
    ((name, refusal),) = [entry for entry in found.refusals if "→" not in entry[1].subject]
    assert name == "swap-activation"
    assert "is Silu of 'k', but its intermediate result 's' is read by node" in refusal.reason


def test_an_unknown_candidate_is_an_error():
    graph, swap, found = survey(model_of("y = Tanh(k)"))
    with pytest.raises(PassError, match="has no candidate 'Gelu'"):
        swap.apply(graph, found.sites[0].site, Candidate("Gelu"))


def test_the_pass_is_built_in():
    assert "swap-activation" in {found.name for found in discover()}


@pytest.mark.shared
def test_yolox_with_another_function_everywhere_keeps_its_interface(shared):
    graph = Graph.load(shared / "models" / "yolox_nano_416.onnx")
    swap = SwapActivation()
    sites = find_sites(graph, [swap], target()).sites
    chosen = [(site, "Relu") for site in sites if site.site.kind == "Silu"]
    assert len(chosen) == 104
    rewritten = apply_candidates(graph, [swap], chosen)
    names = [match.activation.name for match in recognise(rewritten).matches]
    assert (names.count("Relu"), names.count("Sigmoid")) == (104, 6)


@pytest.mark.shared
def test_mobilenet_with_other_spellings_everywhere_computes_the_same(shared):
    model = onnx.load(shared / "models" / "mobilenet_v3_small.onnx")
    graph, swap, found = survey(model, exact_only=True)
    chosen = [(site, site.candidates[-1].name) for site in found.sites]
    assert len(chosen) == 28
    rewritten = apply_candidates(graph, [swap], chosen)
    images = np.random.default_rng(0).uniform(0, 255, (1, 224, 224, 3)).astype(np.float32)
    before, after = (
        onnxruntime.InferenceSession(
            proto.SerializeToString(), providers=["CPUExecutionProvider"]
        ).run(None, {graph.inputs[0].name: images})[0]
        for proto in (model, rewritten.to_proto())
    )
    np.testing.assert_allclose(after, before, rtol=1e-5, atol=1e-6)
