"""`load_samples`: from what a user names to a set of samples that fit the model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from actcc.calibration.arrays import from_memory, from_npy, from_npz
from actcc.calibration.images import ImageFolder, check_header, find_images, image_input
from actcc.calibration.model_input import ModelInput, model_inputs
from actcc.calibration.preprocessing import Preprocessing, describe_built_in, load_preprocessing
from actcc.calibration.sample import Remembered, SampleSet, SampleSource
from actcc.calibration.spool import SpooledSamples
from actcc.calibration.user_code import is_function, samples_of_function, samples_of_values
from actcc.errors import DataError
from actcc.graph import Array, Graph

SampleSpecification: TypeAlias = (
    "str | Path | SampleSet | Array | Mapping[str, Array] | Sequence[Any]"
)
_REMEMBERED_BYTES = 256 << 20
_KINDS = "a folder of images, .npz, .npy, or file.py:function"


def load_samples(
    specification: SampleSpecification,
    graph: Graph,
    preprocessing: str | Path | Preprocessing | None = None,
    limit: int | None = None,
    seed: int = 0,
) -> SampleSet:
    """Samples for a model; loaded one by one when they are asked for.

    Args:
        specification: a folder of images, subfolders included; an `.npz` with arrays named like
            the inputs, first axis = sample (other arrays are annotations); an `.npy`; or
            `file.py:function` that takes nothing and returns an iterable of dicts input → array
            of one sample, batch axis included, or of pairs (inputs, annotations), or, for a model
            with one input, of arrays. In Python also arrays by name, a sequence of what the
            function would give, or a `SampleSet`.
        graph: whose inputs are to be fed, at the shapes it is bound to.
        preprocessing: for image folders, which need one; see `load_preprocessing`.
        limit: at most so many samples; drawn by `seed`, or the first ones of a function or
            sequence.

    Raises:
        DataError: nothing there, nothing that fits the inputs, NaN or infinity, an image folder
            without preprocessing, or preprocessing for something else.
    """
    if limit is not None and limit < 1:
        raise DataError(f"{limit} samples asked for; ask for at least 1 with --samples")
    inputs = model_inputs(graph)
    if not inputs:
        raise DataError("the model has no inputs, so there is nothing to feed; leave out the data")
    folder = isinstance(specification, str | Path) and Path(specification).is_dir()
    if folder:
        return _images(Path(str(specification)), inputs, preprocessing, limit, seed)
    if preprocessing is not None:
        raise DataError(
            f"preprocessing is for folders of images, and {_source(specification)} is fed as it "
            "is; leave out --preprocess"
        )
    if isinstance(specification, SampleSet):
        return specification if limit is None else specification.choose(limit, seed)
    if isinstance(specification, str | Path):
        return _file(str(specification), inputs, limit, seed)
    return _memory(specification, inputs, limit, seed)


def _images(
    folder: Path,
    inputs: Mapping[str, ModelInput],
    preprocessing: str | Path | Preprocessing | None,
    limit: int | None,
    seed: int,
) -> SampleSet:
    if len(inputs) != 1:
        raise DataError(
            f"{folder}: images feed one input, and the model has {len(inputs)} "
            f"({', '.join(inputs)}); give .npz or file.py:function"
        )
    if preprocessing is None:
        raise DataError(
            f"{folder}: how its images become the model's input is not known; name it with "
            f"--preprocess, one of {describe_built_in()}; or a .toml"
        )
    profile = load_preprocessing(preprocessing)
    target = image_input(next(iter(inputs.values())), profile)
    files = find_images(folder)
    source = ImageFolder(folder.resolve(), files, profile, target)
    found = _set(Remembered(source, _REMEMBERED_BYTES), f"{folder} ({profile.name})")
    chosen = found if limit is None else found.choose(limit, seed)
    for index in chosen.indices:
        check_header(folder / files[index])
    return chosen


def _file(text: str, inputs: Mapping[str, ModelInput], limit: int | None, seed: int) -> SampleSet:
    if is_function(text):
        return _set(SpooledSamples(samples_of_function(text, inputs, limit), text), text)
    path = Path(text)
    suffix = path.suffix.lower()
    if not path.is_file():
        raise DataError(f"{path}: no such file or folder; give {_KINDS}")
    if suffix not in (".npz", ".npy"):
        raise DataError(f"{path}: no known kind of calibration data; give {_KINDS}")
    read = from_npz if suffix == ".npz" else from_npy
    found = _set(read(path, inputs), text)
    return found if limit is None else found.choose(limit, seed)


def _memory(
    values: Any, inputs: Mapping[str, ModelInput], limit: int | None, seed: int
) -> SampleSet:
    if isinstance(values, np.ndarray):
        if len(inputs) != 1:
            raise DataError(f"one array for {len(inputs)} inputs ({', '.join(inputs)}); name them")
        values = {next(iter(inputs)): values}
    if isinstance(values, Mapping):
        found = _set(from_memory(values, inputs), "arrays")
        return found if limit is None else found.choose(limit, seed)
    if not isinstance(values, Sequence):
        kind = type(values).__name__
        raise DataError(f"calibration data is a {kind}; give {_KINDS}, arrays or a list of samples")
    samples = samples_of_values(values, "samples", inputs, limit)
    return _set(SpooledSamples(samples, "samples"), "samples")


def _set(loader: SampleSource, source: str) -> SampleSet:
    return SampleSet(source, loader, tuple(range(len(loader))))


def _source(specification: object) -> str:
    return str(specification) if isinstance(specification, str | Path) else "an array"
