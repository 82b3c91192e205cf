"""Boxes with scores and classes: overlap, non-maximum suppression, and back to the image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from actcc.calibration import Sample
from actcc.errors import DataError
from actcc.graph import Array


@dataclass(frozen=True, eq=False)
class Detections:
    """What a detector found in one image.

    Attributes:
        boxes: [n, 4], left, top, right, bottom, float64.
        scores: [n], float64.
        classes: [n], int64.
    """

    boxes: Array
    scores: Array
    classes: Array

    def __len__(self) -> int:
        return len(self.scores)

    def select(self, which: Array) -> Detections:
        """Those that an index or mask names, in its order."""
        return Detections(self.boxes[which], self.scores[which], self.classes[which])

    def best(self, most: int) -> Detections:
        """The `most` surest, surest first; ties keep their order."""
        return self.select(np.argsort(-self.scores, kind="stable")[:most])


def areas(boxes: Array) -> Array:
    """[n]: areas of boxes [n, 4]; 0 where a side is negative."""
    found: Array = np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0.0), axis=1)
    return found


def intersections(boxes: Array, others: Array) -> Array:
    """[n, m]: the area that two boxes share."""
    low = np.maximum(boxes[:, None, :2], others[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], others[None, :, 2:])
    shared: Array = np.prod(np.maximum(high - low, 0.0), axis=2)
    return shared


def overlaps(boxes: Array, others: Array, crowd: Array | None = None) -> Array:
    """[n, m]: intersection over union.

    Args:
        crowd: [m], which of `others` are crowds: for these it is the intersection over the area
            of the box alone, as COCO has it.
    """
    shared = intersections(boxes, others)
    own = areas(boxes)[:, None]
    union = own + areas(others)[None, :] - shared
    if crowd is not None:
        union = np.where(crowd[None, :], own, union)
    found: Array = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return found


def suppress(found: Detections, threshold: float) -> Detections:
    """Greedy non-maximum suppression, each class for itself; surest first.

    Args:
        threshold: a box that overlaps a surer one of its class by more is left out.
    """
    ordered = found.best(len(found))
    rivals = overlaps(ordered.boxes, ordered.boxes) > threshold
    rivals &= ordered.classes[:, None] == ordered.classes[None, :]
    alive = np.ones(len(ordered), bool)
    for index in range(len(ordered)):
        if alive[index]:
            alive[index + 1 :] &= ~rivals[index, index + 1 :]
    return ordered.select(np.flatnonzero(alive))


def input_size(sample: Sample) -> tuple[int, int]:
    """Height and width of the input that takes the image.

    Raises:
        DataError: no input, or more than one, has four axes, or its channels cannot be told.
    """
    shapes = [array.shape for array in sample.inputs.values() if array.ndim == 4]
    if len(shapes) == 1:
        shape = shapes[0]
        if shape[1] in (1, 3, 4):
            return shape[2], shape[3]
        if shape[3] in (1, 3, 4):
            return shape[1], shape[2]
    raise DataError(
        f"{sample.name}: the size of the image cannot be told from the inputs "
        f"({', '.join(f'{k} {list(v.shape)}' for k, v in sample.inputs.items())}); it takes one "
        "input of four axes with 1 or 3 channels; give --metric file.py:function"
    )


def in_image(found: Detections, sample: Sample) -> Detections:
    """Boxes of the input moved to the image that it was made of, and cut at its border.

    Samples without `placement` stay in input pixels. Boxes with no area left are left out.
    """
    placement = sample.annotations.get("placement")
    size = sample.annotations.get("image_size")
    if placement is None or size is None:
        height, width = input_size(sample)
        boxes = found.boxes.copy()
    else:
        height, width = (int(side) for side in size)
        top, left, rows, columns = (float(value) for value in placement)
        scale = np.array([width / columns, height / rows] * 2)
        boxes = (found.boxes - [left, top, left, top]) * scale
    boxes = np.clip(boxes, 0.0, [width, height, width, height])
    moved = Detections(boxes, found.scores, found.classes)
    return moved.select(np.flatnonzero(areas(boxes) > 0))
