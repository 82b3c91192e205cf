"""Networks with layers in int8, and what is lost by it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from networks import Builder

from actcc.calibration import SampleSet, load_samples
from actcc.graph import Array, Graph
from actcc.pass_api import OfferedSite, apply_candidates, find_sites
from actcc.passes.quantize_layers import QuantizeLayers
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
