"""`top1` and `top5`: the share of samples whose class is among the model's best."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from actcc.accuracy.metric import Judge, MeanScores
from actcc.calibration import Sample, SampleSet
from actcc.errors import DataError
from actcc.graph import Array

# Labels that are shifted by a background class leave a good model next to nothing.
_SHIFTED_IS_BETTER = 0.2


@dataclass(frozen=True, eq=False)
class Ranked:
    """What counts of one sample.

    Attributes:
        best: the classes with the highest scores, best first; −1 for NaN.
        wanted: the labelled class.
        class_count: of the model.
    """

    best: Array
    wanted: int
    class_count: int


@dataclass(frozen=True)
class TopK:
    """Share of samples whose labelled class is among the `count` of the highest score.

    Samples need the annotation `label` (or `labels`), one whole number. Of equal scores the
    lowest class comes first. NaN is in no one's best.

    Attributes:
        name: for reports.
        count: 1 for top-1.
        output: name of the output; None for the only one that is a vector.
        offset: what is added to a label to give the model's class: 1 where the model has a
            background class at 0 and the labels have not.
    """

    name: str = "top1"
    count: int = 1
    output: str | None = None
    offset: int = 0

    @classmethod
    def of(cls, name: str, count: int, argument: str | None) -> TopK:
        """From `OUTPUT`, `+1` or `OUTPUT+1`."""
        if argument is None:
            return cls(name, count)
        shift = re.search(r"[+-]\d+$", argument)
        output = argument[: shift.start()] if shift else argument
        return cls(name, count, output or None, int(shift.group()) if shift else 0)

    def observe(self, outputs: Mapping[str, Array], sample: Sample) -> Ranked:
        """See `actcc.accuracy.metric.Metric`."""
        scores = class_scores(outputs, self.name, self.output)
        wanted = _label(sample, self.name) + self.offset
        counted = sample.annotations.get("class_count")
        known = len(scores) - self.offset
        if counted is not None and int(counted) != known:
            raise DataError(
                f"{self.name}: the images lie in {int(counted)} class folders, and the model "
                f"has {known} classes; give --labels file.csv with the class of each image"
            )
        if not 0 <= wanted < len(scores):
            raise DataError(
                f"{self.name}: {sample.name} is labelled {wanted - self.offset}, and the model "
                f"has classes {-self.offset} to {known - 1}; give the labels that it was trained "
                "on, or their offset, as in top1:-1 for labels that count from 1"
            )
        return Ranked(best_classes(scores, self.count), wanted, len(scores))

    def judge(self, reference: Sequence[Ranked], samples: SampleSet) -> Judge:
        """See `actcc.accuracy.metric.Metric`.

        Raises:
            DataError: the original is right only if all labels are shifted by one.
        """
        plain = _right(reference).mean()
        for step in (1, -1):
            shifted = [replace(entry, wanted=entry.wanted + step) for entry in reference]
            if not all(0 <= entry.wanted < entry.class_count for entry in shifted):
                continue
            found = _right(shifted).mean()
            if found - plain > _SHIFTED_IS_BETTER and found > 2 * plain:
                raise DataError(
                    f"{self.name}: the original is right on {100 * plain:.0f} % of "
                    f"{samples.source}, and on {100 * found:.0f} % if class = label "
                    f"{self.offset + step:+d}; if so, say --metric "
                    f"top{self.count}:{self.output or ''}{self.offset + step:+d}"
                )
        return lambda observations: MeanScores(_right(observations))


def _right(observations: Sequence[Ranked]) -> Array:
    """[S]: 1 where the labelled class is among the best."""
    return np.array([float(entry.wanted in entry.best) for entry in observations])


def class_vectors(outputs: Mapping[str, Array]) -> dict[str, Array]:
    """The outputs [1, C] (or [C], [1, C, 1, 1]) that score C ≥ 2 classes, as vectors."""
    return {
        name: value.reshape(-1)
        for name, value in outputs.items()
        if isinstance(value, np.ndarray)
        and value.dtype.kind in "fiu"
        and max(value.shape, default=0) == value.size >= 2
    }


def class_scores(outputs: Mapping[str, Array], metric: str, name: str | None = None) -> Array:
    """The scores [C] of all classes.

    Raises:
        DataError: no output is one vector, or several are and none is named.
    """
    vectors = class_vectors(outputs)
    if name is not None and name in vectors:
        return vectors[name]
    if name is None and len(vectors) == 1:
        return next(iter(vectors.values()))
    shapes = ", ".join(f"'{key}' {list(np.shape(value))}" for key, value in outputs.items())
    if name is not None:
        problem = f"output '{name}' is no vector of class scores"
    else:
        problem = f"{len(vectors) or 'none'} of the outputs are class scores [1, C]"
    raise DataError(
        f"{metric}: {problem}; the outputs are {shapes}; name the right one, as in "
        f"{metric.partition(':')[0]}:{next(iter(vectors), 'NAME')}, or give another metric"
    )


def best_classes(scores: Array, count: int) -> Array:
    """Indices [count] of the highest scores, the lowest index first among equals; −1 for NaN."""
    values = scores.astype(np.float64)
    best = np.argsort(-values, kind="stable")[:count]
    found: Array = np.where(np.isnan(values[best]), -1, best)
    return found


def _label(sample: Sample, metric: str) -> int:
    for key in ("label", "labels"):
        if key in sample.annotations:
            value = np.asarray(sample.annotations[key])
            if value.size == 1 and value.dtype.kind in "iu":
                return int(value.reshape(-1)[0])
            raise DataError(
                f"{metric}: '{key}' of {sample.name} is {value.dtype} {list(value.shape)}; give "
                "one whole number, the index of the class"
            )
    raise DataError(
        f"{metric}: {sample.name} has no label; give --labels file.csv or --labels folders for "
        "images, or an array 'label' in the .npz"
    )
