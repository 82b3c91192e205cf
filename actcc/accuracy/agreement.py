"""`agreement`: how far a model still finds what the original finds, without labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from actcc.accuracy.classification import best_classes, class_scores, class_vectors
from actcc.accuracy.detection.average_precision import DetectionScores
from actcc.accuracy.detection.boxes import Detections
from actcc.accuracy.detection.detect import check_scores, decode, decoder_named, find_decoder
from actcc.accuracy.detection.matching import COCO_THRESHOLDS, Truth, match, surest_per_class
from actcc.accuracy.metric import Judge, MeanScores, Scores
from actcc.calibration import Sample, SampleSet
from actcc.errors import DataError
from actcc.graph import Array

# A detection that an application would show: the original's surer ones are what must be found.
SURE = 0.3
CLASSES = "classes"
Observation: TypeAlias = "Detections | Array"


@dataclass(frozen=True)
class Agreement:
    """Agreement with the original's detections or classes, in [0, 1]; the original has 1.

    A detector's figure is COCO's mAP50-95 with the original's detections of score ≥ `SURE` as the
    truth. A classifier's is the share of samples with the same best class.

    Attributes:
        name: for reports.
        layout: name of a decoder, or `classes`; None finds it by the shapes of the outputs,
            decoders first.
    """

    name: str = "agreement"
    layout: str | None = None

    def __post_init__(self) -> None:
        if self.layout not in (None, CLASSES):
            decoder_named(self.layout)

    def observe(self, outputs: Mapping[str, Array], sample: Sample) -> Observation:
        """Detections, or the best class [1]; see `actcc.accuracy.metric.Metric`."""
        if self._of_classes(outputs, sample):
            return best_classes(class_scores(outputs, self.name), 1)
        _, decoded = decode(outputs, sample, self.layout)
        return surest_per_class(decoded.detections)

    def _of_classes(self, outputs: Mapping[str, Array], sample: Sample) -> bool:
        if self.layout is not None or len(class_vectors(outputs)) != 1:
            return self.layout == CLASSES
        images = any(array.ndim == 4 for array in sample.inputs.values())
        return not images or find_decoder(outputs, sample) is None

    def judge(self, reference: Sequence[Observation], samples: SampleSet) -> Judge:
        """See `actcc.accuracy.metric.Metric`.

        Raises:
            DataError: the original is sure of nothing in any sample.
        """
        found = [entry for entry in reference if isinstance(entry, Detections)]
        if not found:
            return lambda observations: _same_class(reference, observations)
        check_scores([entry.scores for entry in found], self.name)
        sure = [entry.select(np.flatnonzero(entry.scores >= SURE)) for entry in found]
        if not any(len(entry) for entry in sure):
            raise DataError(
                f"{self.name}: the original finds nothing with a score of {SURE} or more in "
                f"{samples.source}; check --preprocess, name the decoder, as in "
                f"{self.name}:yolov8, or give images of what it was trained for"
            )
        truth = [Truth(e.boxes, e.classes, np.zeros(len(e), bool)) for e in sure]
        return lambda observations: _precision(truth, observations)


def _same_class(reference: Sequence[Observation], observations: Sequence[Observation]) -> Scores:
    original, result = (
        [int(entry[0]) for entry in entries if not isinstance(entry, Detections)]
        for entries in (reference, observations)
    )
    return MeanScores(np.equal(original, result).astype(np.float64))


def _precision(truth: Sequence[Truth], observations: Sequence[Observation]) -> Scores:
    matches = [
        match(entry, wanted, COCO_THRESHOLDS)
        for entry, wanted in zip(observations, truth, strict=True)
        if isinstance(entry, Detections)
    ]
    return DetectionScores.of(matches)
