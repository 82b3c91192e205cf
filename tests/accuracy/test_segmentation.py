"""`segmentation-iou`: shapes of outputs, masks of another size, and pixels that do not count."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from actcc.accuracy.built_in import load_metric
from actcc.calibration import Sample
from actcc.calibration.sample import SampleSet
from actcc.errors import DataError

SAMPLES = SampleSet("images", None, ())
# Classes 0 | 1 over 2 | 2.
TRUTH = np.repeat(np.repeat(np.array([[0, 1], [2, 2]]), 4, axis=0), 4, axis=1)


def sample_of(mask: np.ndarray, size: tuple[int, int] = (8, 8), **more: np.ndarray) -> Sample:
    return Sample("a.png", {"x": np.zeros((1, 3, *size), np.float32)}, {"mask": mask, **more})


def logits(classes: np.ndarray, count: int = 3) -> np.ndarray:
    return np.eye(count, dtype=np.float32)[classes].transpose(2, 0, 1)[None]


def figure(output: np.ndarray, *samples: Sample, specification: str = "segmentation-iou"):
    metric = pickle.loads(pickle.dumps(load_metric(specification)))
    found = [metric.observe({"y": output}, sample) for sample in samples]
    return metric.judge(found, SAMPLES)(found).value(np.arange(len(found)))


@pytest.mark.parametrize(
    "output",
    [logits(TRUTH), logits(TRUTH).transpose(0, 2, 3, 1), TRUTH[None], TRUTH[None, None]],
    ids=["NCHW", "NHWC", "indices", "indices with a channel"],
)
def test_a_perfect_map_reaches_one(output: np.ndarray) -> None:
    assert figure(output, sample_of(TRUTH)) == 1.0


def test_classes_are_averaged_and_pixels_added_up() -> None:
    predicted = TRUTH.copy()
    predicted[0:4, 4:8] = 0  # class 1 is taken for 0: 0 has 16 of 32, 1 none, 2 all
    assert figure(logits(predicted), sample_of(TRUTH)) == pytest.approx((16 / 32 + 0 + 1) / 3)
    other = sample_of(np.zeros((8, 8), np.int32))
    union = 32 + 64  # predicted as 0 in two images, or labelled 0
    right = 16 + 32
    found = figure(logits(predicted), sample_of(TRUTH), other)
    assert found == pytest.approx((right / union + 0 + 32 / (32 + 32)) / 3)


def test_a_class_that_is_labelled_nowhere_is_not_averaged() -> None:
    predicted = TRUTH.copy()
    predicted[0, 0] = 3
    assert figure(logits(predicted, 4), sample_of(TRUTH)) == pytest.approx((15 / 16 + 2) / 3)


def test_pixels_labelled_255_do_not_count() -> None:
    mask = TRUTH.copy()
    mask[0:4, 4:8] = 255
    predicted = TRUTH.copy()
    predicted[0:4, 4:8] = 2
    assert figure(logits(predicted), sample_of(mask)) == 1.0


def test_a_small_map_is_looked_up_at_the_nearest_position() -> None:
    assert figure(logits(TRUTH[::4, ::4]), sample_of(TRUTH)) == 1.0


def test_a_letterboxed_image_is_found_in_the_input() -> None:
    padded = np.zeros((8, 8), np.int64)
    padded[2:6] = TRUTH[::2]
    mask = np.repeat(np.repeat(TRUTH[::2], 5, axis=0), 5, axis=1)
    sample = sample_of(mask, image_size=np.array([20, 40]), placement=np.array([2, 0, 4, 8]))
    assert figure(logits(padded), sample) == 1.0


def test_pixels_that_a_crop_cut_off_do_not_count() -> None:
    mask = np.full((8, 12), 2)
    mask[:, 2:10] = TRUTH
    sample = sample_of(mask, image_size=np.array([8, 12]), placement=np.array([0, -2, 8, 12]))
    assert figure(logits(TRUTH), sample) == 1.0


def test_one_float_a_pixel_is_the_probability_of_class_1() -> None:
    mask = (TRUTH == 2).astype(int)
    assert figure(np.where(mask, 0.6, 0.4)[None, None], sample_of(mask)) == 1.0


def test_what_cannot_be_compared_is_said() -> None:
    metric = load_metric("segmentation-iou")
    with pytest.raises(DataError, match=r"a\.png has class 7, and the model has classes 0 to 2"):
        metric.observe({"y": logits(TRUTH)}, sample_of(np.full((8, 8), 7)))
    with pytest.raises(DataError, match=r"x has no 'mask'.*give --labels FOLDER"):
        metric.observe({"y": logits(TRUTH)}, Sample("x", {}, {}))
    with pytest.raises(DataError, match=r"cannot be told from 'y' \[1, 9\]; name it"):
        metric.observe({"y": np.zeros((1, 9))}, sample_of(TRUTH))
    with pytest.raises(DataError, match=r"no pixel of images is labelled"):
        figure(logits(TRUTH), sample_of(np.full((8, 8), 255)))


def test_one_of_several_maps_is_named() -> None:
    outputs = {"coarse": logits(TRUTH[::4, ::4]), "fine": logits(TRUTH)}
    with pytest.raises(DataError, match="segmentation-iou:NAME"):
        load_metric("segmentation-iou").observe(outputs, sample_of(TRUTH))
    found = load_metric("segmentation-iou:fine").observe(outputs, sample_of(TRUTH))
    assert found[0].sum() == 64
