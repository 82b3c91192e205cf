"""Model files: reading with every check that bad input needs, writing that never half-replaces."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import onnx
from google.protobuf.descriptor import Descriptor
from google.protobuf.message import DecodeError, Message
from onnx.external_data_helper import load_external_data_for_tensor, uses_external_data

from actcc.errors import ModelError

# One protobuf message cannot be serialised beyond 2 GiB; weights go to a side file well before.
EXTERNAL_DATA_THRESHOLD = 1_900_000_000
_SMALLEST_EXTERNAL_TENSOR = 1024
# 128 int64 values: more than any shape has. Larger weights never decide a shape.
LARGEST_SHAPE_CONSTANT = 1024
# Elements that share a byte, by type; those of other types take whole bytes.
_PACKED = {"INT4": 2, "UINT4": 2, "FLOAT4E2M1": 2, "INT2": 4, "UINT2": 4}
_UNSIZED = ("UNDEFINED", "STRING")


def read_model(path: Path) -> tuple[onnx.ModelProto, bool]:
    """Read an ONNX file with its external data, and say whether there was any.

    Raises:
        ModelError: the file is missing, truncated, not ONNX, or its external data is missing or
            lies outside the model's folder.
    """
    if not path.is_file():
        raise ModelError(f"{path}: no such file; give the path of an exported .onnx model")
    try:
        model = onnx.load(path, load_external_data=False)
        _read_texts(model)
    except (DecodeError, ValueError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ModelError(
            f"{path}: not an ONNX model or truncated ({reason}); export or copy it again"
        ) from error
    if not model.graph.node and not model.graph.output:
        raise ModelError(f"{path}: not an ONNX model (no nodes, no outputs); export it again")
    external = list(external_tensors(model))
    for tensor in external:
        _load_external(tensor, path)
    _check_sizes(model, path)
    return model, bool(external)


def _read_texts(message: Message) -> None:
    """Read every text of a message: a damaged one is found on access only, wherever that is.

    Raises:
        ValueError: a text is not UTF-8.
    """
    texts, messages = _text_and_message_fields(message.DESCRIPTOR)
    for name in texts:
        value = getattr(message, name)
        for text in (value,) if isinstance(value, str | bytes) else value:
            if isinstance(text, bytes):  # what protobuf gives instead of text
                raise ValueError(f"{type(message).__name__}.{name} is no text: {text[:40]!r}")
    for name, repeated in messages:
        if repeated or message.HasField(name):
            for inner in getattr(message, name) if repeated else (getattr(message, name),):
                _read_texts(inner)


@functools.cache
def _text_and_message_fields(
    descriptor: Descriptor,
) -> tuple[tuple[str, ...], tuple[tuple[str, bool], ...]]:
    """Names of fields that hold text, and of those that hold messages with whether they repeat."""
    fields = descriptor.fields
    return (
        tuple(field.name for field in fields if field.type == field.TYPE_STRING),
        tuple((f.name, f.is_repeated) for f in fields if f.type == f.TYPE_MESSAGE),
    )


def external_tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Initializers, in the main graph and in subgraphs, whose data lies in another file."""

    def walk(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
        yield from (t for t in graph.initializer if uses_external_data(t))
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.HasField("t") and uses_external_data(attribute.t):
                    yield attribute.t
                if attribute.HasField("g"):
                    yield from walk(attribute.g)

    yield from walk(model.graph)


def _load_external(tensor: onnx.TensorProto, path: Path) -> None:
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location = entries.get("location", "")
    folder = path.parent.resolve()
    data = (folder / location).resolve()
    if not location or not data.is_relative_to(folder):
        raise ModelError(
            f"{path}: external data of '{tensor.name}' is at '{location}', outside the model's "
            "folder; move it beside the model and export again"
        )
    if not data.is_file():
        raise ModelError(
            f"{path}: external data file '{location}' of '{tensor.name}' is missing; "
            "put it beside the model"
        )
    try:
        load_external_data_for_tensor(tensor, str(folder))
    except (ValueError, OSError, onnx.checker.ValidationError) as error:
        raise ModelError(
            f"{path}: external data of '{tensor.name}' cannot be read ({error}); "
            "copy the data file again"
        ) from error
    tensor.data_location = onnx.TensorProto.DEFAULT
    del tensor.external_data[:]


def _check_sizes(model: onnx.ModelProto, path: Path) -> None:
    """Weights whose bytes do not fit their shape are found here, not wherever they are read."""
    names = {number: name for name, number in onnx.TensorProto.DataType.items()}
    for tensor in model.graph.initializer:
        name = names.get(tensor.data_type, "UNDEFINED")
        if not tensor.HasField("raw_data") or name in _UNSIZED:
            continue
        unpacked = tensor_bytes(tensor.data_type, tensor.dims)
        wanted = math.ceil(unpacked / _PACKED.get(name, 1))
        if len(tensor.raw_data) != wanted or any(size < 0 for size in tensor.dims):
            raise ModelError(
                f"{path}: not an ONNX model: weight '{tensor.name}' of the shape "
                f"{list(tensor.dims)} has {len(tensor.raw_data)} bytes; export or copy it again"
            )


def weight_bytes(model: onnx.ModelProto) -> int:
    """Bytes of the main graph's initializers, without serialising anything."""
    return sum(initializer_bytes(tensor) for tensor in model.graph.initializer)


def tensor_bytes(element: int, dimensions: Iterable[int]) -> int:
    """Bytes of a tensor's data in memory; 0 where its elements have no fixed size."""
    if element in (onnx.TensorProto.UNDEFINED, onnx.TensorProto.STRING):
        return 0
    itemsize = int(onnx.helper.tensor_dtype_to_np_dtype(element).itemsize)
    return math.prod(dimensions) * itemsize


def initializer_bytes(tensor: onnx.TensorProto) -> int:
    """Bytes of one tensor's data."""
    if tensor.HasField("raw_data"):
        return len(tensor.raw_data)
    return int(tensor.ByteSize())


def write_model(
    model: onnx.ModelProto,
    path: Path,
    *,
    external: bool = False,
    threshold: int = EXTERNAL_DATA_THRESHOLD,
) -> None:
    """Write a model to `path`; the file is there whole or not at all.

    Weights go to `<name>.data` beside it if `external` is set or they exceed `threshold` bytes.
    The proto is given up by the caller: its tensors may be turned into references.

    Raises:
        ModelError: the folder does not exist or cannot be written.
    """
    folder = path.parent if str(path.parent) else Path(".")
    if not folder.is_dir():
        raise ModelError(f"{path}: folder '{folder}' does not exist; create it first")
    data_name = side_file(path).name
    try:
        with staging_folder(folder) as staging:
            staged = staging / path.name
            if external or weight_bytes(model) > threshold:
                onnx.save_model(
                    model,
                    staged,
                    save_as_external_data=True,
                    all_tensors_to_one_file=True,
                    location=data_name,
                    size_threshold=_SMALLEST_EXTERNAL_TENSOR,
                )
                if (staging / data_name).exists():  # onnx makes it readable by its owner alone
                    os.chmod(staging / data_name, staged.stat().st_mode)
            else:
                onnx.save_model(model, staged)
            deliver(staged, path)
    except OSError as error:
        raise ModelError(f"{path}: cannot be written ({error.strerror}); choose another") from error


def side_file(path: Path) -> Path:
    """Where the weights of a model lie that are not in the model file itself."""
    return path.with_name(path.name + ".data")


def deliver(staged: Path, path: Path) -> None:
    """Rename a staged model, and its side file where it has one, into place.

    Both have the name already under which the model looks for its weights. The side file goes
    first: a model is never without weights.
    """
    if side_file(staged).exists():
        os.replace(side_file(staged), side_file(path))
    os.replace(staged, path)


def move_model(path: Path, destination: Path) -> None:
    """Give a model file another name or folder; its side file goes along and is found there."""
    if side_file(path).exists():
        model = onnx.load(path, load_external_data=False)
        for tensor in external_tensors(model):
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = side_file(destination).name
        os.replace(side_file(path), side_file(destination))
        onnx.save_model(model, destination)
        path.unlink()
    else:
        os.replace(path, destination)


@contextlib.contextmanager
def staging_folder(folder: Path) -> Iterator[Path]:
    """A hidden folder inside `folder`, on the same file system, removed at the end."""
    staging = Path(tempfile.mkdtemp(prefix=".actcc-", dir=folder))
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all."""
    try:
        with staging_folder(path.parent if str(path.parent) else Path(".")) as staging:
            staged = staging / path.name
            staged.write_text(text, encoding="utf-8")
            os.replace(staged, path)
    except OSError as error:
        raise ModelError(f"{path}: cannot be written ({error.strerror}); choose another") from error
