"""Accuracy of the int8 TFLite file against the ONNX model that it was made of, on real images.

    python tests/backends/ethos_u/benchmark_tflite_accuracy.py --shared FOLDER [NETWORK …]

Ranges of int8 and weights are fitted on the calibration images, as `--emit-tflite` does; both
networks are scored on the evaluation images, which are disjoint from those. The .tflite is run by
LiteRT. Correlation is Pearson's, over all values of an output on all evaluation images.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from actcc.accuracy.built_in import load_metric
from actcc.accuracy.metric import Metric
from actcc.backends.ethos_u.lowering import lower
from actcc.backends.ethos_u.network import Quantization
from actcc.calibration import SampleSet, load_samples
from actcc.calibration.labels import label_samples
from actcc.deploy import TfliteFiles
from actcc.graph import Array, Graph
from actcc.normalize import normalize
from actcc.repair import RepairMethod
from actcc.runtime import run, session
from actcc.targets import load_target

TARGET = "ethos-u55-256"


@dataclass(frozen=True)
class Case:
    """A network with its images and its metric."""

    model: str
    data: str
    labels: str
    preprocessing: str
    metric: str


CASES = (
    Case("yolox_nano_416", "coco", "evaluation.json", "yolox", "coco-map"),
    Case("mobilenet_v2", "imagenet", "evaluation.csv", "imagenet", "top1"),
    Case("mobilenet_v3_small", "imagenet", "evaluation.csv", "imagenet-raw", "top1"),
)


class LiteRt:
    """An int8 file that takes and gives real values in the layout of its ONNX model."""

    def __init__(self, graph: Graph, content: bytes) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self._orders = lower(graph).orders
        self._inputs = [tensor.name for tensor in graph.inputs]
        self._outputs = [tensor.name for tensor in graph.outputs]
        self._interpreter = Interpreter(model_content=content)
        self._interpreter.allocate_tensors()

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Outputs by name."""
        interpreter, found = self._interpreter, {}
        for name, place in zip(self._inputs, interpreter.get_input_details(), strict=True):
            values = feeds[name].transpose(self._orders[name])
            interpreter.set_tensor(place["index"], quantization(place).quantize(values))
        interpreter.invoke()
        for name, place in zip(self._outputs, interpreter.get_output_details(), strict=True):
            values = quantization(place).dequantize(interpreter.get_tensor(place["index"]))
            found[name] = values.transpose(np.argsort(self._orders[name]))
        return found


def quantization(place: Mapping[str, Any]) -> Quantization:
    """That of an input or output, from LiteRT's details of it."""
    scale, zero_point = place["quantization"]
    return Quantization((scale,), (zero_point,))


def main() -> None:
    """Print one row for each network and output."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, required=True, help="folder with models and data")
    parser.add_argument("networks", nargs="*", help="some of the networks; all of them if left out")
    arguments = parser.parse_args()
    print(
        "| network | metric | images | ONNX float32 | int8, ranges only | int8 | output "
        "| correlation |"
    )
    print("| --- | --- | --- | --- | --- | --- | --- | --- |")
    for case in CASES:
        if not arguments.networks or case.model in arguments.networks:
            for row in rows(case, arguments.shared):
                print(row, flush=True)


def rows(case: Case, shared: Path) -> list[str]:
    """Score both networks on the evaluation images."""
    graph = normalize(Graph.load(shared / "models" / f"{case.model}.onnx")).graph
    data = shared / "data" / case.data
    calibration = load_samples(data / "calibration", graph, case.preprocessing)
    images = load_samples(data / "evaluation", graph, case.preprocessing)
    evaluation = label_samples(images, data / case.labels)
    runner = session(graph)
    found = [[run(runner, sample.inputs) for sample in evaluation]]
    for method in ("none", "closed-form"):
        files = TfliteFiles(load_target(TARGET), calibration, (), RepairMethod(method))
        int8 = LiteRt(graph, files.of(graph)[0])
        found.append([int8.run(sample.inputs) for sample in evaluation])
    figures = scores(load_metric(case.metric), found, evaluation)
    shown = " | ".join(f"{figure:.4f}" for figure in figures)
    head = f"| {case.model} | {case.metric} | {len(evaluation)} | {shown} |"
    exact, *_, rounded = found
    return [
        f"{head} {tensor.name} | {correlation(tensor.name, exact, rounded):.4f} |"
        for tensor in graph.outputs
    ]


def scores(
    metric: Metric, outputs: Sequence[Sequence[dict[str, Any]]], samples: SampleSet
) -> list[float]:
    """The metric of several networks; the first is the reference."""
    seen = [
        [metric.observe(found, sample) for found, sample in zip(of_one, samples, strict=True)]
        for of_one in outputs
    ]
    judge = metric.judge(seen[0], samples)
    return [judge(found).value(np.arange(len(samples))) for found in seen]


def correlation(
    name: str, exact: Sequence[Mapping[str, Array]], rounded: Sequence[Mapping[str, Array]]
) -> float:
    """Pearson's, over all values of an output."""
    one, other = (
        np.concatenate([found[name].ravel() for found in all_]) for all_ in (exact, rounded)
    )
    return float(np.corrcoef(one, other)[0, 1])


if __name__ == "__main__":
    main()
