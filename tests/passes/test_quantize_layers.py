"""Layers in int8: close to floating point, fused by the runtime, and cheaper side by side."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from networks import Builder, images, residual_network
from normalizing import graph_of

from actcc.apply import apply_plan
from actcc.budget import Amount, Budget
from actcc.calibration import SampleSet, load_samples
from actcc.errors import PassError
from actcc.graph import Array, Graph
from actcc.graph.compare import compare
from actcc.pass_api import OfferedSite, apply_candidates, find_sites
from actcc.passes.quantize_layers import QuantizeLayers
from actcc.passes.swap_activation import SwapActivation
from actcc.pipeline import optimize
from actcc.rewriting import rewrite_network
from actcc.runtime import run, session
from actcc.targets import load_target

QUANTIZE = QuantizeLayers()
CPU = load_target("cpu")


def floats(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def seen(graph: Graph, count: int = 8) -> SampleSet:
    name = graph.inputs[0].name
    shape = tuple(graph.inputs[0].shape)
    return load_samples([{name: floats(*shape, seed=index)} for index in range(count)], graph)


def sites_of(graph: Graph, samples: SampleSet | None = None) -> list[OfferedSite]:
    return list(find_sites(graph, [QUANTIZE], CPU, samples=samples or seen(graph)).sites)


def quantized(graph: Graph, *kinds: str) -> Graph:
    chosen = [
        (site, site.candidates[0].name)
        for site in sites_of(graph)
        if not kinds or site.site.kind in kinds
    ]
    assert chosen
    return apply_candidates(graph, [QUANTIZE], chosen)


def error(one: Graph, other: Graph) -> float:
    """Difference of the outputs on a sample, in parts of the original's standard deviation."""
    sample = dict(seen(one)[0].inputs)
    before, after = run(session(one), sample), run(session(other), sample)
    return max(
        float(np.abs(after[name] - before[name]).max() / (before[name].std() + 1e-6))
        for name in before
    )


