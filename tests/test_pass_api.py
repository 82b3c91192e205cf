"""The pass API: registration refuses what would fail later, and edits are checked."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

import actcc
from actcc.calibration import SampleSet, load_samples
from actcc.errors import PassError
from actcc.graph import Graph
from actcc.pass_api import apply_candidates, discover, find_sites
from actcc.site import Candidate, Refusal, Site
from actcc.targets import Target, load_target

NETWORK = """
<ir_version: 8, opset_import: ["" : 17]>
network (float[1, 4] x) => (float[1, 4] y) {
  a = Elu(x)
  b = Elu(a)
  y = Neg(b)
}
"""


@actcc.rewrite("elu-to-relu")
class EluToRelu(actcc.Pass):
    """Elu → Relu; differs below 0."""

    def sites(self, graph: Graph) -> Iterable[Site | Refusal]:
        for node in graph.nodes("Elu"):
            yield Site(nodes=[node], reads=node.inputs[0], writes=node.outputs[0], kind="Elu")

    def candidates(self, site: Site, target: Target) -> Iterable[Candidate | Refusal]:
        yield Candidate("Relu")
        yield Refusal("Celu", "not wanted here")

    def apply(self, graph: Graph, site: Site, candidate: Candidate) -> None:
        graph.replace(site, op="Relu", inputs=[site.reads])


@pytest.fixture
def graph() -> Graph:
    return Graph.load(onnx.parser.parse_model(NETWORK))


@pytest.fixture
def target() -> Target:
    return load_target("cpu")


def test_sites_get_ids_of_pass_and_tensor(graph: Graph, target: Target) -> None:
    survey = find_sites(graph, [EluToRelu()], target)
    assert [site.id for site in survey.sites] == ["elu-to-relu:a", "elu-to-relu:b"]
    assert survey.sites[0].candidates == (Candidate("Relu", exact=False),)
    assert survey.refusals[0] == ("elu-to-relu", Refusal("a → Celu", "not wanted here"))


def test_a_pass_learns_facts_of_its_sites_from_samples(graph: Graph, target: Target) -> None:
    class Observing(EluToRelu):
        name = "observing"

        def observe(
            self, graph: Graph, sites: Sequence[Site], samples: SampleSet
        ) -> Iterable[Site]:
            for site in sites[1:]:
                yield replace(site, facts={**site.facts, "samples": len(samples)})

    samples = load_samples({"x": np.zeros((3, 4), np.float32)}, graph)
    observed = find_sites(graph, [Observing()], target, samples=samples).sites
    assert [entry.site.facts for entry in observed] == [{}, {"samples": 3}]
    assert [entry.site.facts for entry in find_sites(graph, [Observing()], target).sites] == [
        {}
    ] * 2


def test_a_pass_that_fails_on_samples_is_named(graph: Graph, target: Target) -> None:
    class Failing(EluToRelu):
        def observe(
            self, graph: Graph, sites: Sequence[Site], samples: SampleSet
        ) -> Iterable[Site]:
            raise ValueError("too few")

    samples = load_samples({"x": np.zeros((3, 4), np.float32)}, graph)
    with pytest.raises(PassError, match="pass 'elu-to-relu': observe raised ValueError: too few"):
        find_sites(graph, [Failing()], target, samples=samples)


def test_without_data_approximate_candidates_are_refused(graph: Graph, target: Target) -> None:
    survey = find_sites(graph, [EluToRelu()], target, exact_only=True)
    assert survey.sites == ()
    assert any("no calibration data" in refusal.reason for _, refusal in survey.refusals)


def test_the_chosen_candidate_is_applied_and_nothing_else(graph: Graph, target: Target) -> None:
    survey = find_sites(graph, [EluToRelu()], target)
    rewritten = apply_candidates(graph, [EluToRelu()], [(survey.sites[1], "Relu")])
    assert [node.op for node in rewritten.nodes()] == ["Elu", "Relu", "Neg"]
    assert [node.op for node in graph.nodes()] == ["Elu", "Elu", "Neg"]


def test_new_nodes_name_pass_site_and_candidate(graph: Graph, target: Target) -> None:
    survey = find_sites(graph, [EluToRelu()], target)
    model = apply_candidates(graph, [EluToRelu()], [(survey.sites[0], "Relu")]).to_proto()
    marks = {entry.key: entry.value for entry in model.graph.node[0].metadata_props}
    assert marks == {
        "actcc.pass": "elu-to-relu",
        "actcc.site": "a",
        "actcc.candidate": "Relu",
    }


def test_a_pass_that_breaks_the_graph_is_named(graph: Graph, target: Target) -> None:
    class Breaking(EluToRelu):
        def apply(self, graph: Graph, site: Site, candidate: Candidate) -> None:
            graph.replace(site, op="Flatten", inputs=[site.reads], axis=2)

    survey = find_sites(graph, [Breaking()], target)
    with pytest.raises(PassError, match=r"pass 'elu-to-relu' .* output 'y' changed"):
        apply_candidates(graph, [Breaking()], [(survey.sites[1], "Relu")])


def test_a_missing_method_is_refused_at_registration() -> None:
    with pytest.raises(PassError, match=r"lacks the method apply\(self, graph, site, candidate\)"):

        @actcc.rewrite("half")
        class Half(actcc.Pass):
            def sites(self, graph: Graph) -> Iterable[Site]:
                return []

            def candidates(self, site: Site, target: Target) -> Iterable[Candidate]:
                return []


def test_a_wrong_signature_is_refused_at_registration() -> None:
    with pytest.raises(PassError, match=r"sites takes \(self\); it must take \(self, graph\)"):

        @actcc.rewrite("wrong")
        class Wrong(EluToRelu):
            def sites(self) -> Iterable[Site]:  # type: ignore[override]
                return []


@pytest.mark.parametrize("name", ["", "Upper", "two words"])
def test_a_name_that_cannot_be_skipped_by_is_refused(name: str) -> None:
    with pytest.raises(PassError, match="pass name"):
        actcc.rewrite(name)


def test_a_class_that_is_no_pass_is_refused() -> None:
    with pytest.raises(PassError, match="derive from it"):
        actcc.rewrite("plain")(object)  # type: ignore[type-var]


def write_plugin(folder: Path, text: str) -> Path:
    path = folder / "plugin.py"
    path.write_text(text)
    return path


def test_a_plugin_file_adds_its_passes(tmp_path: Path) -> None:
    path = write_plugin(
        tmp_path,
        "import actcc\n"
        "@actcc.rewrite('mine')\n"
        "class Mine(actcc.Pass):\n"
        "    def sites(self, graph): return []\n"
        "    def candidates(self, site, target): return []\n"
        "    def apply(self, graph, site, candidate): pass\n",
    )
    assert "mine" in [found.name for found in discover([path])]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\n", "no pass in it"),
        ("import nowhere_to_be_found\n", "cannot be imported"),
        ("import actcc\nclass P(actcc.Pass): pass\n", "has no name"),
    ],
)
def test_a_bad_plugin_is_refused_with_a_sentence(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(PassError, match=message):
        discover([write_plugin(tmp_path, text)])


def test_a_missing_plugin_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PassError, match="no such plug-in file"):
        discover([tmp_path / "absent.py"])


def test_two_passes_of_one_name_are_refused(tmp_path: Path) -> None:
    path = write_plugin(
        tmp_path,
        "import actcc\n"
        "@actcc.rewrite('swap-activation')\n"
        "class Mine(actcc.Pass):\n"
        "    def sites(self, graph): return []\n"
        "    def candidates(self, site, target): return []\n"
        "    def apply(self, graph, site, candidate): pass\n",
    )
    with pytest.raises(PassError, match="two passes are named 'swap-activation'"):
        discover([path])
