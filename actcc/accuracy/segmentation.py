"""`segmentation-iou`: mean intersection over union of classes, pixel by pixel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from actcc.accuracy.detection.boxes import input_size
from actcc.accuracy.metric import Judge
from actcc.calibration import Sample, SampleSet
from actcc.calibration.labels import IGNORED_PIXEL
from actcc.errors import DataError
from actcc.graph import Array

_DRAWS = 1000


@dataclass(frozen=True, eq=False)
class SegmentationScores:
    """Pixels by sample and class; see `actcc.accuracy.metric.Scores`.

    Attributes:
        pixels: [S, 3, C]: right, predicted and labelled.
    """

    pixels: Array
    draws: int = _DRAWS

    def __len__(self) -> int:
        return len(self.pixels)

    def value(self, indices: Array) -> float:
        """Mean over the classes that are labelled in the selection; NaN where none is."""
        weight = np.bincount(indices, minlength=len(self)).astype(np.float64)
        right, predicted, labelled = np.tensordot(weight, self.pixels, axes=1)
        counted = labelled > 0
        if not counted.any():
            return float("nan")
        union = predicted + labelled - right
        return float(np.mean(right[counted] / union[counted]))


@dataclass(frozen=True)
class SegmentationIou:
    """Mean over classes of right / (predicted + labelled − right) (Everingham et al. 2010, 4.2).

    Pixels are counted over all samples before they are divided. The mean is over classes that are
    labelled somewhere; pixels labelled 255 do not count. Samples need the annotation `mask`
    [H, W] of class indices, of any size: the class with the highest score is looked up for each of
    its pixels at the nearest position of the output. Pixels that the preprocessing cut off do not
    count.

    Attributes:
        name: for reports.
        output: [1, C, h, w] or [1, h, w, C] of scores; or one value a pixel, [1, h, w] or
            [1, 1, h, w]: class indices, or as floats the probability of class 1 against 0. None
            for the only output that is one of them.
    """

    name: str = "segmentation-iou"
    output: str | None = None

    def observe(self, outputs: Mapping[str, Array], sample: Sample) -> Array:
        """Pixels [3, C] that are right, predicted, labelled; see `actcc.accuracy.metric.Metric`.

        A map of class indices does not tell C; it is 255 then.
        """
        values = self._chosen(outputs)
        mask = sample.annotations.get("mask")
        if mask is None or mask.ndim != 2:
            raise DataError(
                f"{self.name}: {sample.name} has no 'mask' of [H, W] class indices; give "
                "--labels FOLDER with a PNG for each image, or an array 'mask' in the .npz"
            )
        classes, count = _class_map(values)
        rows, columns = _positions(mask.shape, classes.shape, sample)
        seen = np.ix_(rows >= 0, columns >= 0)
        found = classes[np.ix_(rows[rows >= 0], columns[columns >= 0])]
        labelled = mask[seen].astype(np.int64)
        counted = labelled != IGNORED_PIXEL
        found, labelled = found[counted], labelled[counted]
        if labelled.size and not 0 <= labelled.min() <= labelled.max() < count:
            raise DataError(
                f"{self.name}: the mask of {sample.name} has class {labelled.max()}, and the "
                f"model has classes 0 to {count - 1}; give masks of class indices, 255 = ignore"
            )
        return np.stack(
            [
                np.bincount(found[found == labelled], minlength=count),
                np.bincount(found, minlength=count),
                np.bincount(labelled, minlength=count),
            ]
        )

    def _chosen(self, outputs: Mapping[str, Array]) -> Array:
        maps = {name: o for name, o in outputs.items() if o.ndim in (3, 4) and o.shape[0] == 1}
        if self.output in maps:
            return maps[self.output]
        if self.output is None and len(maps) == 1:
            return next(iter(maps.values()))
        shapes = ", ".join(f"'{key}' {list(value.shape)}" for key, value in outputs.items())
        raise DataError(
            f"{self.name}: which output is the map of classes cannot be told from {shapes}; name "
            "it, as in segmentation-iou:NAME; it must be [1,C,h,w], [1,h,w,C] or [1,h,w]"
        )

    def judge(self, reference: Sequence[Array], samples: SampleSet) -> Judge:
        """See `actcc.accuracy.metric.Metric`.

        Raises:
            DataError: no pixel is labelled.
        """
        if not any(pixels[2].any() for pixels in reference):
            raise DataError(
                f"{self.name}: no pixel of {samples.source} is labelled with a class; 255 is "
                "ignored; give masks with classes"
            )
        return lambda observations: SegmentationScores(np.stack(observations))


def _class_map(values: Array) -> tuple[Array, int]:
    """Class indices [h, w] and the number of classes."""
    if values.ndim == 4 and 1 not in values.shape[1::2]:
        # Maps are larger than the number of classes along both sides, or square.
        first, second, last = values.shape[1:]
        axis = 3 if first == second != last or (last < first and last < second) else 1
        return np.argmax(values, axis=axis)[0], values.shape[axis]
    if values.ndim == 4:
        values = values[:, 0] if values.shape[1] == 1 else values[..., 0]
    if values.dtype.kind == "f":
        return (values[0] > 0.5).astype(np.int64), 2
    return np.clip(values[0].astype(np.int64), 0, IGNORED_PIXEL - 1), IGNORED_PIXEL


def _positions(
    mask: tuple[int, ...], output: tuple[int, ...], sample: Sample
) -> tuple[Array, Array]:
    """Row and column of the output for each row and column of the mask; −1 outside the input."""
    placement = sample.annotations.get("placement")
    size = input_size(sample)
    top, left, height, width = (0, 0, *size) if placement is None else map(int, placement)
    found = []
    for axis, (begin, length) in enumerate(((top, height), (left, width))):
        centres = begin + (np.arange(mask[axis]) + 0.5) * length / mask[axis]
        index = np.floor(centres * output[axis] / size[axis]).astype(np.int64)
        found.append(np.where((index >= 0) & (index < output[axis]), index, -1))
    return found[0], found[1]
