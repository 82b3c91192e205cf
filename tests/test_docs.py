"""What the documents show works as it is written there."""

import re
from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from actcc.graph import Graph
from actcc.pass_api import apply_candidates, discover, find_sites
from actcc.targets import load_target

ROOT = Path(__file__).parent.parent


def code_block(document: str, first_line: str) -> str:
    text = (ROOT / "docs" / document).read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    return next(str(block) for block in blocks if block.startswith(first_line))


@pytest.fixture
def pooling() -> Graph:
    node = helper.make_node(
        "MaxPool", ["x"], ["y"], "pool", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]
    )
    graph = helper.make_graph(
        [node],
        "pooling",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 4, 8, 8))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 4, 4, 4))],
    )
    return Graph.load(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]))


def test_the_pass_in_the_guide_is_short_and_works(tmp_path: Path, pooling: Graph) -> None:
    text = code_block("passes.md", "# my_pass.py")
    assert len(text.splitlines()) <= 40
    (tmp_path / "my_pass.py").write_text(text)
    passes = discover([tmp_path / "my_pass.py"])
    survey = find_sites(pooling, passes, load_target("npu1"))
    (site,) = survey.sites
    assert site.pass_name == "smaller-max-pool"
    rewritten = apply_candidates(pooling, passes, [(site, "2x2")])
    (node,) = rewritten.nodes("MaxPool")
    assert node.attrs["kernel_shape"] == [2, 2]
    onnx.checker.check_model(rewritten.to_proto(), full_check=True)


def test_the_metric_in_the_guide_works() -> None:
    import numpy as np

    from actcc.calibration import Sample

    scope: dict[str, object] = {}
    exec(code_block("guide.md", "# metric.py"), scope)
    outputs = [{"logits": np.array([[0.0, 1.0]])}, {"logits": np.array([[1.0, 0.0]])}]
    samples = [Sample(str(i), {}, {"labels": np.array(1)}) for i in range(2)]
    top1 = scope["top1"]
    assert callable(top1)
    assert top1(outputs, samples) == 0.5


def test_the_readme_shows_exactly_two_set_up_commands() -> None:
    text = (ROOT / "README.md").read_text()
    commands = re.findall(r"```sh setup\n(.*?)\n```", text, re.DOTALL)
    assert len(commands) == 2
    assert commands[0].startswith("python -m pip install . && actcc optimize examples/")
    assert commands[1] == "python -m pip install '.[test]' && python -m pytest"
