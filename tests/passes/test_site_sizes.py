"""What a candidate adds to the file is found from its neighbourhood, and adds up to the file's."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from networks import residual_network
from normalizing import graph_of

from actcc.graph import Graph
from actcc.graph.size import file_bytes, model_bytes, weight_sizes
from actcc.pass_api import Pass, apply_candidates, find_sites, rewrite
from actcc.passes.compress_weights import CompressWeights
from actcc.site import Candidate, Refusal, Site
from actcc.site_sizes import site_sizes
from actcc.targets import Target, load_target

COMPRESS = CompressWeights()
CPU = load_target("cpu")


def weights(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(shape).astype(np.float32)


@pytest.mark.parametrize("name", ["float16", "int8"])
def test_the_sizes_of_sites_add_up_to_that_of_the_file(name: str, tmp_path: Path) -> None:
    graph = Graph.load(residual_network())
    sites = find_sites(graph, [COMPRESS], CPU).sites
    sizes = site_sizes(graph, sites, [COMPRESS])
    assert all(sizes[site.id, name] < 0 for site in sites)
    small = apply_candidates(graph, [COMPRESS], [(site, name) for site in sites])
    small.save(tmp_path / "small.onnx")
    predicted = model_bytes(graph) + sum(sizes[site.id, name] for site in sites)
    written = file_bytes(tmp_path / "small.onnx")
    # Names of nodes get numbers, and are as long as those of a site of equal structure.
    assert written == pytest.approx(predicted, abs=40 * len(sites))


@rewrite("halve-outputs")
class HalveOutputs(Pass):
    """Gives a MatMul a copy of its weights in float16."""

    def sites(self, graph: Graph) -> list[Site | Refusal]:
        return [Site([node], node.inputs[0], node.outputs[0]) for node in graph.nodes("MatMul")]

    def candidates(self, site: Site, target: Target) -> list[Candidate | Refusal]:
        return [Candidate("float16", exact=False)]

    def apply(self, graph: Graph, site: Site, candidate: Candidate) -> None:
        node = graph.node(site.nodes[0])
        stored = graph.constant(node.inputs[1]).astype(np.float16)
        graph.set_input(node, 1, graph.insert("Cast", [stored], to=onnx.TensorProto.FLOAT))


def test_weights_that_another_layer_reads_stay() -> None:
    relus = " ".join(f"r{i} = Relu({'a' if i == 0 else f'r{i - 1}'})" for i in range(8))
    body = f"a = MatMul(x, w) {relus} y = MatMul(r7, w)"
    graph = graph_of(body, (64, 64), {"w": weights(64, 64)})
    found = HalveOutputs()
    sites = find_sites(graph, [found], CPU).sites
    sizes = site_sizes(graph, sites, [found])
    copy = 64 * 64 * 2
    assert all(copy <= size < copy + 1000 for size in sizes.values())
    assert len(sizes) == 2


def test_sites_of_equal_structure_are_of_equal_size() -> None:
    body = "a = MatMul(x, v) b = Relu(a) c = MatMul(b, w) d = Relu(c) y = MatMul(d, u)"
    constants = {name: weights(32, 32) for name in "vwu"}
    graph = graph_of(body, (4, 32), constants)
    sites = find_sites(graph, [COMPRESS], CPU).sites
    sizes = site_sizes(graph, sites, [COMPRESS])
    assert len(sizes) == 6
    halves = [size for (_, name), size in sizes.items() if name == "float16"]
    assert max(halves) - min(halves) < 20


def test_a_file_counts_with_the_weights_beside_it(tmp_path: Path) -> None:
    graph = graph_of("y = MatMul(x, w)", (4, 64), {"w": weights(64, 64)})
    graph.save(tmp_path / "one.onnx")
    graph.save(tmp_path / "two.onnx", external=True)
    one, two = (file_bytes(tmp_path / name) for name in ("one.onnx", "two.onnx"))
    assert (tmp_path / "two.onnx").stat().st_size < 64 * 64 * 4 < two
    assert two == pytest.approx(one, abs=200)
    assert model_bytes(graph) == pytest.approx(one, abs=50)
    assert weight_sizes(graph) == {"w": 64 * 64 * 4}
