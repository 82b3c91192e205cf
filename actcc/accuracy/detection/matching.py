"""Which detections of one image are right: COCO's greedy matching, at all thresholds at once.

As `COCOeval.evaluateImg` (pycocotools 2.0): detections of a class in the order of their scores,
each takes the free object that it overlaps most, if by the threshold or more. A detection that
only a crowd is left for is ignored: neither right nor wrong; a crowd is never used up.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from actcc.accuracy.detection.boxes import Detections, overlaps
from actcc.graph import Array

COCO_THRESHOLDS: tuple[float, ...] = tuple(float(t) for t in np.linspace(0.5, 0.95, 10))
MOST_PER_CLASS = 100


@dataclass(frozen=True, eq=False)
class Truth:
    """What is to be found in one image.

    Attributes:
        boxes: [m, 4], as in `Detections`.
        classes: [m], int64.
        crowd: [m], bool: groups that cannot be told apart, which need not be found.
    """

    boxes: Array
    classes: Array
    crowd: Array


@dataclass(frozen=True, eq=False)
class Matches:
    """One image's detections, judged at T thresholds.

    Attributes:
        classes: [n], int64.
        scores: [n].
        right: [T, n], bool.
        ignored: [T, n], bool.
        truth: [m], classes of the objects to be found, without crowds.
    """

    classes: Array
    scores: Array
    right: Array
    ignored: Array
    truth: Array


def surest_per_class(found: Detections) -> Detections:
    """At most `MOST_PER_CLASS` of each class, as COCO counts them; surest first."""
    ordered = found.best(len(found))
    by_class = np.argsort(ordered.classes, kind="stable")
    grouped = ordered.classes[by_class]
    rank = np.arange(len(grouped)) - np.searchsorted(grouped, grouped)
    return ordered.select(np.sort(by_class[rank < MOST_PER_CLASS]))


def match(found: Detections, truth: Truth, thresholds: tuple[float, ...]) -> Matches:
    """Judge one image's detections."""
    ordered = surest_per_class(found)
    order = np.argsort(truth.crowd, kind="stable")  # crowds last: objects are preferred
    crowd, classes = truth.crowd[order], truth.classes[order]
    shared = overlaps(ordered.boxes, truth.boxes[order], crowd)
    shared[ordered.classes[:, None] != classes[None, :]] = -1.0
    limits = np.minimum(np.array(thresholds), 1 - 1e-10)
    right = np.zeros((len(limits), len(ordered)), bool)
    ignored = np.zeros_like(right)
    free = np.ones((len(limits), len(classes)), bool)
    rows = np.arange(len(limits))
    for index in np.flatnonzero((shared >= limits.min()).any(axis=1)):
        open_to_it = free & (shared[index] >= limits[:, None])
        for kind, marked in ((~crowd, right), (crowd, ignored)):
            reachable = open_to_it & kind
            taken = reachable.any(axis=1) & ~(right[:, index] | ignored[:, index])
            best = _last_largest(np.where(reachable, shared[index], -1.0))
            marked[taken, index] = True
            free[rows[taken], best[taken]] = crowd[best[taken]]
    return Matches(ordered.classes, ordered.scores, right, ignored, truth.classes[~truth.crowd])


def _last_largest(rows: Array) -> Array:
    """Index of the largest of each row; the last one where several are."""
    last: Array = rows.shape[1] - 1 - np.argmax(rows[:, ::-1], axis=1)
    return last
