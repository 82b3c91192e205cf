"""Cases of the onnx package's own backend test suite, as models with their inputs."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx.backend.test.case.test_case import TestCase as SuiteCase
from onnx.backend.test.loader import load_model_tests
from onnx.numpy_helper import to_array, to_list, to_optional

KINDS = ("node", "simple", "pytorch-converted", "pytorch-operator", "real")


@dataclass(frozen=True)
class BackendCase:
    """One case; picklable.

    Attributes:
        name: kind and name in the suite.
        model: the serialised model; empty where it would have to be downloaded.
        feeds: inputs by name: numpy arrays, lists of them for sequences, None for an empty
            optional.
    """

    name: str
    model: bytes
    feeds: Mapping[str, Any]


def collect_cases() -> list[BackendCase]:
    """All cases of the installed onnx package, by name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the suite overflows and divides by zero on purpose
        cases = [_backend_case(case) for kind in KINDS for case in load_model_tests(kind=kind)]
    return sorted(cases, key=lambda case: case.name)


def _backend_case(case: SuiteCase) -> BackendCase:
    name = f"{case.kind}/{case.name}"
    if case.model is not None:
        given = case.data_sets[0][0]  # the last inputs may be left out
        names = [value.name for value in case.model.graph.input][: len(given)]
        feeds = {key: _array(value) for key, value in zip(names, given, strict=True)}
        return BackendCase(name, case.model.SerializeToString(), feeds)
    if case.model_dir is not None:
        path = Path(case.model_dir) / "model.onnx"
        model = onnx.load(path)
        return BackendCase(name, path.read_bytes(), dict(_read_feeds(model, path.parent)))
    path = Path(onnx.__file__).parents[1] / case.url  # real networks whose weights are computed
    if not path.is_file():
        return BackendCase(name, b"", {})
    return BackendCase(name, path.read_bytes(), _random_feeds(onnx.load(path)))


def _array(value: Any) -> Any:
    if isinstance(value, onnx.TensorProto):
        return to_array(value)
    return np.asarray(value) if isinstance(value, np.generic) else value


def _read_feeds(model: onnx.ModelProto, folder: Path) -> Iterator[tuple[str, Any]]:
    for index, value in enumerate(model.graph.input):
        file = folder / "test_data_set_0" / f"input_{index}.pb"
        if not file.is_file():
            return
        data = file.read_bytes()
        if value.type.HasField("sequence_type"):
            yield value.name, to_list(onnx.SequenceProto.FromString(data))
        elif value.type.HasField("optional_type"):
            yield value.name, to_optional(onnx.OptionalProto.FromString(data))
        else:
            yield value.name, to_array(onnx.TensorProto.FromString(data))


def _random_feeds(model: onnx.ModelProto) -> dict[str, Any]:
    weights = {tensor.name for tensor in model.graph.initializer}
    generator = np.random.default_rng(0)
    feeds = {}
    for value in model.graph.input:
        if value.name not in weights:
            shape = [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
            feeds[value.name] = generator.standard_normal(shape).astype(np.float32)
    return feeds
