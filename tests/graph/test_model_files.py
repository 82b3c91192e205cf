"""Reading and writing model files."""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path

import onnx
import pytest
from linear_models import WEIGHTS, linear_model

from actcc.errors import ModelError
from actcc.graph import Graph
from actcc.graph.files import is_repeated, write_text
from actcc.runtime import session

# ------------------------------------------------------------------------------ bad input


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"absent\.onnx: no such file; give the path"):
        Graph.load(tmp_path / "absent.onnx")


@pytest.mark.parametrize(
    "content",
    [b"", b"\x00\x01\x02 this is no model \xff" * 20, b"# a text file\nwith lines\n"],
    ids=["empty", "bytes", "text"],
)
def test_a_file_that_is_no_model_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match="not an ONNX model") as caught:
        Graph.load(path)
    assert "\n" not in str(caught.value)
    assert "bad.onnx" in str(caught.value)


@pytest.mark.parametrize("share", [0.05, 0.5, 0.9, 0.999])
def test_a_truncated_model_is_refused(tmp_path: Path, share: float) -> None:
    data = linear_model().SerializeToString()
    path = tmp_path / "short.onnx"
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ModelError, match=r"short\.onnx: not an ONNX model"):
        Graph.load(path)


def test_a_folder_is_no_model(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="no such file"):
        Graph.load(tmp_path)


def test_a_file_whose_name_is_no_utf8_is_refused_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"na\xffme.onnx")
    path.write_bytes(linear_model().SerializeToString())
    with pytest.raises(
        ModelError, match=r"me\.onnx: the name is not UTF-8.*rename the file"
    ) as caught:
        Graph.load(path)
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("version", ["5", "6"])
def test_lists_are_told_from_single_values_under_every_protobuf(version: str) -> None:
    """Before 6.31 a field had a label alone."""

    @dataclass(frozen=True)
    class Labelled:
        label: int
        LABEL_REPEATED: int = 3

    fields = onnx.GraphProto.DESCRIPTOR.fields_by_name
    single, several = (
        (Labelled(1), Labelled(3)) if version == "5" else (fields["name"], fields["node"])
    )
    assert (is_repeated(single), is_repeated(several)) == (False, True)


def test_a_model_without_opset_is_refused() -> None:
    model = linear_model()
    del model.opset_import[:]
    with pytest.raises(ModelError, match="names no ONNX opset"):
        Graph.load(model)


# ------------------------------------------------------------------------------ writing


def test_nothing_but_the_model_is_left_in_the_folder(tmp_path: Path) -> None:
    Graph.load(linear_model()).save(tmp_path / "out.onnx")
    assert [p.name for p in tmp_path.iterdir()] == ["out.onnx"]


def test_a_failed_write_leaves_the_old_file_and_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "out.onnx"
    path.write_bytes(b"old")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(onnx, "save_model", full)
    with pytest.raises(ModelError, match=r"out\.onnx: cannot be written \(No space left"):
        Graph.load(linear_model()).save(path)
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["out.onnx"]


def test_a_write_broken_off_half_way_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_: onnx.ModelProto, path: Path, **__: object) -> None:
        Path(path).write_bytes(b"half a mod")
        raise KeyboardInterrupt

    monkeypatch.setattr(onnx, "save_model", interrupted)
    with pytest.raises(KeyboardInterrupt):
        Graph.load(linear_model()).save(tmp_path / "out.onnx")
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not exist; create it first"):
        Graph.load(linear_model()).save(tmp_path / "absent" / "out.onnx")


def test_a_written_model_can_be_read_by_others_as_the_umask_says(tmp_path: Path) -> None:
    (tmp_path / "plain").write_bytes(b"")
    Graph.load(linear_model()).save(tmp_path / "out.onnx")
    write_text(tmp_path / "plan.json", "{}")
    modes = {stat.S_IMODE(p.stat().st_mode) for p in tmp_path.iterdir()}
    assert len(modes) == 1


def test_a_path_relative_to_the_working_folder_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Graph.load(linear_model()).save("out.onnx")
    assert (tmp_path / "out.onnx").is_file()


def test_text_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    write_text(tmp_path / "plan.json", "{}")
    assert (tmp_path / "plan.json").read_text() == "{}"
    with pytest.raises(ModelError, match="does not exist; create it first"):
        write_text(tmp_path / "absent" / "plan.json", "{}")
    assert [p.name for p in tmp_path.iterdir()] == ["plan.json"]


def test_loading_and_saving_leave_the_callers_proto_as_it_is(tmp_path: Path) -> None:
    model = linear_model()
    before = model.SerializeToString(deterministic=True)
    graph = Graph.load(model)
    graph.save(tmp_path / "out.onnx", external=True)
    graph.set_input(graph.node(next(graph.nodes()).name), 1, WEIGHTS * 2)
    session(model, external_threshold=1)
    assert model.SerializeToString(deterministic=True) == before
