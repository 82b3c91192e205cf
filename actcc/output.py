"""Where results go: checked before anything long begins, and never over what they are made from."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError

from actcc.errors import ModelError
from actcc.graph.files import external_tensors, side_file, staging_folder


def check_output(output: str | Path, *inputs: object) -> Path:
    """The path itself, if a file can be written there that takes none of the inputs away.

    Args:
        inputs: what the run reads; those that are paths, or `file.py:function`, are held against
            the output. A model's weights in a file of their own belong to it.

    Raises:
        ModelError: the output is an input, a folder, in a folder that does not exist or cannot be
            written, or has a name that no file can have.
    """
    path = Path(output)
    try:
        _refuse_input(path, inputs)
        if path.is_dir():
            raise ModelError(f"{output}: is a folder; choose another output")
        with staging_folder(path.parent) as folder:
            (folder / path.name).touch()
    except OSError as error:
        raise ModelError(
            f"{output}: cannot be written ({error.strerror}); choose another output"
        ) from error
    return path


def _refuse_input(output: Path, inputs: tuple[object, ...]) -> None:
    given = [file for entry in inputs for file in _files(entry)]
    for file in given:
        if _same(output, file):
            raise ModelError(f"{output}: the output is the input; choose another output")
    if side_file(output).exists():
        for file in given:
            if any(_same(side_file(output), weights) for weights in _weights(file)):
                raise ModelError(
                    f"{output}: its weights would take the place of those of '{file}' in "
                    f"'{side_file(output)}'; choose another output"
                )


def _files(entry: object) -> Iterator[Path]:
    if isinstance(entry, str | Path):
        text = str(entry)
        names = (text, text.rpartition(":")[0])
        yield from (Path(name) for name in names if os.path.isfile(name))


def _same(one: Path, other: Path) -> bool:
    return one.exists() and one.samefile(other)


def _weights(model: Path) -> Iterator[Path]:
    """Files beside a model in which its weights lie; none for what is no model."""
    try:
        proto = onnx.load(model, format="protobuf", load_external_data=False)
    except (DecodeError, ValueError, OSError):
        return
    locations = {
        entry.value
        for tensor in external_tensors(proto)
        for entry in tensor.external_data
        if entry.key == "location"
    }
    yield from (path for name in sorted(locations) if os.path.isfile(path := model.parent / name))
