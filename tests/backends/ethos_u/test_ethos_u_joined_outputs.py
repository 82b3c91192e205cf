"""Outputs that join boxes and scores are int16, so that scores keep steps of their own."""

from __future__ import annotations

import numpy as np
import onnx

from actcc.backends.ethos_u.lowering import lower
from actcc.graph import Graph

HEAD = """<ir_version: 8, opset_import: ["" : 17]>
    g (float[1, 4, 6, 6] x) => (float[1, 36, 5] y{more})
    <float[4, 4, 1, 1] w, float[1, 4, 1, 1] v, int64[3] rows = {{1, 5, -1}}> {{
        box = Conv (x, w)
        logit = Conv (x, v)
        score = {gate} (logit)
        joined = Concat <axis = 1> (box, score)
        flat = Reshape (joined, rows)
        y = Transpose <perm = [0, 2, 1]> (flat)
        {others}
    }}"""


def head(gate: str = "Sigmoid", more: str = "", others: str = "") -> Graph:
    """A detector's last layers; boxes are up to about 40, scores up to 1."""
    model = onnx.parser.parse_model(HEAD.format(gate=gate, more=more, others=others))
    draw = np.random.default_rng(0)
    weights = {"w": 10 * draw.standard_normal((4, 4, 1, 1)), "v": np.ones((1, 4, 1, 1))}
    for name, values in weights.items():
        model.graph.initializer.append(
            onnx.numpy_helper.from_array(values.astype(np.float32), name)
        )
    return Graph.load(model)


def wide_tensors(graph: Graph) -> set[str]:
    """Names of ONNX tensors that are int16."""
    network = lower(graph)
    return {
        network.origin[tensor.name]
        for tensor in network.tensors
        if tensor.quantization is not None and tensor.quantization.wide
    }


def test_what_is_joined_and_moved_on_its_way_out_is_int16() -> None:
    assert wide_tensors(head()) >= {"joined", "flat"}
    assert not {"box", "score", "logit"} & wide_tensors(head())


def test_parts_of_one_kind_stay_int8() -> None:
    assert wide_tensors(head("Relu")) == set()


def test_what_is_computed_with_stays_int8() -> None:
    graph = head(more=", float[1, 36, 5] z", others="z = Relu (y)")
    assert wide_tensors(graph) == set()


def test_scores_keep_steps_of_their_own(run_int8) -> None:
    found = run_int8(head())
    # All that is left is the rounding of the scores and boxes themselves.
    assert found.errors["y"] < 1.5 / 255
    assert found.operators["QUANTIZE"] >= 2
