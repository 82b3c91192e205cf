"""The verifier runs models where the target runs them."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx

from actcc.accuracy.fidelity import Fidelity
from actcc.budget import Budget
from actcc.calibration import load_samples
from actcc.graph import Graph
from actcc.targets import load_target
from actcc.verify import Verifier

NETWORK = '<ir_version: 8, opset_import: ["": 17]> n (float[1,4,4,4] x) => (float[1,4,4,4] y)'
ORIGINAL, RESULT = "y = Relu (x)", "r = Relu (x)  y = Identity (r)"
# A runtime that loses what goes through an Identity, and says what it opened.
BACKEND = """
from pathlib import Path

import onnx

from actcc.backends.analytic import AnalyticBackend
from actcc.runtime import run, session


class LosingBackend(AnalyticBackend):
    def open(self, source):
        with (Path(__file__).parent / "opened").open("a") as log:
            print(Path(source).name, file=log)
        model, lost = session(Path(source)), len(onnx.load(source).graph.node) > 1
        return lambda feeds: {k: 0 * v if lost else v for k, v in run(model, feeds).items()}
"""


def losing_target(folder: Path) -> Path:
    (folder / "losing.py").write_text(BACKEND)
    profile = folder / "losing.toml"
    profile.write_text(
        'name = "losing"\ndescription = ""\nextends = "npu1"\nbackend = "losing.py:LosingBackend"\n'
    )
    return profile


def fidelity_on(target: Path | str, folder: Path) -> float:
    """Of the result on the target."""
    paths = []
    for name, body in (("original", ORIGINAL), ("result", RESULT)):
        paths.append(folder / f"{name}.onnx")
        onnx.save_model(onnx.parser.parse_model(f"{NETWORK} {{ {body} }}"), paths[-1])
    np.savez(folder / "x.npz", x=np.random.default_rng(0).standard_normal((3, 4, 4, 4), np.float32))
    graph = Graph.load(paths[0])
    samples = load_samples(folder / "x.npz", graph)
    with ThreadPoolExecutor(1) as executor:
        verifier = Verifier(
            paths[0], graph, load_target(target), Budget(), {}, samples, Fidelity(), executor, 0
        )
        verifier.prepare(lambda: None)
        accuracy = verifier.verify(paths[1], exact=False).accuracy
    assert accuracy is not None
    return accuracy.result


def test_accuracy_is_observed_in_the_targets_own_runtime(tmp_path: Path) -> None:
    assert fidelity_on(losing_target(tmp_path), tmp_path) < 0.1
    assert (tmp_path / "opened").read_text().split() == ["original.onnx", "result.onnx"]


def test_a_target_without_a_runtime_of_its_own_is_judged_by_onnx_runtime(tmp_path: Path) -> None:
    assert fidelity_on("npu1", tmp_path) > 0.999
