"""Built-in preprocessing is right if real models recognise real images with it."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from actcc.calibration import load_samples
from actcc.graph import Graph
from actcc.runtime import run, session

pytestmark = pytest.mark.shared


@pytest.mark.parametrize(
    ("model", "preprocessing", "first_class"),
    [
        ("mobilenet_v2", "imagenet", 0),
        ("mobilenet_v3_small", "imagenet-raw", 0),
        ("mobilenet_v2_qdq", "imagenet-raw", 1),
    ],
)
def test_classifiers_are_right_on_most_imagenet_images(
    shared: Path, model: str, preprocessing: str, first_class: int
) -> None:
    path = shared / "models" / f"{model}.onnx"
    folder = shared / "data" / "imagenet"
    with (folder / "evaluation.csv").open() as file:
        classes = {row["file"]: int(row["class"]) for row in csv.DictReader(file)}
    data = load_samples(folder / "evaluation", Graph.load(path), preprocessing, limit=100)
    runner = session(path)
    right = [
        np.argmax(next(iter(run(runner, sample.inputs).values()))) - first_class
        == classes[sample.name]
        for sample in data
    ]
    assert len(right) == 100
    assert np.mean(right) > 0.70


def test_the_surest_detection_of_yolox_is_a_labelled_object(shared: Path) -> None:
    path = shared / "models" / "yolox_nano_416.onnx"
    labels = json.loads((shared / "data" / "coco" / "calibration.json").read_text())
    classes = sorted(category["id"] for category in labels["categories"])
    ids = {image["file_name"]: image["id"] for image in labels["images"]}
    data = load_samples(shared / "data/coco/calibration", Graph.load(path), "yolox", limit=20)
    runner = session(path)
    right = 0
    for sample in data:
        kind, box = _surest(run(runner, sample.inputs)["output"][0])
        width = sample.annotations["placement"][3] / sample.annotations["image_size"][1]
        right += any(
            _overlap(box, np.asarray(label["bbox"]) * width) > 0.5
            for label in labels["annotations"]
            if label["image_id"] == ids[sample.name] and label["category_id"] == classes[kind]
        )
    assert right >= 17


def _surest(output: np.ndarray) -> tuple[int, np.ndarray]:
    """Class and box (left, top, width, height in input pixels) of the best of [3549, 85]."""
    cells, strides = [], []
    for stride in (8, 16, 32):
        side = 416 // stride
        rows, columns = np.divmod(np.arange(side * side), side)
        cells.append(np.stack([columns, rows], axis=1))
        strides.append(np.full((side * side, 1), stride))
    stride = np.concatenate(strides)
    centres = (output[:, :2] + np.concatenate(cells)) * stride
    sizes = np.exp(output[:, 2:4]) * stride
    scores = output[:, 4:5] * output[:, 5:]
    anchor, kind = np.unravel_index(scores.argmax(), scores.shape)
    return int(kind), np.concatenate([centres[anchor] - sizes[anchor] / 2, sizes[anchor]])


def _overlap(first: np.ndarray, second: np.ndarray) -> float:
    """Intersection over union of two boxes (left, top, width, height)."""
    low = np.maximum(first[:2], second[:2])
    high = np.minimum(first[:2] + first[2:], second[:2] + second[2:])
    shared_area = np.prod(np.maximum(high - low, 0))
    return float(shared_area / (np.prod(first[2:]) + np.prod(second[2:]) - shared_area))
