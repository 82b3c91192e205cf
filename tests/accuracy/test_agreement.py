"""`agreement`: the original has exactly 1, and what is lost counts."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from detection_scenes import random_scene
from test_decoders import BOXES, CLASSES, LAYOUTS, SCORES, sample_of

from actcc.accuracy.agreement import Agreement
from actcc.accuracy.built_in import load_metric
from actcc.calibration.sample import Sample, SampleSet
from actcc.errors import DataError

Outputs = dict[str, np.ndarray]
SAMPLES = SampleSet("images", None, ())


def torchvision(boxes: np.ndarray, scores: np.ndarray, classes: np.ndarray) -> Outputs:
    return {"b": boxes, "s": scores, "l": classes}


def figure(original: list[Outputs], result: list[Outputs], specification: str = "agreement"):
    metric = pickle.loads(pickle.dumps(load_metric(specification)))
    sample = sample_of((400, 500))
    judge = metric.judge([metric.observe(outputs, sample) for outputs in original], SAMPLES)
    scores = judge([metric.observe(outputs, sample) for outputs in result])
    return scores.value(np.arange(len(original)))


@pytest.mark.parametrize("kind", ["yolox", "yolov8", "fastestdet", "ssd", "torchvision"])
def test_a_detector_agrees_with_itself(kind: str) -> None:
    metric = Agreement()
    found = metric.observe(LAYOUTS[kind], sample_of())
    assert metric.judge([found], SAMPLES)([found]).value(np.arange(1)) == 1.0


def test_the_original_has_exactly_one_with_many_detections_and_doubles() -> None:
    generator = np.random.default_rng(0)
    outputs = []
    for _ in range(5):
        found, _ = random_scene(generator, classes=3, objects=120)
        boxes = np.concatenate([found.boxes, found.boxes[:50]])
        scores = np.concatenate([found.scores, found.scores[:50]])
        outputs.append(
            torchvision(boxes, scores, np.concatenate([found.classes, found.classes[:50]]))
        )
    assert figure(outputs, outputs) == 1.0


def test_only_what_the_original_is_sure_of_must_be_found() -> None:
    unsure = torchvision(BOXES, np.array([0.9, 0.29]), CLASSES)
    only_first = torchvision(BOXES[:1], SCORES[:1], CLASSES[:1])
    assert figure([unsure], [only_first]) == 1.0
    sure = torchvision(BOXES, np.array([0.9, 0.31]), CLASSES)
    assert figure([sure], [only_first]) == 0.5


def test_a_box_elsewhere_and_another_class_are_not_found() -> None:
    original = torchvision(BOXES, SCORES, CLASSES)
    assert figure([original], [torchvision(BOXES + 200, SCORES, CLASSES)]) == 0.0
    assert figure([original], [torchvision(BOXES, SCORES, CLASSES + 1)]) == 0.0


def test_classifiers_agree_where_the_best_class_is_the_same() -> None:
    original = [{"y": row[None]} for row in np.eye(4)]
    result = [{"y": np.roll(row, index == 0)[None]} for index, row in enumerate(np.eye(4))]
    assert figure(original, original) == 1.0
    assert figure(original, result) == 0.75
    assert figure(original, result, "agreement:classes") == 0.75


def test_a_classifier_needs_no_image() -> None:
    sample = Sample("x#0", {"ids": np.zeros((1, 8), np.int64)}, {})
    assert Agreement().observe({"y": np.array([[0.0, 2.0]])}, sample).tolist() == [1]


def test_a_broken_classifier_agrees_in_nothing() -> None:
    assert figure([{"y": np.array([[1.0, 0.0]])}], [{"y": np.full((1, 2), np.nan)}]) == 0.0


def test_an_original_that_is_sure_of_nothing_is_refused() -> None:
    unsure = torchvision(BOXES, SCORES / 10, CLASSES)
    with pytest.raises(DataError, match=r"finds nothing with a score of 0\.3 or more in images"):
        figure([unsure], [unsure])


def test_outputs_of_no_known_kind_are_said() -> None:
    with pytest.raises(DataError, match="no decoder is known for the outputs 'map'"):
        Agreement().observe({"map": np.zeros((1, 21, 64, 64))}, sample_of())
    with pytest.raises(DataError, match="no decoder is named 'yolo'"):
        load_metric("agreement:yolo")
