"""Prices in the whole network, with a compiler that is a table."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

import onnx
import pytest

from actcc.graph import Graph
from actcc.network_pricing import nearest_sites, price_in_network
from actcc.pass_api import Pass, find_sites, rewrite
from actcc.price_cache import PriceCache, network_key
from actcc.prices import NetworkTimes, Price, TaskMap, Unpriced
from actcc.pricing import price_sites
from actcc.progress import Silent
from actcc.site import KEEP, Candidate, Site
from actcc.targets import Target, load_target

CHAIN = """
<ir_version: 8, opset_import: ["" : 17]>
chain (float[1, 4] x) => (float[1, 4] y)
{
    a = Abs(x)
    b = Sigmoid(a)
    c = Abs(b)
    d = Sigmoid(c)
    y = Abs(d)
}
"""
NANOSECONDS: Mapping[str, float] = {"Abs": 10.0, "Sigmoid": 5.0, "Relu": 1.0, "Tanh": 3.0}


@rewrite("another")
class Another(Pass):
    """Sigmoid  →  Relu or Tanh."""

    def sites(self, graph: Graph) -> Iterable[Site]:
        """One site a Sigmoid."""
        for node in graph.nodes("Sigmoid"):
            yield Site([node], node.inputs[0], node.outputs[0])

    def candidates(self, site: Site, target: Target) -> Iterable[Candidate]:
        """Both."""
        yield Candidate("Relu")
        yield Candidate("Tanh")

    def apply(self, graph: Graph, site: Site, candidate: Candidate) -> None:
        """Put the candidate there."""
        graph.replace(site, op=candidate.name, inputs=[site.reads])


class TableBackend:
    """A compiler for which the second Tanh costs more, and that refuses what it is told to."""

    tool, source, cacheable = "table 1", "compiled", False

    def __init__(self, refused: str = "") -> None:
        self.refused = refused
        self.compiled = 0

    def network_times(
        self, models: Sequence[Graph], run_tasks: TaskMap
    ) -> list[NetworkTimes | Unpriced]:
        """See `NetworkBackend`."""
        return [self._times(model) for model in models]

    def _times(self, model: Graph) -> NetworkTimes | Unpriced:
        self.compiled += 1
        times: dict[str, float] = {}
        for node in model.nodes():
            if node.outputs[0].name == "d" and node.op == self.refused:
                return Unpriced(f"there is no {node.op}")
            times[node.name] = NANOSECONDS[node.op]
        return NetworkTimes(times, "compiled", self.tool)


@pytest.fixture
def executor() -> Iterator[Executor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


def priced(
    backend: TableBackend, executor: Executor, graph: Graph | None = None
) -> dict[str, dict[str, Price | Unpriced]]:
    graph = graph or Graph.load(onnx.parser.parse_model(CHAIN))
    passes = [Another()]
    sites = find_sites(graph, passes, load_target("npu1")).sites
    return price_in_network(graph, sites, passes, backend, executor, Silent())  # type: ignore[arg-type]


def test_the_network_is_compiled_once_for_each_candidate(executor: Executor) -> None:
    backend = TableBackend()
    found = priced(backend, executor)
    assert backend.compiled == 3
    assert {name: price.difference_ns for name, price in found["another:b"].items()} == {
        KEEP: 0.0,
        "Relu": -4.0,
        "Tanh": -2.0,
    }
    assert {price.source for price in found["another:d"].values()} == {"compiled"}


def test_a_site_costs_what_it_and_what_is_near_to_it_costs(executor: Executor) -> None:
    found = priced(TableBackend(), executor)
    keep = found["another:b"][KEEP]
    assert isinstance(keep, Price)
    assert keep.latency_ns == 10 + 5  # the Abs between the two feeds the second one


def test_where_one_site_cannot_be_priced_the_others_are(executor: Executor) -> None:
    found = priced(TableBackend(refused="Tanh"), executor)
    assert found["another:d"]["Tanh"] == Unpriced("there is no Tanh")
    assert isinstance(found["another:b"]["Tanh"], Price)
    assert isinstance(found["another:d"]["Relu"], Price)


def test_where_the_network_itself_cannot_be_priced_nothing_is(executor: Executor) -> None:
    found = priced(TableBackend(refused="Sigmoid"), executor)
    assert {type(p) for prices in found.values() for p in prices.values()} == {Unpriced}


def test_keep_has_no_price_where_no_candidate_has_one(executor: Executor) -> None:
    class Refusing(TableBackend):
        def _times(self, model: Graph) -> NetworkTimes | Unpriced:
            known = {node.op for node in model.nodes()} <= {"Abs", "Sigmoid"}
            return super()._times(model) if known else Unpriced("it is not known")

    found = priced(Refusing(), executor)
    assert {type(p) for prices in found.values() for p in prices.values()} == {Unpriced}


def test_every_price_of_a_site_stands_on_the_same_latency_of_keep(executor: Executor) -> None:
    # Tanh at d is priced alone, where all of the network is nearest to d.
    for prices in priced(TableBackend(refused="Tanh"), executor).values():
        keep = prices[KEEP]
        assert isinstance(keep, Price)
        for price in prices.values():
            if isinstance(price, Price):
                assert price.latency_ns == keep.latency_ns + price.difference_ns


def test_marks_of_an_earlier_run_are_not_taken_for_candidates(executor: Executor) -> None:
    model = onnx.parser.parse_model(CHAIN)
    for node, site in zip(model.graph.node, ("m", "another:d", "another:b"), strict=False):
        node.metadata_props.add(key="actcc.site", value=site)
    assert priced(TableBackend(), executor, Graph.load(model)) == priced(TableBackend(), executor)


def test_a_node_between_two_sites_belongs_to_the_one_that_it_feeds() -> None:
    graph = Graph.load(onnx.parser.parse_model(CHAIN))
    names = {node.outputs[0].name: node.name for node in graph.nodes()}
    owners = nearest_sites(graph, {names["b"]: "first", names["d"]: "second"})
    assert owners[names["a"]] == "first"
    assert owners[names["c"]] == "second"
    assert owners[names["y"]] == "second"


def cached(
    path: Path, backend: TableBackend, executor: Executor
) -> dict[str, dict[str, Price | Unpriced]]:
    graph = Graph.load(onnx.parser.parse_model(CHAIN))
    passes = [Another()]
    sites = find_sites(graph, passes, load_target("npu1")).sites
    cache = PriceCache(path / "prices.sqlite")
    return price_in_network(graph, sites, passes, backend, executor, Silent(), cache)  # type: ignore[arg-type]


def test_a_second_run_compiles_nothing_and_finds_the_same(
    tmp_path: Path, executor: Executor
) -> None:
    first, second = TableBackend(), TableBackend()
    found = cached(tmp_path, first, executor)
    assert cached(tmp_path, second, executor) == found == priced(TableBackend(), executor)
    assert (first.compiled, second.compiled) == (3, 0)
    assert PriceCache(tmp_path / "prices.sqlite").contents().entries == {"table 1": 3}


def test_a_network_that_was_refused_is_compiled_again(tmp_path: Path, executor: Executor) -> None:
    refusing, mended = TableBackend(refused="Tanh"), TableBackend()
    cached(tmp_path, refusing, executor)
    found = cached(tmp_path, mended, executor)
    assert mended.compiled == 1  # that with Tanh at both sites
    assert found == priced(TableBackend(), executor)


class WholeBackend(TableBackend):
    """The same with all that a backend has."""

    def __init__(self, *, cacheable: bool) -> None:
        super().__init__()
        self.cacheable = cacheable

    def _unused(self, *arguments: object) -> None:
        raise NotImplementedError

    price = time_models = memory = layers = _unused


@pytest.mark.parametrize("cacheable", [False, True])
def test_networks_are_kept_where_the_backend_says_so(
    cacheable: bool, tmp_path: Path, executor: Executor
) -> None:
    backend, path = WholeBackend(cacheable=cacheable), tmp_path / "prices.sqlite"
    target = Target(load_target("npu1").profile)
    vars(target)["backend"] = backend
    graph = Graph.load(onnx.parser.parse_model(CHAIN))
    sites = find_sites(graph, [Another()], target).sites
    for _ in range(2):
        price_sites(graph, sites, [Another()], target, executor, Silent(), path)
    assert backend.compiled == (3 if cacheable else 6)
    assert path.exists() == cacheable


def test_a_network_is_kept_by_tool_names_weights_and_shapes() -> None:
    graph = Graph.load(onnx.parser.parse_model(CHAIN))
    other_name = Graph.load(
        onnx.parser.parse_model(CHAIN.replace("c =", "e =").replace("(c)", "(e)"))
    )
    other_tool = TableBackend()
    other_tool.tool = "table 2"  # type: ignore[misc]
    keys = {
        network_key(TableBackend(), graph),  # type: ignore[arg-type]
        network_key(TableBackend(), other_name),  # type: ignore[arg-type]
        network_key(other_tool, graph),  # type: ignore[arg-type]
    }
    assert len(keys) == 3
    assert network_key(TableBackend(), graph.copy()) in keys  # type: ignore[arg-type]


def test_a_network_is_kept_by_the_shapes_that_its_file_declares() -> None:
    model = onnx.parser.parse_model(
        """<ir_version: 8, opset_import: ["" : 17, "own" : 1]>
        g (float[1, 16] x) => (float[1, N] y) { a = own.Wider (x)  y = Relu (a) }"""
    )
    keys = set()
    for width in (16, 32):
        del model.graph.value_info[:]
        declared = onnx.helper.make_tensor_value_info("a", onnx.TensorProto.FLOAT, [1, width])
        model.graph.value_info.append(declared)
        keys.add(network_key(TableBackend(), Graph.load(model)))  # type: ignore[arg-type]
    assert len(keys) == 2
