"""Accuracy of the int8 TFLite file against the ONNX model that it was made of, on real images.

    python tests/backends/ethos_u/benchmark_tflite_accuracy.py --shared FOLDER [NETWORK …]
    python tests/backends/ethos_u/benchmark_tflite_accuracy.py --shared FOLDER --file F.tflite \
        NETWORK

Ranges of int8 and weights are fitted on the calibration images, as `--emit-tflite` does; both
networks are scored on the evaluation images, which are disjoint from those. The .tflite is run by
LiteRT. Correlation is Pearson's, over all values of an output on all evaluation images.

With `--file` a file that `actcc optimize --emit-tflite` wrote is scored as it lies there, by LiteRT
alone: with the plain int8 kernels, as plans are verified, and with those of its CPU delegate
(XNNPACK), which rounds in its own way. The network has one input and one output.
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
from actcc.calibration import SampleSet, load_samples
from actcc.calibration.labels import label_samples
from actcc.deploy import TfliteBackend, TfliteFiles
from actcc.graph import Array, Graph
from actcc.normalize import normalize
from actcc.repair import RepairMethod
from actcc.runtime import run, session
from actcc.targets import load_target
from actcc.tflite import TfliteModel

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


def main() -> None:
    """Print one row for each network and output."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--shared", type=Path, required=True, help="folder with models and data")
    parser.add_argument("--file", type=Path, help="a .tflite file of the one network that is named")
    parser.add_argument("networks", nargs="*", help="some of the networks; all of them if left out")
    arguments = parser.parse_args()
    if arguments.file is not None:
        (case,) = (case for case in CASES if arguments.networks == [case.model])
        for kernels, value in score_file(arguments.file, case, arguments.shared).items():
            print(f"{arguments.file.name}: {case.metric} {value:.4f} with {kernels} kernels")
        return
    print(
        "| network | metric | images | ONNX float32 | int8, as it is | int8, equalized "
        "| int8, fitted | output | correlation |"
    )
    print(f"|{' --- |' * 9}")
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
    files = TfliteFiles(load_target(TARGET), calibration, (), RepairMethod("none"))
    fitted = TfliteFiles(load_target(TARGET), calibration, (), RepairMethod())
    for model in (as_it_is(graph, calibration), files.of(graph), fitted.of(graph)):
        outputs_of = model.open()
        found.append([outputs_of(sample.inputs) for sample in evaluation])
    figures = scores(load_metric(case.metric), found, evaluation)
    shown = " | ".join(f"{figure:.4f}" for figure in figures)
    head = f"| {case.model} | {case.metric} | {len(evaluation)} | {shown} |"
    exact, *_, rounded = found
    return [
        f"{head} {tensor.name} | {correlation(tensor.name, exact, rounded):.4f} |"
        for tensor in graph.outputs
    ]


def as_it_is(graph: Graph, calibration: SampleSet) -> TfliteModel:
    """The network in int8 with nothing but ranges."""
    backend = load_target(TARGET).backend
    assert isinstance(backend, TfliteBackend)
    return backend.tflite_model(graph, backend.int8_ranges(graph, calibration))


def score_file(path: Path, case: Case, shared: Path) -> dict[str, float]:
    """The metric of a file on the evaluation images, by kernels."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    graph = Graph.load(shared / "models" / f"{case.model}.onnx")
    data = shared / "data" / case.data
    images = load_samples(data / "evaluation", graph, case.preprocessing)
    evaluation = label_samples(images, data / case.labels)
    runner = session(graph)
    reference = [run(runner, sample.inputs) for sample in evaluation]
    ((name, wanted),) = reference[0].items()
    found: dict[str, float] = {}
    for kernels in (OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES, OpResolverType.AUTO):
        interpreter = Interpreter(model_path=str(path), experimental_op_resolver_type=kernels)
        interpreter.allocate_tensors()
        ((source,), (result,)) = interpreter.get_input_details(), interpreter.get_output_details()
        outputs = []
        for sample in evaluation:
            (image,) = sample.inputs.values()
            scale, zero_point = source["quantization"]
            if tuple(source["shape"]) != image.shape:
                image = np.moveaxis(image, 1, -1)
            stored = np.clip(np.round(image / scale) + zero_point, -128, 127)
            interpreter.set_tensor(source["index"], stored.astype(np.int8))
            interpreter.invoke()
            scale, zero_point = result["quantization"]
            values = interpreter.get_tensor(result["index"]).astype(np.float32)
            outputs.append({name: ((values - zero_point) * scale).reshape(wanted.shape)})
        seen = scores(load_metric(case.metric), [reference, outputs], evaluation)
        found["plain" if kernels != OpResolverType.AUTO else "XNNPACK"] = seen[1]
    return found


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
