"""Labels: what a metric needs to know of samples that come from a folder of images.

Labels are matched to images by file name. A label that says more folders than needed, or fewer,
still belongs to an image if one path ends in the other: `val/cat/1.jpg` and `1.jpg`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Protocol

import numpy as np
from PIL import Image, UnidentifiedImageError

from actcc.calibration.images import SUFFIXES
from actcc.calibration.label_files import read_classes, read_instances
from actcc.calibration.sample import Sample, SampleSet, SampleSource
from actcc.errors import DataError
from actcc.graph import Array

IGNORED_PIXEL = 255
FOLDERS = "folders"
_KINDS = (
    "a .csv with a class for each file, a COCO .json with boxes, a folder of PNG masks, or "
    f"'{FOLDERS}' where each class has a folder of its own"
)
# Pillow's modes that hold one number a pixel; palettes keep their indices.
_INDEX_MODES = ("1", "L", "P", "I", "I;16", "I;16L", "I;16B")


class _Label(Protocol):
    """What is known of one image; picklable."""

    def annotations(self) -> Mapping[str, Array]:
        """By name; raises DataError where a file cannot be read."""


@dataclass(frozen=True, eq=False)
class _Known:
    """Annotations that are in memory."""

    values: Mapping[str, Array]

    def annotations(self) -> Mapping[str, Array]:
        return self.values


@dataclass(frozen=True)
class _Mask:
    """A picture of class indices."""

    file: Path

    def annotations(self) -> Mapping[str, Array]:
        try:
            with Image.open(self.file) as opened:
                if opened.mode not in _INDEX_MODES:
                    raise DataError(
                        f"{self.file}: the mask is in colours ({opened.mode}); write the index of "
                        "the class as a grey value, or with a palette"
                    )
                return {"mask": np.array(opened).astype(np.int32)}
        except (OSError, SyntaxError, ValueError) as error:
            reason = "not an image" if isinstance(error, UnidentifiedImageError) else str(error)
            raise DataError(
                f"{self.file}: the mask cannot be read ({reason}); replace the file"
            ) from error


@dataclass(frozen=True, eq=False)
class LabelledSamples:
    """A source whose samples have labels among their annotations.

    Attributes:
        source: of the samples without.
        labels: by index in the source; of the samples that are asked for.
    """

    source: SampleSource
    labels: Mapping[int, _Label]

    def __len__(self) -> int:
        return len(self.source)

    def name(self, index: int) -> str:
        """Name of sample `index`."""
        return self.source.name(index)

    def load(self, index: int) -> Sample:
        """Sample `index`.

        Raises:
            DataError: it or its mask cannot be read, or the image has not the size that the labels
                were made for.
        """
        sample = self.source.load(index)
        found = dict(self.labels[index].annotations())
        _check_size(sample, found.pop("labelled_size", None))
        return replace(sample, annotations={**sample.annotations, **found})


def _check_size(sample: Sample, labelled: Array | None) -> None:
    size = sample.annotations.get("image_size")
    if labelled is None or size is None or np.array_equal(labelled, size):
        return
    raise DataError(
        f"{sample.name}: is {size[1]}x{size[0]} pixels, and its boxes are of an image of "
        f"{labelled[1]}x{labelled[0]}; give the images that were labelled"
    )


def label_samples(samples: SampleSet, labels: Path) -> SampleSet:
    """The same samples with labels among their annotations; images stay unread.

    Args:
        samples: of a folder of images.
        labels: `.csv` with a header, a column of files and one of classes: `label` []. COCO
            `.json` (instances): `boxes` [m, 4] (left, top, right, bottom in image pixels),
            `classes` [m] (index of the category, sorted by id), `areas` [m], `crowd` [m],
            `category_ids` [C]. A folder of PNG masks named like the images: `mask` [H, W], 255 is
            ignored. The word `folders`: `label` by the folder that an image lies in, sorted by
            name, and `class_count` [].

    Raises:
        DataError: the labels cannot be read, or an image has none. Labels of other images are
            left aside.
    """
    source = f"{samples.source}, {labels}"
    if str(labels) == FOLDERS:
        found: Mapping[int, _Label] = _by_folder(samples)
    elif labels.is_dir():
        masks = sorted(path for path in labels.rglob("*") if path.suffix.lower() == ".png")
        entries = [(path.relative_to(labels).as_posix(), _Mask(path.resolve())) for path in masks]
        found = _matched(samples, labels, entries, any_suffix=True)
    elif not labels.is_file():
        raise DataError(f"{labels}: no such file or folder of labels; give {_KINDS}")
    elif labels.suffix.lower() == ".csv":
        classes = read_classes(labels)
        entries_of_classes = [
            (file, _Known({"label": np.array(index, np.int64)})) for file, index in classes
        ]
        found = _matched(samples, labels, entries_of_classes, any_suffix=False)
    elif labels.suffix.lower() == ".json":
        instances = [(file, _Known(values)) for file, values in read_instances(labels)]
        found = _matched(samples, labels, instances, any_suffix=False)
    else:
        raise DataError(f"{labels}: no known kind of labels; give {_KINDS}")
    return replace(samples, source=source, loader=LabelledSamples(samples.loader, found))


def _by_folder(samples: SampleSet) -> dict[int, _Label]:
    every = [samples.loader.name(index) for index in range(len(samples.loader))]
    bare = [name for name in every if "/" not in name]
    if bare:
        raise DataError(
            f"{samples.source}: '{bare[0]}' lies in no folder of a class; with --labels {FOLDERS} "
            "each image lies in a folder that is named after its class"
        )
    names = sorted({name.partition("/")[0] for name in every})
    count = np.array(len(names), np.int64)
    return {
        index: _Known(
            {
                "label": np.array(names.index(every[index].partition("/")[0]), np.int64),
                "class_count": count,
            }
        )
        for index in samples.indices
    }


def _matched(
    samples: SampleSet, labels: Path, entries: Sequence[tuple[str, _Label]], any_suffix: bool
) -> dict[int, _Label]:
    """The label of each sample.

    Args:
        any_suffix: a label's suffix is not the image's: masks.
    """
    by_stem: dict[str, list[tuple[PurePosixPath, _Label]]] = {}
    for file, label in entries:
        path = PurePosixPath(file.replace("\\", "/"))
        by_stem.setdefault(_stem(path), []).append((path, label))
    found: dict[int, _Label] = {}
    missing = []
    for index, name in zip(samples.indices, samples.names, strict=True):
        image = PurePosixPath(name)
        fitting = [
            (path, label)
            for path, label in by_stem.get(_stem(image), [])
            if _belongs(path, image, any_suffix)
        ]
        exact = [entry for entry in fitting if entry[0] == image]
        if len(exact or fitting) > 1:
            raise DataError(
                f"{labels}: '{fitting[0][0]}' and '{fitting[1][0]}' are both of '{name}'; keep one "
                "of them, or give paths relative to the folder of images"
            )
        if fitting:
            found[index] = (exact or fitting)[0][1]
        else:
            missing.append(name)
    if missing:
        raise DataError(
            f"{labels}: no label for '{missing[0]}'"
            + (f" and {len(missing) - 1} more" if len(missing) > 1 else "")
            + f" of {len(samples)} images of {samples.source}; label them, or leave them out"
        )
    return found


def _stem(path: PurePosixPath) -> str:
    return path.stem if path.suffix.lower() in SUFFIXES else path.name


def _belongs(label: PurePosixPath, image: PurePosixPath, any_suffix: bool) -> bool:
    """Whether one path ends in the other; a label without suffix fits any."""
    bare = any_suffix or label.suffix.lower() not in SUFFIXES
    if not bare and label.name != image.name:
        return False
    shorter, longer = sorted((label.parent.parts, image.parent.parts), key=len)
    return longer[len(longer) - len(shorter) :] == shorter
