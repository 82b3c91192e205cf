"""Decoders: each layout, written by hand with two objects in it, is told by its shapes and read."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from actcc.accuracy.built_in import BUILT_IN_METRICS
from actcc.accuracy.detection.boxes import Detections, in_image, overlaps, suppress
from actcc.accuracy.detection.decoders import DECODERS
from actcc.accuracy.detection.detect import decode, find_decoder
from actcc.accuracy.detection.grid import cells_of
from actcc.calibration import Sample
from actcc.errors import DataError

SIZE = (128, 192)
CELLS = 16 * 24 + 8 * 12 + 4 * 6
# Two objects: corners in input pixels, score and class of three.
BOXES = np.array([[20.0, 30.0, 60.0, 100.0], [100.0, 10.0, 180.0, 50.0]])
SCORES, CLASSES = np.array([0.9, 0.6]), np.array([2, 0])
CENTRES, SIDES = (BOXES[:, :2] + BOXES[:, 2:]) / 2, BOXES[:, 2:] - BOXES[:, :2]
SHARE = np.array([192, 128, 192, 128])


def sample_of(size: tuple[int, int] = SIZE, **annotations: np.ndarray) -> Sample:
    return Sample("a.jpg", {"images": np.zeros((1, 3, *size), np.float32)}, annotations)


def class_scores(count: int = 3) -> np.ndarray:
    scores = np.zeros((2, count))
    scores[np.arange(2), CLASSES] = SCORES
    return scores


def table(rows: int, *columns: np.ndarray, at: tuple[int, int] = (100, 400)) -> np.ndarray:
    """[1, rows, columns] of zeros, but for the two objects."""
    values = np.concatenate(columns, axis=1)
    found = np.zeros((1, rows, values.shape[1]), np.float32)
    found[0, list(at)] = values
    return found


def yolox(raw: bool) -> dict[str, np.ndarray]:
    corner, stride = cells_of(CELLS, SIZE)
    at = [
        int(np.argmin(np.abs((corner + 0.5) * stride - centre).sum(1) + (stride[:, 0] != 16) * 999))
        for centre in CENTRES
    ]
    boxes = np.concatenate([np.full((CELLS, 2), 0.5), np.full((CELLS, 2), -0.5)], axis=1)
    boxes[at] = np.concatenate([CENTRES / 16 - corner[at], np.log(SIDES / 16)], axis=1)
    if not raw:
        boxes = np.concatenate([(boxes[:, :2] + corner) * stride, np.exp(boxes[:, 2:]) * stride], 1)
    rest = np.zeros((CELLS, 4))
    rest[at] = np.concatenate(
        [np.sqrt(SCORES)[:, None], class_scores() / np.sqrt(SCORES)[:, None]], 1
    )
    return {"output": np.concatenate([boxes, rest], axis=1)[None].astype(np.float32)}


def fastestdet() -> dict[str, np.ndarray]:
    found = np.zeros((1, 8, 8, 12), np.float32)
    for index, (centre, side) in enumerate(zip(CENTRES / 16, SIDES / [192, 128], strict=True)):
        column, row = np.floor(centre).astype(int)
        found[0, 0, row, column] = SCORES[index]
        found[0, 1:3, row, column] = np.arctanh(centre - [column, row])
        found[0, 3:5, row, column] = np.log(side / (1 - side))
        found[0, 5 + CLASSES[index], row, column] = SCORES[index]
    return {"758": found}


def ssd() -> dict[str, np.ndarray]:
    scores = np.concatenate([np.zeros((2, 1)), class_scores()], axis=1)
    return {"scores": table(1200, scores), "boxes": table(1200, BOXES / SHARE)}


LAYOUTS = {
    "yolox": yolox(raw=True),
    "yolox decoded": yolox(raw=False),
    "yolov5": {"y": table(3 * CELLS, CENTRES, SIDES, np.ones((2, 1)), class_scores())},
    "yolov8": {"y": table(CELLS, CENTRES, SIDES, class_scores()).transpose(0, 2, 1)},
    "rtdetr": {
        "y": table(300, CENTRES / [192, 128], SIDES / [192, 128], class_scores(), at=(7, 200))
    },
    "yolo-nas": {"b": table(CELLS, BOXES), "s": table(CELLS, class_scores())},
    "ssd": ssd(),
    "fastestdet": fastestdet(),
    "end-to-end": {"y": table(300, BOXES, SCORES[:, None], CLASSES[:, None], at=(0, 1))},
    "mmdetection": {
        "dets": np.concatenate([BOXES, SCORES[:, None]], axis=1)[None],
        "labels": CLASSES[None],
    },
    "torchvision": {"b": BOXES, "l": CLASSES, "s": SCORES},
    "tensorflow": {
        "detection_boxes": (BOXES / SHARE)[None][..., [1, 0, 3, 2]],
        "detection_scores": SCORES[None],
        "detection_classes": CLASSES[None].astype(np.float32),
        "num_detections": np.array([2.0]),
    },
}


@pytest.mark.parametrize("kind", LAYOUTS)
def test_a_layout_is_told_by_its_shapes_and_read(kind: str) -> None:
    name = kind.partition(" ")[0]
    decoder, decoded = decode(LAYOUTS[kind], sample_of(), None)
    assert decoder.name == name
    found = decoded.detections
    np.testing.assert_allclose(found.boxes, BOXES, atol=1e-3)
    np.testing.assert_allclose(found.scores, SCORES, rtol=1e-5)
    assert found.classes.tolist() == [c + (name == "ssd") for c in CLASSES]
    assert decoded.class_count in (3, None)
    _, named = decode(LAYOUTS[kind], sample_of(), name)
    np.testing.assert_array_equal(named.detections.boxes, found.boxes)


def test_every_decoder_is_tested() -> None:
    assert {kind.partition(" ")[0] for kind in LAYOUTS} == {decoder.name for decoder in DECODERS}


def test_two_heads_are_cells_too() -> None:
    outputs = {"y": table(16 * 24 + 8 * 12, CENTRES, SIDES, class_scores()).transpose(0, 2, 1)}
    decoder, decoded = decode(outputs, sample_of(), None)
    assert decoder.name == "yolov8"
    np.testing.assert_allclose(decoded.detections.boxes, BOXES)


def test_a_named_decoder_reads_another_number_of_boxes() -> None:
    outputs = {"y": table(777, CENTRES, SIDES, class_scores())}
    assert find_decoder(outputs, sample_of()) is None
    _, decoded = decode(outputs, sample_of(), "yolov8")  # [1, n, 4+C] as well
    np.testing.assert_allclose(decoded.detections.boxes, BOXES)


def test_unknown_outputs_list_the_decoders() -> None:
    with pytest.raises(DataError, match=r"outputs 'y' \[1, 777, 7\]; name one.*yolov5: .*ssd: "):
        decode({"y": np.zeros((1, 777, 7))}, sample_of(), None)
    with pytest.raises(DataError, match=r"'ssd' reads .* and the outputs are 'y' \[1, 777, 7\]"):
        decode({"y": np.zeros((1, 777, 7))}, sample_of(), "ssd")
    with pytest.raises(DataError, match=r"no decoder is named 'yolo'; known: .*yolov8"):
        decode({"y": np.zeros((1, 777, 7))}, sample_of(), "yolo")


def test_what_is_not_finite_or_has_no_area_is_left_out() -> None:
    boxes = np.array([*BOXES, [np.nan, 0, 9, 9], [5, 5, 5, 9], [200, 0, 300, 9]])
    outputs = {"b": boxes, "l": np.zeros(5, np.int64), "s": np.array([0.9, np.nan, 0.8, 0.8, 0.8])}
    found = decode(outputs, sample_of(), None)[1].detections
    np.testing.assert_allclose(found.boxes, BOXES[:1])


def test_boxes_go_back_to_the_image_that_was_letterboxed() -> None:
    sample = sample_of(
        image_size=np.array([200, 400]), placement=np.array([16, 0, 96, 192])
    )  # half as large and 16 rows down
    boxes = np.array([[24.0, 40.0, 48.0, 64.0], [-10.0, 0.0, 20.0, 130.0]])
    found = in_image(Detections(boxes, np.ones(2), np.zeros(2, np.int64)), sample)
    scale = 400 / 192
    expected = [[24 * scale, 24 * scale, 48 * scale, 48 * scale], [0, 0, 20 * scale, 200]]
    np.testing.assert_allclose(found.boxes, expected)


def test_suppression_leaves_out_what_a_surer_box_of_its_class_covers() -> None:
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 9], [0, 0, 10, 9], [0, 0, 10, 5]], np.float64)
    found = Detections(boxes, np.array([0.5, 0.9, 0.8, 0.7]), np.array([1, 1, 0, 1]))
    kept = suppress(found, 0.65)
    assert kept.scores.tolist() == [0.9, 0.8, 0.7]  # 0.9 covers 0.5; 5/9 is below 0.65


def test_overlap_with_a_crowd_is_the_share_of_the_box() -> None:
    box, crowd = np.array([[0.0, 0.0, 10.0, 10.0]]), np.array([[0.0, 0.0, 5.0, 100.0]])
    assert overlaps(box, crowd)[0, 0] == pytest.approx(50 / 550)
    assert overlaps(box, crowd, np.array([True]))[0, 0] == 0.5


def test_an_input_of_no_image_is_refused() -> None:
    sample = Sample("x#0", {"ids": np.zeros((1, 8), np.int64)}, {})
    with pytest.raises(DataError, match=r"x#0: the size .* \(ids \[1, 8\]\).*--metric file"):
        find_decoder({"y": np.zeros((1, 300, 6))}, sample)


def test_the_guide_lists_every_decoder_and_metric() -> None:
    guide = (Path(__file__).parents[2] / "docs" / "guide.md").read_text()
    for name in (*(decoder.name for decoder in DECODERS), *BUILT_IN_METRICS):
        assert f"`{name}`" in guide
