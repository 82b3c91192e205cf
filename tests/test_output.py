"""Where results go: checked before anything long begins, never over what they are made from."""

import errno
import os
from pathlib import Path

import onnx
import pytest

from actcc.apply import apply_plan
from actcc.errors import ModelError
from actcc.graph import Graph
from actcc.graph.files import staging_folder, write_model, writing
from actcc.output import check_output
from actcc.pipeline import optimize

pytestmark = pytest.mark.usefixtures("simplify_here")


NETWORK = """
<ir_version: 8, opset_import: ["" : 17]>
network (float[1, 3] x) => (float[1, 3] y) <float[1, 3] w = {1, 2, 3}> {
  s = Sigmoid(x)
  p = Mul(x, s)
  y = Add(p, w)
}
"""


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "same.onnx"
    onnx.save_model(onnx.parser.parse_model(NETWORK), path)
    return path


@pytest.fixture
def external(tmp_path: Path) -> Path:
    """A model that was renamed: its weights still have the name that it had."""
    network = onnx.parser.parse_model(NETWORK)
    (weight,) = network.graph.initializer
    weight.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(weight), "w"))
    path = tmp_path / "renamed.onnx"
    onnx.save_model(
        network, path, save_as_external_data=True, size_threshold=0, location="before.onnx.data"
    )
    assert (tmp_path / "before.onnx.data").exists()
    return path


def test_optimize_does_not_overwrite_its_model(model: Path) -> None:
    before = model.read_bytes()
    with pytest.raises(ModelError, match="the output is the input"):
        optimize(model, "npu1", output=str(model), workers=1)
    assert model.read_bytes() == before


def test_a_report_or_plan_does_not_overwrite_an_input(model: Path) -> None:
    data = model.with_name("out.onnx.plan.json")
    data.write_text("the user's")
    with pytest.raises(ModelError, match=r"out\.onnx\.plan\.json: the output is the input"):
        optimize(model, "npu1", output=model.with_name("out.onnx"), labels=data, workers=1)


def test_apply_overwrites_neither_model_nor_plan(model: Path) -> None:
    plan = model.with_name("plan.json")
    plan.write_text("{}")
    for output in (model, plan):
        with pytest.raises(ModelError, match="the output is the input"):
            apply_plan(model, plan, output)
    assert plan.read_text() == "{}"


def test_an_input_is_found_behind_a_link_and_before_a_function(model: Path) -> None:
    os.symlink(model, model.with_name("link.onnx"))
    metric = model.with_name("metric.py")
    metric.touch()
    with pytest.raises(ModelError, match="the output is the input"):
        check_output(model.with_name("link.onnx"), model)
    with pytest.raises(ModelError, match="the output is the input"):
        check_output(metric, f"{metric}:top1")
    assert check_output(model.with_name("other.onnx"), model, None, 3) == model.with_name(
        "other.onnx"
    )


def test_weights_of_the_input_are_not_overwritten(external: Path) -> None:
    with pytest.raises(ModelError, match=r"before\.onnx: its weights would take the place"):
        optimize(external, "npu1", output=external.with_name("before.onnx"), workers=1)
    assert check_output(external.with_name("after.onnx"), external)


def test_what_cannot_be_written_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(ModelError, match="is a folder"):
        check_output(tmp_path / "folder")
    with pytest.raises(ModelError, match="does not exist"):
        check_output(tmp_path / "absent" / "out.onnx")
    with pytest.raises(ModelError, match="File name too long"):
        check_output(tmp_path / ("n" * 300))
    assert list(tmp_path.iterdir()) == [tmp_path / "folder"]


@pytest.mark.parametrize("name", ["out.json", "out.txt", "out.textproto"])
def test_a_model_is_binary_whatever_its_name(tmp_path: Path, name: str) -> None:
    write_model(onnx.parser.parse_model(NETWORK), tmp_path / name)
    assert onnx.load_model_from_string((tmp_path / name).read_bytes()).graph.name == "network"
    assert len(list(Graph.load(tmp_path / name).nodes())) == 3


def test_an_error_of_the_run_is_not_taken_for_one_of_the_folder(tmp_path: Path) -> None:
    with pytest.raises(PermissionError, match="of the run"), staging_folder(tmp_path):
        raise PermissionError("of the run")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_names_the_file(tmp_path: Path) -> None:
    with (
        pytest.raises(ModelError, match=r"out\.onnx: cannot be written \(No space left"),
        writing(tmp_path / "out.onnx"),
    ):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_full_disk_while_the_result_is_copied_leaves_nothing(
    model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*arguments: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("shutil.copyfile", full)
    with pytest.raises(ModelError, match="No space left"):
        optimize(
            model, "npu1", output=model.with_name("out.onnx"), skip=["swap-activation"], workers=1
        )
    assert list(model.parent.iterdir()) == [model]
