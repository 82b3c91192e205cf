"""What the models of `every_kind` are built from."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
import onnx
from onnx import numpy_helper

from actcc.graph import Graph
from actcc.runtime import random_feeds

SIDE = 8
CHANNELS = 8
IMAGE = (1, 3, SIDE, SIDE)
MAP = (1, CHANNELS, SIDE, SIDE)


@dataclass(frozen=True)
class Kind:
    """A model.

    Attributes:
        shapes: that are chosen for symbolic inputs.
        feeds: what inputs have to be fed that take no random values.
    """

    model: onnx.ModelProto
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    feeds: Mapping[str, np.ndarray] = field(default_factory=dict)

    def sample(self, seed: int) -> dict[str, np.ndarray]:
        """What one run is fed."""
        model = onnx.ModelProto()
        model.CopyFrom(self.model)
        others = [value for value in model.graph.input if value.name not in self.feeds]
        del model.graph.input[:]
        model.graph.input.extend(others)
        return random_feeds(Graph.load(model, self.shapes or None), seed) | dict(self.feeds)


Kinds: TypeAlias = dict[str, Callable[[], Kind]]


def adding_to(kinds: Kinds) -> Callable[[Callable[[], Kind]], Callable[[], Kind]]:
    """A decorator that adds a function to `kinds` by its name in words."""

    def add(function: Callable[[], Kind]) -> Callable[[], Kind]:
        kinds[function.__name__.replace("_", " ")] = function
        return function

    return add


def parsed(text: str, **weights: tuple[int, ...]) -> onnx.ModelProto:
    """A model from ONNX text, with random float weights of the given shapes added."""
    model = onnx.parser.parse_model(text)
    random = np.random.default_rng(0)
    for name, shape in weights.items():
        fan_in = max(int(np.prod(shape[1:])), 1)
        values = (random.standard_normal(shape) / np.sqrt(fan_in)).astype(np.float32)
        model.graph.initializer.append(numpy_helper.from_array(values, name))
    return model


WEIGHTS = {"w": (CHANNELS, 3, 3, 3), "v": (CHANNELS, CHANNELS, 3, 3)}
HEAD = '<ir_version: 8, opset_import: ["" : 17]>'
FIRST = "c = Conv<pads = [1,1,1,1]>(images, w) s = Sigmoid(c) a = Mul(c, s)"
SECOND = "d = Conv<pads = [1,1,1,1]>(a, v) t = Sigmoid(d) y = Mul(d, t)"
BODY = f"{FIRST} {SECOND}"


def two_layers(
    inputs: str = "float[1,3,8,8] images", outputs: str = "float[1,8,8,8] y", body: str = BODY
) -> onnx.ModelProto:
    """Two convolutions, each with a SiLU."""
    return parsed(f"{HEAD} network ({inputs}) => ({outputs}) {{ {body} }}", **WEIGHTS)


def add_weight(model: onnx.ModelProto, name: str, values: np.ndarray) -> None:
    """Add an initializer."""
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(values), name))
