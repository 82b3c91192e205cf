"""Covariances of a network's channels over calibration samples."""

from __future__ import annotations

import numpy as np
import onnx

from actcc.calibration import load_samples
from actcc.calibration.covariance import channel_covariances
from actcc.graph import Graph

TEXT = """<ir_version: 8, opset_import: ["" : 17]>
network (float[2,3,4,5] x) => (float[2,3,4,5] y) {
    a = Exp(x)
    t = Transpose <perm = [0, 2, 3, 1]> (a)
    y = Neg(a)
}"""


def feeds(count: int, size: int = 5) -> list[dict[str, np.ndarray]]:
    random = np.random.default_rng(0)
    shape = (2, 3, 4, size)
    return [{"x": random.standard_normal(shape).astype(np.float32)} for _ in range(count)]


def test_all_positions_of_all_samples_count_where_there_are_few() -> None:
    graph = Graph.load(onnx.parser.parse_model(TEXT))
    samples = feeds(6)
    found = channel_covariances(graph, {"a": 1, "t": -1}, load_samples(samples, graph))
    rows = np.concatenate([np.exp(s["x"]).transpose(0, 2, 3, 1).reshape(-1, 3) for s in samples])
    expected = np.cov(rows.astype(np.float64), rowvar=False, bias=True)
    for values in found.values():
        np.testing.assert_allclose(values, expected, rtol=1e-5)


def test_positions_are_drawn_where_there_are_many_and_are_the_same_each_time() -> None:
    text = TEXT.replace("4,5]", "4,3000]").replace("Exp", "Tanh")
    graph = Graph.load(onnx.parser.parse_model(text))
    samples = feeds(2, size=3000)
    found, again = (
        channel_covariances(graph, {"a": 1}, load_samples(samples, graph))["a"] for _ in range(2)
    )
    rows = np.concatenate([np.tanh(s["x"]).transpose(0, 2, 3, 1).reshape(-1, 3) for s in samples])
    np.testing.assert_allclose(found, np.cov(rows, rowvar=False), atol=0.02)
    assert (found == again).all()


def test_values_that_are_no_numbers_are_left_out() -> None:
    graph = Graph.load(onnx.parser.parse_model(TEXT))
    samples = feeds(3)
    samples[1]["x"][0, 1, 2, 3] = 1000.0
    found = channel_covariances(graph, {"a": 1}, load_samples(samples, graph))["a"]
    assert np.isfinite(found).all()
