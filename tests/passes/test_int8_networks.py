"""Layers in int8 together with other rewrites, and in a plan."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest
from networks import Builder, images, residual_network
from normalizing import graph_of
from quantizing import CPU, QUANTIZE, mobile_network, seen, sites_of

from actcc.apply import apply_plan
from actcc.budget import Amount, Budget
from actcc.calibration import load_samples
from actcc.errors import PassError
from actcc.graph import Graph
from actcc.graph.compare import compare
from actcc.pass_api import apply_candidates, find_sites
from actcc.passes.swap_activation import SwapActivation
from actcc.pipeline import optimize
from actcc.rewriting import rewrite_network


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
