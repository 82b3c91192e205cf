"""How many activations real models have."""

from __future__ import annotations

from collections import Counter

import pytest

from actcc.activations import recognise
from actcc.graph import Graph

EXPECTED = {
    "yolox_nano_416": {("Silu", "Sigmoid+Mul", False): 104, ("Sigmoid", "Sigmoid", False): 6},
    "mobilenet_v3_small": {
        ("HardSwish", "HardSwish", False): 19,
        ("HardSigmoid", "Clip+Mul", False): 9,
        ("Relu", "Relu", False): 14,
    },
    "mobilenet_v2": {("Relu6", "Clip", False): 35},
    "mobilenet_v2_qdq": {("Relu6", "Clip", True): 35},
    "FastestDet": {("Relu", "Relu", False): 48, ("Sigmoid", "Sigmoid", False): 1},
    "ultraface_rfb_320": {("Relu", "Relu", False): 37},
}


@pytest.mark.shared
@pytest.mark.parametrize("name", EXPECTED)
def test_all_activations_are_found(name, shared):
    recognition = recognise(Graph.load(shared / "models" / f"{name}.onnx"))
    found = Counter((m.activation.name, m.spelling, m.quantized) for m in recognition.matches)
    assert found == EXPECTED[name]
    assert recognition.refusals == ()


@pytest.mark.shared
def test_activations_inside_subgraphs_are_named_and_left(shared):
    recognition = recognise(Graph.load(shared / "models" / "silero_vad.onnx"))
    assert recognition.matches == ()
    (refusal,) = recognition.refusals
    assert "activations in its subgraphs are left as they are" in refusal.reason
