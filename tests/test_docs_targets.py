"""The examples in docs/add-a-target.md and docs/add-a-backend.md work as they stand there."""

import re
from pathlib import Path

import networks
import pytest

import actcc
from actcc.errors import ActccError
from actcc.graph import Graph
from actcc.neighbourhood import neighbourhoods
from actcc.normalize import normalize
from actcc.pass_api import find_sites, select_passes
from actcc.prices import Price
from actcc.targets import BackendEntry, Target, load_target

ROOT = Path(__file__).parent.parent


def write_blocks(document: str, folder: Path) -> list[str]:
    """Write the blocks that begin with a comment of a file's name; returns the names."""
    text = (ROOT / "docs" / document).read_text()
    names = []
    for block in re.findall(r"```(?:toml|python)\n(.*?)```", text, re.DOTALL):
        name = block.splitlines()[0].removeprefix("# ")
        (folder / name).write_text(block)
        names.append(name)
    return names


@pytest.fixture
def network() -> Graph:
    return Graph.load(networks.residual_network())


def test_the_profile_in_the_guide_is_a_slower_device(tmp_path: Path, network: Graph) -> None:
    assert write_blocks("add-a-target.md", tmp_path) == ["my-board.toml"]
    target = load_target(tmp_path / "my-board.toml")
    (slow,) = target.backend.time_models([network])
    (fast,) = load_target("npu1").backend.time_models([network])
    assert slow.latency_ns > 1.2 * fast.latency_ns


def test_the_backend_in_the_guide_prices_and_optimizes(tmp_path: Path, network: Graph) -> None:
    assert write_blocks("add-a-backend.md", tmp_path) == ["macs.toml", "my_backend.py"]
    target = load_target(tmp_path / "macs.toml")
    passes = select_passes(None)
    graph = normalize(network).graph
    groups, _ = neighbourhoods(graph, find_sites(graph, passes, target).sites, passes)
    relu = target.backend.price(groups[0].query)["Relu"]
    assert isinstance(relu, Price)
    assert relu.difference_ns < 0
    result = actcc.optimize(network, target, preset="quick", cache=False, workers=1)
    assert result.plan.target == "macs"


def test_a_backend_of_ones_own_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    write_blocks("add-a-backend.md", tmp_path)
    (tmp_path / "my_backend.py").unlink()
    with pytest.raises(ActccError, match=r"my_backend\.py: no such backend file"):
        _ = load_target(tmp_path / "macs.toml").backend


def test_a_backend_whose_extra_is_missing_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import actcc.targets

    entry = BackendEntry("nowhere:Nothing", "compiled", ("no_such_module",), "some-extra")
    known = {**actcc.targets._BACKENDS, "analytic": entry}
    monkeypatch.setattr(actcc.targets, "_BACKENDS", known)
    assert entry.missing == "pip install 'actcc[some-extra]'"
    with pytest.raises(ActccError, match=r"pip install 'actcc\[some-extra\]'"):
        _ = Target(load_target("npu1").profile).backend
