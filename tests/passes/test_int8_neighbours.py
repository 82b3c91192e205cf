"""Layers in int8 beside swaps and each other: what is priced together."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from networks import images, residual_network
from normalizing import graph_of
from quantizing import CPU, QUANTIZE, floats, kernels, seen, sites_of

from actcc.calibration import load_samples
from actcc.errors import PassError
from actcc.graph import Graph
from actcc.pass_api import apply_candidates, find_sites
from actcc.passes.swap_activation import SwapActivation
from actcc.rewriting import rewrite_network


def test_neighbours_are_the_pairs_with_nothing_but_a_cut_between() -> None:
    graph = Graph.load(residual_network())
    groups = [
        tuple(offered.site.kind for offered, _ in group)
        for group in QUANTIZE.neighbours(graph, sites_of(graph))
    ]
    assert Counter(group for group in groups if len(group) == 2) == Counter(
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
    # All that read one tensor with what writes it, and all that one node reads with the node.
    assert Counter(group for group in groups if len(group) > 2) == Counter(
        {
            ("Silu", "Conv", "Add"): 2,
            ("Add", "Conv", "Add"): 2,
            ("Add", "Conv", "Concat", "Conv"): 1,
            ("Add", "Silu", "Concat"): 1,
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
    # Six SiLUs behind convolutions; what reads them is five convolutions, a sum and a Concat.
    assert Counter(groups) == Counter(
        {
            ("Conv", "Silu"): 6,
            ("Conv", "Silu", "Conv"): 5,
            ("Conv", "Silu", "Add"): 1,
            ("Conv", "Silu", "Conv", "Add"): 1,
            ("Conv", "Silu", "Concat"): 1,
        }
    )


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
