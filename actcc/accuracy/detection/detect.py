"""From a model's outputs for one sample to detections in its image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from actcc.accuracy.detection.boxes import Detections, in_image, input_size, suppress
from actcc.accuracy.detection.decoders import DECODERS, Decoded, Decoder
from actcc.calibration import Sample
from actcc.errors import DataError
from actcc.graph import Array

# As the YOLO projects evaluate COCO: recall counts, so that hardly anything is left out.
LOWEST_SCORE = 0.001
SUPPRESSION_OVERLAP = 0.65
_MOST_BEFORE_SUPPRESSION = 1000
_ROUNDING = 1e-3


def decoder_named(name: str) -> Decoder:
    """The decoder of that name; raises DataError listing all where there is none."""
    for decoder in DECODERS:
        if decoder.name == name:
            return decoder
    raise DataError(f"no decoder is named '{name}'; known: {describe_decoders()}")


def describe_decoders() -> str:
    """All decoders in one line: name and outputs."""
    return "; ".join(f"{decoder.name}: {decoder.layout}" for decoder in DECODERS)


def find_decoder(outputs: Mapping[str, Array], sample: Sample) -> Decoder | None:
    """The decoder that fits the shapes of the outputs; None where none does."""
    size = input_size(sample)
    return next((d for d in DECODERS if d.find(outputs, size, True) is not None), None)


def decode(
    outputs: Mapping[str, Array], sample: Sample, name: str | None
) -> tuple[Decoder, Decoded]:
    """What a model found, surest first, in pixels of the sample's image.

    Args:
        name: of the decoder; None finds it by the shapes.

    Returns:
        The decoder, and detections suppressed and cut at the image's border.

    Raises:
        DataError: no decoder fits, or the named one does not.
    """
    size = input_size(sample)
    decoder = find_decoder(outputs, sample) if name is None else decoder_named(name)
    shapes = ", ".join(f"'{key}' {list(value.shape)}" for key, value in outputs.items())
    if decoder is None:
        raise DataError(
            f"no decoder is known for the outputs {shapes}; name one after the metric, as in "
            f"coco-map:yolov8, or give --metric file.py:function; known: {describe_decoders()}"
        )
    arrays = decoder.find(outputs, size, name is None)
    if arrays is None:
        raise DataError(
            f"decoder '{decoder.name}' reads {decoder.layout}, and the outputs are {shapes} for "
            f"an input of {size[0]}x{size[1]}; name another decoder: {describe_decoders()}"
        )
    decoded = decoder.read(arrays, size)
    found = _plausible(decoded.detections)
    if not decoder.suppressed:
        found = suppress(found, SUPPRESSION_OVERLAP)
    return decoder, Decoded(in_image(found, sample), decoded.class_count)


def _plausible(found: Detections) -> Detections:
    """The surest ones, without those that are not finite or below the lowest score."""
    finite = np.isfinite(found.boxes).all(axis=1) & np.isfinite(found.scores)
    kept = np.flatnonzero(finite & (found.scores >= LOWEST_SCORE))
    return found.select(kept).best(_MOST_BEFORE_SUPPRESSION)


def check_scores(reference: Sequence[Array], metric: str) -> None:
    """Raises DataError where the original's scores are no probabilities: a wrong decoder.

    Args:
        reference: the scores of each image, [n].
    """
    highest = max((float(scores.max()) for scores in reference if len(scores)), default=0.0)
    if highest > 1 + _ROUNDING:
        raise DataError(
            f"{metric}: the original's scores reach {highest:.3g}, and they must be within 0 and "
            f"1; its outputs are of another layout, name it: {describe_decoders()}"
        )
