"""How large a model's file is, or would be."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import onnx

from actcc.graph.files import external_tensors, initializer_bytes, raw_bytes
from actcc.graph.graph import Graph


def model_bytes(graph: Graph) -> int:
    """Size of the model as a file, up to a few bytes; weights beside the file count too."""
    frame = graph.frame()
    left_out = sum(missing for _, missing in _left_out(frame))
    return int(frame.ByteSize()) + left_out


def weight_sizes(graph: Graph) -> dict[str, int]:
    """Bytes of each initializer of the main graph by name."""
    frame = graph.frame()
    missing = dict(_left_out(frame))
    return {t.name: initializer_bytes(t) + missing.get(t.name, 0) for t in frame.graph.initializer}


def file_bytes(path: Path) -> int:
    """Size of a model file with the files beside it in which its weights lie."""
    model = onnx.load(path, format="protobuf", load_external_data=False)
    beside = {
        entry.value
        for tensor in external_tensors(model)
        for entry in tensor.external_data
        if entry.key == "location"
    }
    files = [path, *(path.parent / name for name in sorted(beside))]
    return sum(file.stat().st_size for file in files)


def _left_out(frame: onnx.ModelProto) -> Iterator[tuple[str, int]]:
    """Names and bytes of the weights that a frame leaves out."""
    for tensor in frame.graph.initializer:
        missing = raw_bytes(tensor.data_type, tensor.dims) - initializer_bytes(tensor)
        if missing > 0:
            yield tensor.name, missing
