"""`coco-map`: mean average precision against labelled boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from actcc.accuracy.detection.average_precision import DetectionScores
from actcc.accuracy.detection.boxes import Detections
from actcc.accuracy.detection.decoders import Decoded
from actcc.accuracy.detection.detect import check_scores, decode, decoder_named
from actcc.accuracy.detection.matching import COCO_THRESHOLDS, Matches, Truth, match
from actcc.accuracy.metric import Judge
from actcc.calibration import Sample, SampleSet
from actcc.errors import DataError
from actcc.graph import Array

_LEAST_OF_A_DETECTOR = 0.001


@dataclass(frozen=True)
class CocoMap:
    """COCO's mean average precision (Lin et al. 2014), in [0, 1].

    Samples need the annotations `boxes` [m, 4] (left, top, right, bottom in image pixels) and
    `classes` [m], and may have `crowd` [m] and `category_ids` [C]; rows of class −1 do not count.

    Attributes:
        name: for reports.
        thresholds: IoU from which a detection is right; their mean is the metric.
        decoder: name of the output layout; None finds it by the shapes.
    """

    name: str = "coco-map"
    thresholds: tuple[float, ...] = COCO_THRESHOLDS
    decoder: str | None = None

    def __post_init__(self) -> None:
        if self.decoder is not None:
            decoder_named(self.decoder)

    def observe(self, outputs: Mapping[str, Array], sample: Sample) -> Matches:
        """See `actcc.accuracy.metric.Metric`."""
        truth = truth_of(sample, self.name)
        decoder, decoded = decode(outputs, sample, self.decoder)
        found = decoded.detections
        if decoder.category_ids and "category_ids" in sample.annotations:
            found = _by_index(found, sample.annotations["category_ids"])
        _check_classes(truth, decoded, sample, decoder.name)
        return match(found, truth, self.thresholds)

    def judge(self, reference: Sequence[Matches], samples: SampleSet) -> Judge:
        """See `actcc.accuracy.metric.Metric`.

        Raises:
            DataError: no object is labelled, or the original finds next to none of them.
        """
        check_scores([matches.scores for matches in reference], self.name)
        if not any(len(matches.truth) for matches in reference):
            raise DataError(
                f"{self.name}: no object is labelled in {samples.source}; give images with some"
            )
        reached = DetectionScores.of(reference).value(np.arange(len(reference)))
        if reached < _LEAST_OF_A_DETECTOR:
            raise DataError(
                f"{self.name}: the original reaches {reached:.2g} on {samples.source}, so that "
                "nothing can be compared; check --preprocess, that the classes of --labels are "
                "the model's, and name the decoder, as in coco-map:yolov5"
            )
        return DetectionScores.of


def truth_of(sample: Sample, metric: str) -> Truth:
    """The labelled objects of a sample.

    Raises:
        DataError: it has no boxes or classes, or they do not fit together.
    """
    annotations = sample.annotations
    missing = [key for key in ("boxes", "classes") if key not in annotations]
    if missing:
        raise DataError(
            f"{metric}: {sample.name} has no '{missing[0]}'; give --labels instances.json for "
            "images, or arrays 'boxes' and 'classes' in the .npz"
        )
    boxes = np.asarray(annotations["boxes"], np.float64)
    classes = np.asarray(annotations["classes"])
    crowd = np.asarray(annotations.get("crowd", np.zeros(classes.shape, bool)), bool)
    if boxes.shape != (*classes.shape, 4) or classes.ndim != 1 or crowd.shape != classes.shape:
        raise DataError(
            f"{metric}: {sample.name} has boxes {list(boxes.shape)}, classes "
            f"{list(classes.shape)} and crowd {list(crowd.shape)}; give [m, 4], [m] and [m]"
        )
    counted = classes >= 0
    return Truth(boxes[counted], classes[counted].astype(np.int64), crowd[counted])


def _by_index(found: Detections, category_ids: Array) -> Detections:
    """Category ids as indices; detections of categories that the labels lack are left out."""
    index = np.minimum(np.searchsorted(category_ids, found.classes), len(category_ids) - 1)
    known = category_ids[index] == found.classes
    return Detections(found.boxes, found.scores, index).select(np.flatnonzero(known))


def _check_classes(truth: Truth, decoded: Decoded, sample: Sample, decoder: str) -> None:
    count = decoded.class_count
    if count is not None and len(truth.classes) and truth.classes.max() >= count:
        raise DataError(
            f"{sample.name} is labelled with class {truth.classes.max()}, and the model has "
            f"classes 0 to {count - 1} as '{decoder}' reads it; give the labels that it was "
            "trained on, or name another decoder"
        )
