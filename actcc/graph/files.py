"""Model files: reading with every check that bad input needs, writing that never half-replaces."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from google.protobuf.descriptor import Descriptor, FieldDescriptor
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
        ModelError: the file is missing, truncated, not ONNX, its name is not UTF-8, or its external
            data is missing or lies outside the model's folder.
    """
    _check_name(path)
    if not os.path.isfile(path):  # unlike Path.is_file, of any name
        raise ModelError(f"{path}: no such file; give the path of an exported .onnx model")
    try:
        model = onnx.load(path, format="protobuf", load_external_data=False)
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
    _check_sizes((*model.graph.initializer, *external), path)
    return model, bool(external)


def _check_name(path: Path) -> None:
    """ONNX and ONNX Runtime take names of files as UTF-8 text alone."""
    try:
        str(path).encode()
    except UnicodeEncodeError as error:
        shown = str(path).encode(errors="backslashreplace").decode()
        raise ModelError(
            f"{shown}: the name is not UTF-8, which ONNX Runtime needs; rename the file or its "
            "folder"
        ) from error


def _read_texts(message: Message) -> None:
    """Read every text of a message: a damaged one is found on access only, wherever that is.

    Raises:
        ValueError: a text is not UTF-8.
    """
    for name in _fields(message).texts:
        value = getattr(message, name)
        for text in (value,) if isinstance(value, str | bytes) else value:
            if isinstance(text, bytes):  # what protobuf gives instead of text
                raise ValueError(f"{type(message).__name__}.{name} is no text: {text[:40]!r}")
    for inner in messages_in(message):
        _read_texts(inner)


def external_tensors(message: Message) -> Iterator[onnx.TensorProto]:
    """Tensors anywhere in a message whose data lies in another file.

    In a model those are initializers and attributes, dense and sparse, of the main graph, of
    subgraphs and of functions.
    """
    if isinstance(message, onnx.TensorProto):
        if uses_external_data(message):
            yield message
        return
    for inner in messages_in(message):
        yield from external_tensors(inner)


def messages_in(message: Message) -> Iterator[Message]:
    """The messages that a message holds itself."""
    fields = _fields(message)
    for name in fields.repeated_messages:
        yield from getattr(message, name)
    for name in fields.messages:
        if message.HasField(name):
            yield getattr(message, name)


@dataclass(frozen=True)
class _Fields:
    """Names of a message's fields of text, of one message, and of several."""

    texts: tuple[str, ...]
    messages: tuple[str, ...]
    repeated_messages: tuple[str, ...]


def _fields(message: Message) -> _Fields:
    descriptor: Any = message.DESCRIPTOR  # stubs differ in what that is, not all can be hashed
    return _fields_of(descriptor)


@functools.cache
def _fields_of(descriptor: Descriptor) -> _Fields:
    inner = [field for field in descriptor.fields if field.type == field.TYPE_MESSAGE]
    return _Fields(
        texts=tuple(f.name for f in descriptor.fields if f.type == f.TYPE_STRING),
        messages=tuple(field.name for field in inner if not is_repeated(field)),
        repeated_messages=tuple(field.name for field in inner if is_repeated(field)),
    )


def is_repeated(field: FieldDescriptor) -> bool:
    """Whether a field holds a list; protobuf 5 cannot be asked, later ones deprecate labels."""
    known = getattr(field, "is_repeated", None)
    return bool(field.label == field.LABEL_REPEATED if known is None else known)


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


def _check_sizes(tensors: Iterable[onnx.TensorProto], path: Path) -> None:
    """Weights whose bytes do not fit their shape are found here, not wherever they are read."""
    names = {number: name for name, number in onnx.TensorProto.DataType.items()}
    for tensor in tensors:
        name = names.get(tensor.data_type, "UNDEFINED")
        if not tensor.HasField("raw_data") or name in _UNSIZED:
            continue
        wanted = raw_bytes(tensor.data_type, tensor.dims)
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


def raw_bytes(element: int, dimensions: Iterable[int]) -> int:
    """Bytes of a tensor's data in a file, where small elements share a byte."""
    name = onnx.TensorProto.DataType.Name(element)
    return math.ceil(tensor_bytes(element, dimensions) / _PACKED.get(name, 1))


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
    data_name = side_file(path).name
    with writing(path), staging_folder(path.parent) as staging:
        staged = staging / path.name
        # Without a format onnx writes text to a file that is named .json or .txt.
        if external or weight_bytes(model) > threshold:
            onnx.save_model(
                model,
                staged,
                format="protobuf",
                save_as_external_data=True,
                all_tensors_to_one_file=True,
                location=data_name,
                size_threshold=_SMALLEST_EXTERNAL_TENSOR,
            )
            if (staging / data_name).exists():  # onnx makes it readable by its owner alone
                os.chmod(staging / data_name, staged.stat().st_mode)
        else:
            onnx.save_model(model, staged, format="protobuf")
        deliver(staged, path)


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
        model = onnx.load(path, format="protobuf", load_external_data=False)
        for tensor in external_tensors(model):
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = side_file(destination).name
        os.replace(side_file(path), side_file(destination))
        onnx.save_model(model, destination, format="protobuf")
        path.unlink()
    else:
        os.replace(path, destination)


@contextlib.contextmanager
def staging_folder(folder: Path) -> Iterator[Path]:
    """A hidden folder inside `folder`, on the same file system, removed at the end.

    Raises:
        ModelError: the folder does not exist or cannot be written.
    """
    if not folder.is_dir():
        raise ModelError(f"folder '{folder}' does not exist; create it first")
    try:
        staging = Path(tempfile.mkdtemp(prefix=".actcc-", dir=folder))
    except OSError as error:
        raise ModelError(
            f"folder '{folder}' cannot be written ({error.strerror}); choose another"
        ) from error
    try:
        yield staging
    finally:
        shutil.rmtree(staging, ignore_errors=True)


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """What the system refuses while a file is written, a full disk among it, names that file.

    Raises:
        ModelError: in the place of an OSError.
    """
    try:
        yield
    except OSError as error:
        raise ModelError(
            f"{path}: cannot be written ({error.strerror or error}); make room or choose another"
        ) from error


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all.

    Raises:
        ModelError: the folder does not exist or cannot be written.
    """
    with writing(path), staging_folder(path.parent) as staging:
        staged = staging / path.name
        staged.write_text(text, encoding="utf-8")
        os.replace(staged, path)