def kernels(graph: Graph, folder: Path) -> Counter[str]:
    """The operators that ONNX Runtime runs."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    options.log_severity_level = 3
    onnxruntime.InferenceSession(
        graph.to_proto().SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return Counter(node.op_type for node in onnx.load(options.optimized_model_filepath).graph.node)


def mobile_network(opset: int = 17) -> Graph:
    build = Builder(opset=opset)
    x = build.add("Relu", build.conv("images", 3, 16))
    inner = build.add("Relu", build.conv(x, 16, 32, kernel=1))
    inner = build.add("Relu", build.conv(inner, 32, 32, groups=32))
    x = build.add("Add", x, build.conv(inner, 32, 16, kernel=1))
    pooled = build.add("GlobalAveragePool", x)
    flat = build.add("Flatten", pooled)
    weight = build.weight(build.random.standard_normal((16, 10)) / 4)
    bias = build.weight(build.random.standard_normal(10))
    build.add("Gemm", flat, weight, bias, output="logits")
    return Graph.load(build.model((1, 3, 16, 16), {"logits": (1, 10)}))


@settings(max_examples=25, deadline=None)
@given(
    groups=st.sampled_from([1, 2, 4]),
    kernel=st.sampled_from([1, 3]),
    stride=st.integers(1, 2),
    pad=st.integers(0, 1),
    behind=st.sampled_from(["", "Relu", "Clip"]),
    bias=st.booleans(),
    scale=st.sampled_from([1e-3, 1.0, 1e3]),
)
def test_a_convolution_is_off_by_a_few_steps(
    groups: int, kernel: int, stride: int, pad: int, behind: str, bias: bool, scale: float
) -> None:
    constants: dict[str, Array] = {
        "w": scale * floats(8, 4 // groups, kernel, kernel, seed=1),
        "b": scale * floats(8, seed=2),
        "low": np.array(0.0, np.float32),
        "high": np.array(6.0 * scale, np.float32),
    }
    operands = "x, w, b" if bias else "x, w"
    tails = {"": "y = Identity(c)", "Relu": "y = Relu(c)", "Clip": "y = Clip(c, low, high)"}
    geometry = f"group={groups}, strides=[{stride}, {stride}], pads=[{pad}, {pad}, {pad}, {pad}]"
    graph = graph_of(f"c = Conv<{geometry}>({operands}) {tails[behind]}", (1, 4, 9, 9), constants)
    # 4 · 9 products, each off by a step of 7 and one of 8 bits, add up at random.
    assert 0 < error(graph, quantized(graph)) < 0.35


@pytest.mark.parametrize("transposed", [0, 1])
def test_a_gemm_has_a_scale_for_each_output(transposed: int) -> None:
    weights = floats(8, 5, seed=1) * np.array([1e-3, 1, 1, 1, 1e3], np.float32)
    constants = {"w": weights.T.copy() if transposed else weights, "b": floats(5)}
    graph = graph_of(f"y = Gemm<transB={transposed}>(x, w, b)", (64, 8), constants)
    result = quantized(graph)
    sample = dict(seen(graph)[0].inputs)
    before, after = run(session(graph), sample)["y"], run(session(result), sample)["y"]
    # The output has one step for all columns, which is as wide as the largest asks for.
    assert np.abs(after - before)[:, 4].max() < 0.2 * before[:, 4].std()


def test_a_channel_without_weights_keeps_its_bias() -> None:
    weights = floats(4, 4, 1, 1)
    weights[1], weights[2] = 0, 1e-20
    graph = graph_of("y = Conv(x, w, b)", constants={"w": weights, "b": floats(4, seed=1) * 3})
    assert error(graph, quantized(graph)) < 0.1


def test_a_layer_that_reads_zeros_keeps_its_bias() -> None:
    constants = {"zero": np.zeros(1, np.float32), "w": floats(4, 4, 1, 1), "b": floats(4)}
    graph = graph_of("z = Mul(x, zero) y = Conv(z, w, b)", constants=constants)
    assert error(graph, quantized(graph)) < 0.1


def test_the_runtime_fuses_everything(tmp_path: Path) -> None:
    graph = mobile_network()
    found = kernels(quantized(graph), tmp_path)
    assert found["QLinearConv"] == 4
    assert found["QLinearAdd"] == found["QGemm"] == found["QLinearGlobalAveragePool"] == 1
    assert not {"Conv", "Relu", "Add", "Gemm"} & set(found)
    assert (found["QuantizeLinear"], found["DequantizeLinear"]) == (1, 1)


def test_names_of_inputs_and_outputs_stay_and_values_are_close() -> None:
    graph = mobile_network()
    result = quantized(graph)
    assert [t.name for t in result.outputs] == ["logits"]
    assert error(graph, result) < 0.3


def test_a_layer_in_floating_point_reads_what_was_not_rounded() -> None:
    graph = graph_of(
        "a = Conv(x, w) b = Conv(a, v) c = Relu(a) y = Add(b, c)",
        constants={"w": floats(4, 4, 1, 1), "v": floats(4, 4, 1, 1, seed=1)},
    )
    second = next(site for site in sites_of(graph) if site.site.writes == "b")
    result = apply_candidates(graph, [QUANTIZE], [(second, second.candidates[0].name)])
    relu = next(node for node in result.nodes() if node.op == "Relu")
    assert relu.inputs[0].name == "a"
    assert [node.op for node in result.consumers("a")].count("QuantizeLinear") == 1


def test_an_older_operator_set_is_raised() -> None:
    graph = Graph.load(residual_network(opset=11))
    result = quantized(graph)
    assert (graph.opset, result.opset) == (11, 13)
    assert error(graph, result) < 1.0


def test_without_samples_nothing_is_offered() -> None:
    survey = find_sites(mobile_network(), [QUANTIZE], CPU)
    assert survey.sites == ()
    assert {refusal.reason for _, refusal in survey.refusals} == {
        "ranges need calibration data; give --calib"
    }


def test_a_target_without_such_kernels_is_offered_nothing() -> None:
    graph = mobile_network()
    survey = find_sites(graph, [QUANTIZE], load_target("npu1"), samples=seen(graph))
    assert survey.sites == ()
    assert "npu1" in survey.refusals[0][1].reason


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("y = Conv(x, x)", "its weights are not constant"),
        ("y = Add(x, w)", "an operand is constant"),
        ("y = MatMul(x, w)", "its weights are no matrix"),
    ],
)
def test_what_has_no_int8_kernel_is_refused_with_the_reason(body: str, reason: str) -> None:
    graph = graph_of(body, (4, 4, 1, 1), {"w": floats(4, 4, 1, 1)})
    refusals = find_sites(graph, [QUANTIZE], CPU, samples=seen(graph)).refusals
    assert [refusal.reason for _, refusal in refusals] == [reason]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("b = ReduceMean<axes=[0], keepdims=0>(x) y = Gemm(x, w, b)", "its bias is not constant"),
        ("y = Gemm(x, w, rows)", "its bias is no vector"),
    ],
)
def test_a_bias_that_is_not_one_number_for_each_output_is_refused(body: str, reason: str) -> None:
    graph = graph_of(body, (4, 4), {"w": floats(4, 4), "rows": floats(4, 1)})
    refusals = find_sites(graph, [QUANTIZE], CPU, samples=seen(graph)).refusals
    assert [refusal.reason for _, refusal in refusals] == [reason]


@pytest.mark.parametrize("shape", [(), (1,), (5,), (1, 1), (1, 5)])
def test_a_bias_is_stored_as_one_number_for_each_output(shape: tuple[int, ...]) -> None:
    constants = {"w": floats(8, 5), "b": np.array(floats(*shape, seed=1) * 3, np.float32)}
    graph = graph_of("y = Gemm(x, w, b)", (64, 8), constants)
    result = quantized(graph)
    (gemm,) = (node for node in result.nodes() if node.op == "Gemm")
    assert result.shape(gemm.inputs[2]) == (5,)
    assert error(graph, result) < 0.1


@pytest.mark.parametrize("operands", ["x, step", "x, step, zero", "x, steps, zeros"])
def test_what_the_model_quantizes_in_another_way_is_quantized_anew(operands: str) -> None:
    constants = {
        "step": np.array(0.03, np.float32),
        "zero": np.array(-5, np.int8),
        "steps": np.full(4, 0.03, np.float32),
        "zeros": np.zeros(4, np.uint8),
    }
    constants = {name: constants[name] for name in operands.split(", ")[1:]}
    body = (
        f"q = QuantizeLinear({operands}) d = DequantizeLinear({operands.replace('x', 'q', 1)}) "
        "n = Neg(d) p = MaxPool<kernel_shape=[3, 3]>(x)"
    )
    graph = graph_of(body, constants=constants, outputs="n p")
    assert error(graph, quantized(graph)) < 0.1


def test_a_mask_that_is_not_finite_keeps_no_other_layer_from_int8() -> None:
    constants = {
        "w": floats(4, 4, 1, 1),
        "zero": np.zeros(1, np.float32),
        "least": np.full(1, -np.inf, np.float32),
    }
    body = (
        "y = Conv(x, w) off = Less(x, zero) m = Where(off, least, x) "
        "n = MaxPool<kernel_shape=[6, 6]>(m)"
    )
    graph = graph_of(body, constants=constants, outputs="y n")
    conv, pool = sites_of(graph)
    assert (
        error(graph, apply_candidates(graph, [QUANTIZE], [(conv, conv.candidates[0].name)])) < 0.1
    )
    with pytest.raises(PassError, match="nothing is known of the values of 'm'"):
        apply_candidates(graph, [QUANTIZE], [(pool, pool.candidates[0].name)])


def test_operators_of_other_domains_are_no_layers() -> None:
    model = onnx.parser.parse_model(
        '<ir_version: 8, opset_import: ["" : 17, "own" : 1]> '
        "network (float[1, 4] x) => (float[1, 4] y) { y = own.Add(x, x) } "
        '<domain: "own", opset_import: ["" : 17]> Add (a, b) => (c) { c = Mul(a, b) }'
    )
    assert sites_of(Graph.load(model)) == []


def test_what_is_in_int8_already_stays() -> None:
    result = quantized(mobile_network())
    assert sites_of(result) == []


def test_neighbours_are_the_pairs_with_nothing_but_a_cut_between() -> None:
    graph = Graph.load(residual_network())
    groups = list(QUANTIZE.neighbours(graph, sites_of(graph)))
    pairs = [(a.site.kind, b.site.kind) for (a, _), (b, _) in groups]
    assert Counter(pairs) == Counter(
        {
            ("Conv", "Silu"): 6,
            ("Silu", "Conv"): 5,
            ("Silu", "Add"): 1,
            ("Silu", "Concat"): 1,
            ("Conv", "Add"): 2,
            ("Add", "Conv"): 3,
            ("Add", "Add"): 1,
            ("Add", "Concat"): 1,
            ("Concat", "GlobalAveragePool"): 1,
            ("GlobalAveragePool", "Flatten"): 1,
        }
    )


def test_a_swap_that_the_kernel_swallows_makes_neighbours_of_the_layers_around_it() -> None:
    graph = Graph.load(residual_network())
    samples = load_samples(images(8), graph)
    sites = find_sites(graph, [SwapActivation(), QUANTIZE], CPU, samples=samples).sites
    groups = [
        tuple(site.site.kind for site, _ in group)
        for group in QUANTIZE.neighbours(graph, sites)
        if any("Relu6" in names for _, names in group)
    ]
    # Six SiLUs behind convolutions; what reads them is five convolutions, two sums and a Concat.
    assert Counter(groups) == Counter(
        {
            ("Conv", "Silu"): 6,
            ("Conv", "Silu", "Conv"): 5,
            ("Conv", "Silu", "Add"): 1,
            ("Conv", "Silu", "Concat"): 1,
        }
    )


@pytest.mark.parametrize(
    ("function", "written", "fused"),
    [
        ("Silu", "s = Sigmoid(a) b = Mul(a, s)", {"QLinearSigmoid", "QLinearMul"}),
        (
            "HardSwish",
            "s = HardSigmoid<alpha=0.16666667, beta=0.5>(a) b = Mul(a, s)",
            {"QLinearAdd", "QLinearMul"},
        ),
        ("HardSigmoid", "b = HardSigmoid<alpha=0.2, beta=0.4>(a)", {"QLinearAdd"}),
        ("Sigmoid", "b = Sigmoid(a)", {"QLinearSigmoid"}),
        ("LeakyRelu", "b = LeakyRelu<alpha=0.1>(a)", {"QLinearLeakyRelu"}),
    ],
)
def test_an_activation_between_layers_is_computed_in_int8(
    tmp_path: Path, function: str, written: str, fused: set[str]
) -> None:
    constants = {"w": floats(8, 4, 3, 3, seed=1), "v": floats(4, 8, 1, 1, seed=2)}
    body = f"a = Conv<pads=[1, 1, 1, 1]>(x, w) {written} y = Conv(b, v)"
    graph = graph_of(body, (1, 4, 12, 12), constants)
    assert 0 < error(graph, quantized(graph, function)) < 0.06
    everything = quantized(graph)
    assert error(graph, everything) < 0.3
    found = kernels(everything, tmp_path)
    assert {name for name in found if name.startswith("QLinear")} == {"QLinearConv", *fused}


def test_a_swap_for_a_function_that_int8_has_may_be_chosen_with_int8() -> None:
    graph = Graph.load(residual_network())
    samples = load_samples(images(8), graph)
    passes = [SwapActivation(), QUANTIZE]
    sites = find_sites(graph, passes, CPU, samples=samples).sites
    swap = next(s for s in sites if s.pass_name == "swap-activation")
    int8 = next(s for s in sites if s.id == swap.id.replace("swap-activation", "quantize-layers"))
    groups = [group for group in QUANTIZE.neighbours(graph, sites) if group[0][0] is swap]
    assert [[site for site, _ in group] for group in groups] == [[swap, int8]]
    names = groups[0][0][1]
    assert names == ("HardSwish", "HardSwish as HardSigmoid+Mul", "HardSwish as Clip+Mul")
    files = {
        rewrite_network(graph, passes, [(swap, name), (int8, "int8")], repair=None, samples=samples)
        .graph.to_proto()
        .SerializeToString()
        for name in names
    }
    # However it was spelled before, it is written in one way in int8.
    assert len({len(content) for content in files}) == 1
    with pytest.raises(PassError, match="is gone in the rewritten network"):
        rewrite_network(
            graph, passes, [(swap, "Relu"), (int8, "int8")], repair=None, samples=samples
        )


@pytest.mark.parametrize("swap", ["Relu", "Relu6"])
def test_layers_around_a_swap_are_priced_as_the_kernels_that_they_become(
    tmp_path: Path, swap: str
) -> None:
    constants = {"w": floats(8, 4, 3, 3, seed=1), "v": floats(4, 8, 1, 1, seed=2)}
    body = "a = Conv<pads=[1, 1, 1, 1]>(x, w) s = Sigmoid(a) b = Mul(a, s) y = Conv(b, v)"
    graph = graph_of(body, (1, 4, 12, 12), constants)
    passes = [SwapActivation(), QUANTIZE]
    sites = find_sites(graph, passes, CPU, samples=seen(graph)).sites
    chosen = {"swap-activation:b": swap} | {
        site.id: site.candidates[0].name
        for site in sites
        if site.pass_name == QUANTIZE.name and site.site.kind == "Conv"
    }
    # The ranges are those behind the SiLU, which is all that is known when groups are priced.
    first = sorted(sites, key=lambda site: site.late)
    pairs = [(site, chosen[site.id]) for site in first if site.id in chosen]
    found = kernels(apply_candidates(graph, passes, pairs), tmp_path)
    layout = {"Transpose": 2}
    assert found == {"QuantizeLinear": 1, "QLinearConv": 2, "DequantizeLinear": 1, **layout}


def test_a_late_pass_sees_the_rewritten_network() -> None:
    graph = Graph.load(residual_network())
    samples = load_samples(images(8), graph)
    passes = [SwapActivation(), QUANTIZE]
    sites = find_sites(graph, passes, CPU, samples=samples).sites
    swaps = [(s, "Relu") for s in sites if s.pass_name == "swap-activation"]
    layers = [s for s in sites if s.pass_name == "quantize-layers" and s.site.kind != "Silu"]
    int8 = [(s, s.candidates[0].name) for s in layers]
    found = rewrite_network(graph, passes, [*swaps, *int8], repair=None, samples=samples)
    assert not found.exact
    # Each Relu is cut off inside a kernel, and nothing is left between the layers.
    quantized_outputs = [
        node.inputs[0] for node in found.graph.nodes() if node.op == "QuantizeLinear"
    ]
    writers = Counter(found.graph.producer(t).op for t in quantized_outputs if t.inputs)  # type: ignore[union-attr]
    assert writers["Relu"] == len(swaps)
    alone = apply_candidates(graph, passes[:1], swaps)
    assert compare(alone, found.graph, [dict(samples[0].inputs)]).worst_relative < 0.2


def test_a_site_that_the_rewrite_took_away_is_named() -> None:
    graph = mobile_network()
    (first, *_) = sites_of(graph)
    smaller = graph_of("y = Relu(x)")
    with pytest.raises(PassError, match="is gone in the rewritten network"):
        rewrite_network(
            smaller, [QUANTIZE], [(first, first.candidates[0].name)], repair=None,
            samples=seen(smaller),
        )  # fmt: skip


def test_a_plan_in_int8_is_applied_again_bit_for_bit(tmp_path: Path) -> None:
    model, output, again = (tmp_path / name for name in ("net.onnx", "fast.onnx", "again.onnx"))
    build = Builder()
    x = "images"
    for inputs in (3, 96, 96):
        x = build.add("Relu", build.conv(x, inputs, 96))
    build.add("GlobalAveragePool", x, output="y")
    onnx.save(build.model((1, 3, 32, 32), {"y": (1, 96, 1, 1)}), model)
    calibration = tmp_path / "samples.npz"
    np.savez(calibration, images=images(12, size=32))
    profile = tmp_path / "quick.toml"
    profile.write_text(
        'name = "quick"\ndescription = "measured in a hurry"\nextends = "cpu"\n'
        "[settings]\nneighbourhood_seconds = 0.05\nmodel_seconds = 1.0\n"
    )
    result = optimize(
        model,
        profile,
        output=output,
        budget=Budget(Amount(0.2, True)),
        calibration=calibration,
        passes=[QUANTIZE],
        max_trials=2,
        workers=1,
        cache=False,
    )
    assert result.status == "optimized"
    assert {site.pass_name for site in result.plan.rewritten} == {"quantize-layers"}
    apply_plan(model, result.plan, again, calibration=calibration)
    assert again.read_bytes() == output.read_bytes()
    # Prices of pairs are shared out, so that the sites add up to the plan.
    saved = sum(f.difference_ns or 0.0 for s in result.plan.sites for f in s.candidates
                if f.name == s.chosen)  # fmt: skip
    assert saved < 0
