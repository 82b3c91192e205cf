"""`top1` and `top5`: ties, NaN, several outputs, and labels that are shifted by a background."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from actcc.accuracy.built_in import load_metric
from actcc.calibration import Sample
from actcc.calibration.sample import SampleSet
from actcc.errors import DataError

SAMPLES = SampleSet("images", None, ())


def labelled(label: object, **more: object) -> Sample:
    return Sample("a.jpg", {}, {"label": np.array(label), **more})


def figure(specification: str, scores: list[list[float]], labels: list[int], **kind: object):
    metric = pickle.loads(pickle.dumps(load_metric(specification)))
    rows = [{"logits": np.array([row], **kind)} for row in scores]
    found = [metric.observe(row, labelled(label)) for row, label in zip(rows, labels, strict=True)]
    return metric.judge(found, SAMPLES)(found).value(np.arange(len(found)))


def test_top1_is_the_share_of_right_classes() -> None:
    scores = [[0.1, 0.9, 0.0], [0.8, 0.2, 0.3], [0.1, 0.2, 0.7], [0.5, 0.4, 0.6]]
    assert figure("top1", scores, [1, 0, 2, 0]) == 0.75


def test_top5_takes_the_five_best() -> None:
    scores = [[9, 8, 7, 6, 5, 4]] * 2
    assert figure("top5", scores, [4, 5]) == 0.5


def test_quantized_ties_go_to_the_lowest_class() -> None:
    assert figure("top1", [[7, 200, 200, 3]] * 2, [1, 2], dtype=np.uint8) == 0.5


def test_nan_is_in_no_ones_best() -> None:
    scores = [[np.nan, 1.0], [np.nan, 1.0], [np.nan, np.nan], [np.nan, np.nan]]
    assert figure("top1", scores, [0, 1, 0, 1]) == 0.25


@pytest.mark.parametrize("shape", [(1, 4), (4,), (1, 4, 1, 1), (1, 1, 4)])
def test_a_vector_may_have_axes_of_one(shape: tuple[int, ...]) -> None:
    outputs = {"y": np.array([0, 0, 5, 0]).reshape(shape), "map": np.zeros((1, 8, 3, 3))}
    found = load_metric("top1").observe(outputs, labelled([2]))
    assert (found.best.tolist(), found.wanted) == ([2], 2)


def test_one_of_several_vectors_is_named() -> None:
    outputs = {"logits": np.zeros((1, 4)), "features": np.zeros((1, 64))}
    with pytest.raises(DataError, match=r"2 of the outputs are class scores.*as in top1:logits"):
        load_metric("top1").observe(outputs, labelled(0))
    assert load_metric("top1:logits").observe(outputs, labelled(0)).wanted == 0
    with pytest.raises(DataError, match="output 'probs' is no vector"):
        load_metric("top1:probs").observe(outputs, labelled(0))


def test_a_background_class_is_said_with_an_offset() -> None:
    scores = np.eye(5)[[1, 2, 3, 4]].tolist()
    assert figure("top1:+1", scores, [0, 1, 2, 3]) == 1.0
    assert figure("top1:logits+1", scores, [0, 1, 2, 3]) == 1.0
    with pytest.raises(DataError, match=r"right on 0 % .* 100 % if class = label \+1; .*top1:\+1"):
        figure("top1", scores, [0, 1, 2, 3])
    with pytest.raises(DataError, match=r"class = label -1; if so, say --metric top1:logits-1"):
        figure("top1:logits", np.eye(5)[[0, 1, 2, 3]].tolist(), [1, 2, 3, 4])


def test_a_bad_model_of_few_classes_is_not_taken_for_shifted_labels() -> None:
    assert figure("top1", np.eye(3)[[1, 2, 0]].tolist(), [0, 1, 2]) == 0.0


def test_a_label_that_the_model_lacks_is_said() -> None:
    metric = load_metric("top1")
    with pytest.raises(DataError, match=r"a\.jpg is labelled 9, and the model has classes 0 to 3"):
        metric.observe({"y": np.zeros((1, 4))}, labelled(9))
    with pytest.raises(DataError, match=r"the images lie in 3 class folders.*has 4 classes"):
        metric.observe({"y": np.zeros((1, 4))}, labelled(0, class_count=np.array(3)))


@pytest.mark.parametrize("label", [0.5, [1, 2], "cat"])
def test_a_label_is_one_whole_number(label: object) -> None:
    with pytest.raises(DataError, match=r"'label' of a\.jpg is .*; give one whole number"):
        load_metric("top1").observe({"y": np.zeros((1, 4))}, labelled(label))


def test_samples_without_a_label_are_refused() -> None:
    with pytest.raises(DataError, match=r"x#0 has no label; give --labels"):
        load_metric("top1").observe({"y": np.zeros((1, 4))}, Sample("x#0", {}, {}))
