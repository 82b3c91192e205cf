"""`coco-map`: annotations, classes and the figures that tell a wrong decoder."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from test_decoders import BOXES, CLASSES, LAYOUTS, SCORES, sample_of

from actcc.accuracy.built_in import load_metric
from actcc.calibration import Sample
from actcc.calibration.sample import SampleSet
from actcc.errors import DataError


def labelled(
    boxes: np.ndarray = BOXES, classes: np.ndarray = CLASSES, **more: np.ndarray
) -> Sample:
    return sample_of(boxes=boxes, classes=classes, **more)


def figure(specification: str, outputs: dict[str, np.ndarray], sample: Sample) -> float:
    metric = pickle.loads(pickle.dumps(load_metric(specification)))
    found = [metric.observe(outputs, sample)]
    samples = SampleSet("images", None, (0,))
    return metric.judge(found, samples)(found).value(np.arange(1))


@pytest.mark.parametrize("specification", ["coco-map", "coco-map50", "coco-map:yolov8"])
def test_exact_boxes_reach_one(specification: str) -> None:
    assert figure(specification, LAYOUTS["yolov8"], labelled()) == 1.0


def test_the_mean_is_over_thresholds_and_classes() -> None:
    boxes = BOXES.copy()
    boxes[0, 3] = 30 + 70 / 0.72  # overlap 0.72: right at 0.50 to 0.70, five of ten
    assert figure("coco-map", LAYOUTS["yolov8"], labelled(boxes)) == pytest.approx((0.5 + 1) / 2)
    assert figure("coco-map50", LAYOUTS["yolov8"], labelled(boxes)) == 1.0


def test_padding_of_arrays_does_not_count() -> None:
    padded = np.concatenate([BOXES, np.zeros((3, 4))])
    sample = labelled(padded, np.array([*CLASSES, -1, -1, -1]))
    assert figure("coco-map", LAYOUTS["yolov8"], sample) == 1.0


def test_category_ids_become_indices() -> None:
    ids = np.array([1, 2, 90])
    outputs = {"b": np.concatenate([BOXES, BOXES]), "l": np.array([90, 1, 13, 91]), "s": np.ones(4)}
    assert figure("coco-map", outputs, labelled(category_ids=ids)) == 1.0


def test_missing_annotations_are_said() -> None:
    with pytest.raises(DataError, match=r"a\.jpg has no 'boxes'; give --labels"):
        figure("coco-map", LAYOUTS["yolov8"], sample_of())
    with pytest.raises(DataError, match=r"boxes \[2, 4\], classes \[1\].*give \[m, 4\]"):
        figure("coco-map", LAYOUTS["yolov8"], labelled(classes=np.zeros(1, int)))


def test_a_class_that_the_model_lacks_is_said() -> None:
    with pytest.raises(DataError, match=r"class 7, and the model has classes 0 to 2 as 'yolov8'"):
        figure("coco-map", LAYOUTS["yolov8"], labelled(classes=np.array([7, 0])))


def test_an_original_that_finds_nothing_right_is_refused() -> None:
    with pytest.raises(DataError, match=r"original reaches 0 on images.*--preprocess.*decoder"):
        figure("coco-map", LAYOUTS["yolov8"], labelled(classes=CLASSES[::-1]))


def test_data_without_an_object_is_refused() -> None:
    with pytest.raises(DataError, match="no object is labelled in images"):
        figure("coco-map", LAYOUTS["yolov8"], labelled(np.zeros((0, 4)), np.zeros(0, int)))


def test_scores_that_are_no_probabilities_tell_a_wrong_decoder() -> None:
    outputs = {"b": BOXES, "l": CLASSES, "s": SCORES * 40}
    with pytest.raises(DataError, match=r"scores reach 36, .*another layout, name it: "):
        figure("coco-map", outputs, labelled())


def test_an_unknown_decoder_is_refused_when_the_metric_is_named() -> None:
    with pytest.raises(DataError, match=r"no decoder is named 'yolo12'; known: .*yolov8"):
        load_metric("coco-map:yolo12")
