"""Average precision equals pycocotools', on all images, on selections and on real detections."""

import pickle
from pathlib import Path

import numpy as np
import pytest
from detection_scenes import Scene, by_pycocotools, random_scene

from actcc.accuracy.detection.average_precision import DetectionScores
from actcc.accuracy.detection.boxes import Detections
from actcc.accuracy.detection.coco_map import CocoMap, truth_of
from actcc.accuracy.detection.detect import decode
from actcc.accuracy.detection.matching import COCO_THRESHOLDS, Truth, match
from actcc.calibration import load_samples
from actcc.calibration.labels import label_samples
from actcc.graph import Graph
from actcc.runtime import run, session

NOTHING = Detections(np.zeros((0, 4)), np.zeros(0), np.zeros(0, np.int64))
NO_TRUTH = Truth(np.zeros((0, 4)), np.zeros(0, np.int64), np.zeros(0, bool))


def scores_of(scenes: list[Scene], thresholds: tuple[float, ...] = COCO_THRESHOLDS):
    return DetectionScores.of([match(found, truth, thresholds) for found, truth in scenes])


def whole(scores: DetectionScores) -> float:
    return scores.value(np.arange(len(scores)))


def random_scenes(seed: int, count: int = 12, classes: int = 4) -> list[Scene]:
    generator = np.random.default_rng(seed)
    scenes = [random_scene(generator, classes) for _ in range(count)]
    scenes[3] = (NOTHING, scenes[3][1])
    scenes[5] = (scenes[5][0], NO_TRUTH)
    return scenes


@pytest.mark.parametrize("seed", range(12))
def test_random_scenes_with_crowds_have_pycocotools_figure(seed: int) -> None:
    scenes = random_scenes(seed)
    both, half = by_pycocotools(scenes, 4)
    assert 0.05 < both < half
    assert whole(scores_of(scenes)) == pytest.approx(both, abs=1e-9)
    assert whole(scores_of(scenes, (0.5,))) == pytest.approx(half, abs=1e-9)


@pytest.mark.parametrize("seed", range(6))
def test_a_draw_has_the_figure_of_its_images_written_out(seed: int) -> None:
    scenes = random_scenes(seed, count=9)
    drawn = np.random.default_rng(seed).integers(0, 9, 9)
    expected, _ = by_pycocotools([scenes[index] for index in drawn], 4)
    assert scores_of(scenes).value(drawn) == pytest.approx(expected, abs=1e-9)


def test_only_the_hundred_surest_of_a_class_count() -> None:
    generator = np.random.default_rng(0)
    scenes = [random_scene(generator, classes=1, objects=80) for _ in range(3)]
    assert len(scenes[0][0]) > 200
    expected, _ = by_pycocotools(scenes, 1)
    assert whole(scores_of(scenes)) == pytest.approx(expected, abs=1e-9)


def test_equal_scores_keep_the_order_of_the_images() -> None:
    scenes = [
        (Detections(found.boxes, np.round(found.scores, 1), found.classes), truth)
        for found, truth in random_scenes(1)
    ]
    expected, _ = by_pycocotools(scenes, 4)
    assert whole(scores_of(scenes)) == pytest.approx(expected, abs=1e-9)


def test_finding_everything_exactly_is_exactly_one() -> None:
    scenes = [
        (Detections(truth.boxes, np.linspace(0.9, 0.3, len(truth.boxes)), truth.classes), truth)
        for _, truth in random_scenes(2)
    ]
    scores = scores_of(scenes)
    assert whole(scores) == 1.0
    assert scores.value(np.array([0, 0, 7, 2])) == 1.0


def test_nothing_to_find_is_no_number_and_finding_nothing_is_zero() -> None:
    _, truth = random_scenes(0)[0]
    scores = scores_of([(NOTHING, NO_TRUTH), (NOTHING, truth)])
    assert np.isnan(scores.value(np.array([0, 0])))
    assert whole(scores) == 0.0
    assert np.isnan(whole(scores_of([(NOTHING, NO_TRUTH)])))


def test_an_object_inside_a_crowd_is_found_first() -> None:
    box = np.array([[10.0, 10.0, 50.0, 50.0]])
    truth = Truth(
        np.concatenate([[[0.0, 0.0, 100.0, 100.0]], box]), np.zeros(2, int), np.array([True, False])
    )
    twice = Detections(np.repeat(box, 2, axis=0), np.array([0.9, 0.8]), np.zeros(2, np.int64))
    found = match(twice, truth, (0.5,))
    assert found.right.tolist() == [[True, False]]
    assert found.ignored.tolist() == [[False, True]]  # the second can only be of the crowd


@pytest.mark.shared
def test_yolox_on_real_images_has_pycocotools_figure(shared: Path) -> None:
    path, coco = shared / "models" / "yolox_nano_416.onnx", shared / "data" / "coco"
    samples = load_samples(coco / "evaluation", Graph.load(path), "yolox")
    samples = label_samples(samples, coco / "evaluation.json")
    metric = CocoMap()
    runner = session(path)
    scenes, observations = [], []
    for sample in samples:
        outputs = run(runner, sample.inputs)
        _, decoded = decode(outputs, sample, None)
        scenes.append((decoded.detections, truth_of(sample, "coco-map")))
        observations.append(pickle.loads(pickle.dumps(metric.observe(outputs, sample))))
    scores = metric.judge(observations, samples)(observations)
    expected, _ = by_pycocotools(scenes, 80)
    found = scores.value(np.arange(len(samples)))
    assert found == pytest.approx(expected, abs=1e-9)
    assert 0.33 < found < 0.40
