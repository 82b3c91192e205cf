"""Calibration input: images, arrays or a user's function, made ready to feed to a model."""

from actcc.calibration.load import load_samples
from actcc.calibration.preprocessing import (
    BUILT_IN,
    Preprocessing,
    describe_built_in,
    load_preprocessing,
)
from actcc.calibration.sample import Sample, SampleSet, SampleSource

__all__ = [
    "BUILT_IN",
    "Preprocessing",
    "Sample",
    "SampleSet",
    "SampleSource",
    "describe_built_in",
    "load_preprocessing",
    "load_samples",
]
