"""Real and built networks for benchmarks, with what they are run on."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from exported_networks import FULL_SIZE_NETWORKS, SMALL_NETWORKS
from PIL import Image, ImageDraw

from actcc.graph import Array, Graph
from actcc.runtime import random_feeds


@dataclass(frozen=True)
class Network:
    """A model and what it is run on."""

    name: str
    model: Path | onnx.ModelProto
    feeds: Mapping[str, Array]

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of the feeds."""
        return {name: values.shape for name, values in self.feeds.items()}

    def graph(self) -> Graph:
        """The model at the shapes of the feeds."""
        return Graph.load(self.model, self.shapes)


def built_networks(*, full_size: bool, only: str) -> Iterator[Network]:
    """Networks with random weights, as frameworks export them, whose name has `only` in it."""
    for name, make in (FULL_SIZE_NETWORKS if full_size else SMALL_NETWORKS).items():
        if only in name:
            model = make()
            yield Network(name, model, random_feeds(Graph.load(model), 0))


def shared_networks(folder: Path) -> Iterator[Network]:
    """Every model of a folder; the one of speech by what it is fed with."""
    for path in sorted(folder.glob("*.onnx")):
        if path.name == "silero_vad.onnx":
            sound = 0.1 * np.random.default_rng(0).standard_normal((1, 576)).astype(np.float32)
            state, rate = np.zeros((2, 1, 128), np.float32), np.asarray(16000, np.int64)
            yield Network(path.stem, path, {"input": sound, "state": state, "sr": rate})
            continue
        (one,) = random_feeds(Graph.load(path), 0).items()
        yield Network(path.stem, path, {one[0]: _noise(one[1])})


def text_networks() -> Iterator[Network]:
    """The networks of PP-OCR, where they are installed."""
    found = importlib.util.find_spec("rapidocr_onnxruntime")
    if found is None or found.origin is None:
        return
    sizes = {"det": (320, 320), "rec": (48, 320), "cls": (48, 192)}
    for path in sorted((Path(found.origin).parent / "models").glob("*.onnx")):
        size = next(value for key, value in sizes.items() if f"_{key}_" in path.name)
        yield Network(path.stem, path, {"x": _page(*size)})


def _page(height: int, width: int) -> Array:
    """Dark text on white, float32 [1, 3, height, width] in [-1, 1]."""
    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)
    for top in range(4, height - 16, 24):
        draw.text((6, top), f"line {top}: exact rewrites change nothing", fill="black")
    pixels = np.asarray(image, np.float32).transpose(2, 0, 1)[None]
    return np.ascontiguousarray(pixels / 127.5 - 1)


def _noise(like: Array) -> Array:
    """Random pixels: in [0, 255] for networks that take bytes, else in [0, 1]."""
    bytes_ = np.random.default_rng(0).integers(0, 256, like.shape)
    return bytes_.astype(np.uint8) if like.dtype == np.uint8 else (bytes_ / 255).astype(like.dtype)
