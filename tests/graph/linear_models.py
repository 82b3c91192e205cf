"""A model of one matrix, and the same with the matrix in a file beside it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

from actcc.graph import Graph

WEIGHTS = np.arange(1024, dtype=np.float32).reshape(4, 256)


def linear_model() -> onnx.ModelProto:
    model = onnx.parser.parse_model(
        """
        <ir_version: 8, opset_import: ["" : 17]>
        linear (float[1,4] x) => (float[1,256] y) { y = MatMul(x, w) }
        """
    )
    model.graph.initializer.append(onnx.numpy_helper.from_array(WEIGHTS, "w"))
    return model


def save_external(folder: Path) -> Path:
    path = folder / "model.onnx"
    onnx.save_model(linear_model(), path, save_as_external_data=True, location="weights.bin")
    return path


def relocate(path: Path, location: str) -> None:
    model = onnx.load(path, load_external_data=False)
    entry = next(e for e in model.graph.initializer[0].external_data if e.key == "location")
    entry.value = location
    path.write_bytes(model.SerializeToString())


def weights_of(graph: Graph) -> np.ndarray:
    values = graph.constant("w")
    assert values is not None
    return values
