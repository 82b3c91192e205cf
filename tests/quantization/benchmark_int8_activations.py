"""What an activation costs between two int8 tensors, on ONNX Runtime with one thread.

    python tests/quantization/benchmark_int8_activations.py

Each function in two ways: dequantized, computed as the model says and quantized again, and in the
form of `actcc.quantization.activations`; of a LeakyRelu that is the same. All are timed in turn;
medians of thread time, in nanoseconds for each value of a tensor of 64 x 52 x 52.
"""

from __future__ import annotations

import time

import numpy as np
import onnx.parser

from actcc.activations import find_activations
from actcc.graph import Graph
from actcc.quantization.activations import quantize_activation
from actcc.runtime import session
from actcc.site import Site

_SHAPE = (1, 64, 52, 52)
_RUNS = 200
_WRITTEN = {
    "Silu": "s = Sigmoid(x) y = Mul(x, s)",
    "HardSwish": "s = HardSigmoid<alpha=0.16666667, beta=0.5>(x) y = Mul(x, s)",
    "LeakyRelu": "y = LeakyRelu<alpha=0.1>(x)",
}
_MODEL = """<ir_version: 8, opset_import: ["": 14]>
network (uint8[1, 64, 52, 52] stored) => (uint8[1, 64, 52, 52] result)
<float in = {0.047058824}, uint8 in_zero = {85}, float out = {0.033333335}, uint8 out_zero = {15}> {
    x = DequantizeLinear(stored, in, in_zero) BODY result = QuantizeLinear(y, out, out_zero)
}"""
_RANGES = {"x": (-4.0, 8.0), "y": (-0.5, 8.0)}


def main() -> None:
    """Print a row for each function."""
    runners = {}
    for name, body in _WRITTEN.items():
        graph = Graph.load(onnx.parser.parse_model(_MODEL.replace("BODY", body)))
        runners[name, "float"] = session(graph)
        (match,) = find_activations(graph)
        place = Site(match.nodes, match.reads, match.writes)
        quantize_activation(graph, place, match.activation, _RANGES)
        runners[name, "int8"] = session(graph)
    values = np.random.default_rng(0).integers(0, 256, _SHAPE, np.uint8)
    seconds: dict[tuple[str, str], list[float]] = {key: [] for key in runners}
    for _ in range(_RUNS):
        for key, runner in runners.items():
            start = time.thread_time()
            runner.run(None, {"stored": values})
            seconds[key].append(time.thread_time() - start)
    print("| function | as the model says, ns | in int8, ns |")
    print("| --- | --- | --- |")
    for name in _WRITTEN:
        medians = [float(np.median(seconds[name, way])) for way in ("float", "int8")]
        shown = " | ".join(f"{median / values.size * 1e9:.2f}" for median in medians)
        print(f"| {name} | {shown} |")


if __name__ == "__main__":
    main()
