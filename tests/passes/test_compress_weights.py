"""Weights in fewer bits: the same layer on rounded weights, folded when the model is loaded."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from normalizing import graph_of

from actcc.graph import Array, Graph
from actcc.graph.size import model_bytes
from actcc.pass_api import OfferedSite, apply_candidates, find_sites, select_passes
from actcc.passes.compress_weights import CompressWeights
from actcc.passes.quantize_layers import QuantizeLayers
from actcc.rewriting import rewrite_network
from actcc.runtime import run, session
from actcc.targets import load_target

COMPRESS = CompressWeights()
CPU = load_target("cpu")
# Rounding to the nearest: 11 bits of a number, and half a step of 127 of the largest.
STEPS = {"float16": 2.0**-11, "int8": 0.5 / 127}


def floats(*shape: int, seed: int = 0) -> Array:
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def sites_of(graph: Graph) -> list[OfferedSite]:
    return list(find_sites(graph, [COMPRESS], CPU).sites)


def compressed(graph: Graph, name: str) -> Graph:
    chosen = [(site, name) for site in sites_of(graph)]
    assert chosen
    return apply_candidates(graph, [COMPRESS], chosen)


def computed(graph: Graph, x: Array) -> Array:
    return run(session(graph), {"x": x})["y"]


@settings(max_examples=25, deadline=None)
@given(
    name=st.sampled_from(sorted(STEPS)),
    groups=st.sampled_from([1, 2, 16]),
    transposed=st.booleans(),
    scale=st.sampled_from([1e-3, 1.0, 1e3]),
)
def test_a_convolution_is_computed_with_rounded_weights(
    name: str, groups: int, transposed: bool, scale: float
) -> None:
    weights = scale * floats(16, 32 if groups < 16 else 2, 3, 3, seed=1)
    op, width = ("ConvTranspose", 16) if transposed else ("Conv", weights.shape[1] * groups)
    graph = graph_of(
        f"y = {op}<group={groups}>(x, w)", (1, width, 5, 5), {"w": weights.astype(np.float32)}
    )
    x = floats(1, width, 5, 5, seed=2)
    before, after = computed(graph, x), computed(compressed(graph, name), x)
    bound = STEPS[name] * np.abs(weights).max() * np.abs(x).sum()
    assert 0 < np.abs(after - before).max() <= bound


@pytest.mark.parametrize(
    ("body", "weights"),
    [
        ("y = Gemm(x, w)", floats(32, 24)),
        ("y = Gemm<transB=1>(x, w)", floats(24, 32)),
        ("y = MatMul(x, w)", floats(32, 24)),
    ],
)
def test_each_output_has_a_scale_of_its_own(body: str, weights: Array) -> None:
    outputs = 1 if "transB" not in body else 0
    spread = np.logspace(-3, 3, 24, dtype=np.float32)
    weights = weights * (spread if outputs else spread[:, None])
    x = floats(8, 32, seed=3)
    graph = graph_of(body, (8, 32), {"w": weights})
    before, after = computed(graph, x), computed(compressed(graph, "int8"), x)
    errors = np.abs(after - before).max(axis=0) / spread
    assert errors.max() < 0.5


def test_an_output_without_weights_stays_zero() -> None:
    weights = floats(16, 32)
    weights[3] = 0
    graph = graph_of("y = Gemm<transB=1>(x, w)", (4, 32), {"w": weights})
    assert not computed(compressed(graph, "int8"), floats(4, 32))[:, 3].any()


@pytest.mark.parametrize(("name", "share"), [("float16", 0.5), ("int8", 0.25)])
def test_the_runtime_folds_it_and_the_file_is_smaller(
    name: str, share: float, tmp_path: Path
) -> None:
    graph = graph_of("c = Conv(x, w) y = Relu(c)", (1, 64, 8, 8), {"w": floats(64, 64, 3, 3)})
    small = compressed(graph, name)
    assert model_bytes(small) / model_bytes(graph) == pytest.approx(share, abs=0.02)
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    found = []
    for one in (graph, small):
        content = one.to_proto().SerializeToString()
        onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        nodes = onnx.load(options.optimized_model_filepath).graph.node
        found.append(Counter(node.op_type for node in nodes))
    assert found[0] == found[1]


@pytest.mark.parametrize(
    ("body", "weights", "reason"),
    [
        ("y = MatMul(x, x)", floats(1), "its weights are not constant"),
        ("y = MatMul(x, w)", floats(32, 4), "less than 1024 bytes"),
        ("y = MatMul(x, w)", np.full((32, 32), np.nan, np.float32), "not finite"),
        ("a = MatMul(x, w) y = MatMul(a, w)", floats(32, 32), "something else reads"),
    ],
)
def test_other_weights_are_refused_with_the_reason(body: str, weights: Array, reason: str) -> None:
    refusals = find_sites(graph_of(body, (32, 32), {"w": weights}), [COMPRESS], CPU).refusals
    assert refusals
    assert all(reason in refusal.reason for _, refusal in refusals)


def test_weights_in_another_precision_stay_so() -> None:
    constants = {"w": floats(32, 32).astype(np.float64)}
    graph = graph_of("y = MatMul(x, w)", (32, 32), constants, element="double")
    ((_, refusal),) = find_sites(graph, [COMPRESS], CPU).refusals
    assert "not in float32" in refusal.reason


def test_weights_beyond_float16_are_offered_in_int8_alone() -> None:
    graph = graph_of("y = MatMul(x, w)", (32, 32), {"w": 1e5 * floats(32, 32)})
    (site,) = sites_of(graph)
    assert [candidate.name for candidate in site.candidates] == ["int8"]
    assert "beyond its range" in site.refusals[0].reason


def test_it_comes_behind_the_repair_and_beside_layers_in_int8() -> None:
    from actcc.calibration import load_samples

    graph = graph_of(
        "a = Conv(x, w) y = Conv(a, v)",
        (1, 32, 4, 4),
        {"w": floats(32, 32, 1, 1), "v": floats(32, 32, 1, 1, seed=1)},
    )
    samples = load_samples([{"x": floats(1, 32, 4, 4, seed=i)} for i in range(4)], graph)
    passes = [COMPRESS, QuantizeLayers()]
    sites = {s.id: s for s in find_sites(graph, passes, CPU, samples=samples).sites}
    chosen = [
        (sites["compress-weights:a"], "int8"),
        (sites["quantize-layers:y"], sites["quantize-layers:y"].candidates[0].name),
    ]
    repaired: list[Graph] = []

    def repair(before: Graph, after: Graph) -> Graph:
        repaired.append(after)
        return after

    found = rewrite_network(graph, passes, chosen, repair=repair, samples=samples)
    assert repaired == []  # both are late
    stored = {str(t.dtype) for node in found.graph.nodes() for t in node.inputs}
    assert "int8" in stored
    x = samples[0].inputs["x"]
    before, after = computed(graph, x), computed(found.graph, x)
    assert np.abs(after - before).max() < 0.05 * np.abs(before).max()


def test_it_runs_where_size_counts_or_it_is_asked_for() -> None:
    def runs(**how: object) -> bool:
        found = select_passes(None, **how)  # type: ignore[arg-type]
        return "compress-weights" in {entry.name for entry in found}

    assert not runs()
    assert runs(for_size=True)
    assert runs(also=["compress-weights"])
    assert not runs(for_size=True, skip=["compress-weights"])
