"""Random objects and detections, and pycocotools' figure for them."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence

import numpy as np
import pytest

from actcc.accuracy.detection.boxes import Detections
from actcc.accuracy.detection.matching import Truth

Scene = tuple[Detections, Truth]


def random_scene(generator: np.random.Generator, classes: int, objects: int = 8) -> Scene:
    """Objects, a tenth of them crowds, and detections: near hits, doubles and strays."""
    corner = generator.uniform(0, 300, (objects, 2))
    boxes = np.concatenate([corner, corner + generator.uniform(5, 120, (objects, 2))], axis=1)
    kinds = generator.integers(0, classes, objects)
    truth = Truth(boxes, kinds, generator.random(objects) < 0.1)
    near = np.repeat(boxes, 3, axis=0)
    near = near + generator.normal(0, 6, near.shape)
    stray = generator.uniform(0, 300, (objects, 2))
    found = np.concatenate([near, np.concatenate([stray, stray + 40], axis=1)])
    labels = np.concatenate([np.repeat(kinds, 3), generator.integers(0, classes, objects)])
    scores = generator.random(len(found))
    kept = (found[:, 2:] > found[:, :2] + 1).all(axis=1) & (generator.random(len(found)) < 0.8)
    return Detections(found[kept], scores[kept], labels[kept].astype(np.int64)), truth


def by_pycocotools(scenes: Sequence[Scene], classes: int) -> tuple[float, float]:
    """mAP50-95 and mAP50 of all scenes."""
    module = pytest.importorskip("pycocotools.cocoeval", reason="extra 'test' brings pycocotools")
    objects, found = [], []
    for image, (detections, truth) in enumerate(scenes, start=1):
        for box, kind, crowd in zip(truth.boxes, truth.classes, truth.crowd, strict=True):
            objects.append(_entry(image, box, kind, id=len(objects) + 1, iscrowd=int(crowd)))
            objects[-1]["area"] = float(objects[-1]["bbox"][2] * objects[-1]["bbox"][3])
        for box, score, kind in zip(
            detections.boxes, detections.scores, detections.classes, strict=True
        ):
            found.append(_entry(image, box, kind, score=float(score)))
    with contextlib.redirect_stdout(io.StringIO()):
        labelled = _coco(
            {
                "images": [{"id": image} for image in range(1, len(scenes) + 1)],
                "annotations": objects,
                "categories": [{"id": kind} for kind in range(classes)],
            }
        )
        evaluation = module.COCOeval(labelled, labelled.loadRes(found), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0]), float(evaluation.stats[1])


def _entry(image: int, box: np.ndarray, kind: int, **more: object) -> dict[str, object]:
    left, top, right, bottom = (float(value) for value in box)
    shape = [left, top, right - left, bottom - top]
    return {"image_id": image, "category_id": int(kind), "bbox": shape, **more}


def _coco(dataset: dict[str, object]) -> object:
    from pycocotools.coco import COCO

    made = COCO()
    made.dataset = dataset
    made.createIndex()
    return made
