"""Small models whose inputs the tests of this folder feed, and images to feed them with."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper
from PIL import Image

from actcc.graph import Graph

ModelMaker = Callable[..., Graph]
ImageWriter = Callable[..., Path]


@pytest.fixture(scope="session")
def model_with() -> ModelMaker:
    """Makes a model that passes on each input, given as (name, shape)."""

    def make(*inputs: tuple[str, list[int | str]], element: int = TensorProto.FLOAT) -> Graph:
        nodes = [helper.make_node("Identity", [name], [f"{name}_out"]) for name, _ in inputs]
        values = [helper.make_tensor_value_info(name, element, shape) for name, shape in inputs]
        results = [
            helper.make_tensor_value_info(f"{name}_out", element, shape) for name, shape in inputs
        ]
        graph = helper.make_graph(nodes, "passes_on", values, results)
        opset = [helper.make_opsetid("", 17)]
        return Graph.load(helper.make_model(graph, opset_imports=opset, ir_version=8))

    return make


@pytest.fixture
def write_image(tmp_path: Path) -> ImageWriter:
    """Writes an image of one colour, or of the given pixels, below the folder `images`."""

    def write(
        name: str,
        size: tuple[int, int] = (8, 6),
        color: tuple[int, int, int] = (200, 100, 50),
        pixels: np.ndarray | None = None,
    ) -> Path:
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image = Image.new("RGB", size, color) if pixels is None else Image.fromarray(pixels)
        image.save(path)
        return path

    return write
