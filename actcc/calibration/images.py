"""Image folders: files found, decoded, resized and laid out as the model wants them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from actcc.calibration.model_input import ModelInput, format_shape
from actcc.calibration.placement import Placement, place
from actcc.calibration.preprocessing import Preprocessing
from actcc.calibration.sample import Sample
from actcc.errors import DataError
from actcc.graph import Array

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
# Whatever Pillow raises on a file that is no image, is cut short or is absurdly large.
_DECODE_ERRORS = (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError)
# An integer input that cannot tell 32 grey levels apart was given the wrong scale.
_FEWEST_LEVELS = 32

_FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "area": Image.Resampling.BOX,
    "lanczos": Image.Resampling.LANCZOS,
}


@dataclass(frozen=True)
class ImageInput:
    """An input that takes one image."""

    name: str
    height: int
    width: int
    layout: Literal["NCHW", "NHWC"]
    dtype: np.dtype[Any]


@dataclass(frozen=True)
class ImageFolder:
    """A source of samples: the image files below a folder."""

    folder: Path
    files: tuple[str, ...]
    preprocessing: Preprocessing
    target: ImageInput

    def __len__(self) -> int:
        return len(self.files)

    def name(self, index: int) -> str:
        """Path of image `index` below the folder."""
        return self.files[index]

    def load(self, index: int) -> Sample:
        """Decode and prepare one image.

        Raises:
            DataError: the file cannot be decoded.
        """
        name = self.files[index]
        image = read_image(self.folder / name, self.preprocessing.channels)
        array, placement = prepare(image, self.preprocessing, self.target)
        where = [placement.top, placement.left, placement.height, placement.width]
        annotations = {
            "image_size": np.array([image.height, image.width], np.int64),
            "placement": np.array(where, np.int64),
        }
        return Sample(name, {self.target.name: array}, annotations)


def find_images(folder: Path) -> tuple[str, ...]:
    """Paths of the images below a folder, sorted, relative to it; hidden files are left out.

    Raises:
        DataError: there is none, or one is no image.
    """
    found = sorted(
        path.relative_to(folder)
        for path in folder.rglob("*")
        if path.suffix.lower() in SUFFIXES and path.is_file()
    )
    visible = [path for path in found if not any(part.startswith(".") for part in path.parts)]
    if not visible:
        raise DataError(
            f"{folder}: no image in this folder or below; images end in {', '.join(SUFFIXES)}"
        )
    return tuple(path.as_posix() for path in visible)


def check_header(path: Path) -> None:
    """Read no more than the file's header; raises DataError where it is no image."""
    try:
        with Image.open(path):
            pass
    except _DECODE_ERRORS as error:
        raise _unreadable(path, error) from error


def read_image(path: Path, channels: str) -> Image.Image:
    """The image upright (EXIF orientation applied, as OpenCV does), as "RGB" or "L".

    Raises:
        DataError: the file cannot be decoded.
    """
    try:
        with Image.open(path) as opened:
            opened.load()
            image = ImageOps.exif_transpose(opened)
            if image.mode.startswith("I"):  # 16 bits a pixel; Pillow would clip them at 255
                image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
            return image.convert("L" if channels == "gray" else "RGB")
    except _DECODE_ERRORS as error:
        raise _unreadable(path, error) from error


def _unreadable(path: Path, error: Exception) -> DataError:
    reason = "not an image" if isinstance(error, UnidentifiedImageError) else str(error)
    return DataError(f"{path}: the image cannot be read ({reason}); replace or remove the file")


def prepare(
    image: Image.Image, preprocessing: Preprocessing, target: ImageInput
) -> tuple[Array, Placement]:
    """The input array [1, C, H, W] or [1, H, W, C], and where the image lies in it."""
    size = (target.height, target.width)
    placement = place(preprocessing, (image.height, image.width), size)
    pixels = _resize(image, placement, preprocessing)
    canvas = np.full((*size, pixels.shape[2]), preprocessing.pad, np.uint8)
    top, left = max(placement.top, 0), max(placement.left, 0)
    cut = pixels[max(-placement.top, 0) :, max(-placement.left, 0) :][: size[0], : size[1]]
    canvas[top : top + cut.shape[0], left : left + cut.shape[1]] = cut
    if preprocessing.channels == "BGR":
        canvas = canvas[:, :, ::-1]
    values = _normalize(canvas, preprocessing, target.dtype)
    if target.layout == "NCHW":
        values = values.transpose(2, 0, 1)
    return np.ascontiguousarray(values[np.newaxis]), placement


def _resize(image: Image.Image, placement: Placement, preprocessing: Preprocessing) -> Array:
    """Pixels [H, W, C], uint8."""
    size = (placement.width, placement.height)
    if preprocessing.antialias or preprocessing.interpolation == "nearest":
        image = image.resize(size, _FILTERS[preprocessing.interpolation])
        return np.atleast_3d(np.asarray(image))
    return _bilinear(np.atleast_3d(np.asarray(image)), placement.height, placement.width)


def _bilinear(pixels: Array, height: int, width: int) -> Array:
    """Two by two neighbours at pixel centres, as OpenCV's INTER_LINEAR: no antialiasing."""
    values = pixels.astype(np.float32)
    for axis, size in ((0, height), (1, width)):
        length = values.shape[axis]
        centres = (np.arange(size) + 0.5) * (length / size) - 0.5
        centres = np.clip(centres, 0, length - 1)
        first = np.minimum(centres.astype(np.intp), max(length - 2, 0))
        weight = (centres - first).astype(np.float32).reshape((-1, 1, 1) if axis == 0 else (-1, 1))
        low = values.take(first, axis)
        high = values.take(np.minimum(first + 1, length - 1), axis)
        values = low + (high - low) * weight
    rounded: Array = np.rint(values).astype(np.uint8)
    return rounded


def _normalize(pixels: Array, preprocessing: Preprocessing, dtype: np.dtype[Any]) -> Array:
    values: Array = pixels.astype(np.float32) * np.float32(preprocessing.scale)
    if preprocessing.mean:
        values -= np.asarray(preprocessing.mean, np.float32)
    if preprocessing.std:
        values /= np.asarray(preprocessing.std, np.float32)
    if dtype.kind in "iu":
        bounds = np.iinfo(dtype)
        values = np.clip(np.rint(values), bounds.min, bounds.max)
    return values.astype(dtype)


def image_input(entry: ModelInput, preprocessing: Preprocessing) -> ImageInput:
    """How one image is fed to an input.

    Raises:
        DataError: the input takes no image, more than one, another number of channels than
            `preprocessing` makes, or values of another range.
    """
    subject = f"input '{entry.name}' is {entry.dtype.name} {format_shape(entry.shape)}"
    if len(entry.shape) != 4:
        raise DataError(f"{subject}, which takes no image; give .npz or file.py:function instead")
    if not entry.takes_one:
        raise DataError(
            f"{subject}, a fixed batch of {entry.shape[0]}; export the model with a batch of 1 or "
            "a dynamic one"
        )
    layout = _layout(entry, preprocessing, subject)
    axis = 1 if layout == "NCHW" else 3
    height, width = (d for position, d in enumerate(entry.shape) if position not in (0, axis))
    if not isinstance(height, int) or not isinstance(width, int):
        example = "x".join(str(d) if isinstance(d, int) else "224" for d in entry.shape[1:])
        raise DataError(
            f"{subject}, of no fixed size; choose one, as with --shape {entry.name}=1x{example}"
        )
    if entry.shape[axis] not in (preprocessing.channel_count, None) and isinstance(
        entry.shape[axis], int
    ):
        other = "gray" if entry.shape[axis] == 1 else "RGB"
        raise DataError(
            f"{subject}, {entry.shape[axis]} channels, and preprocessing '{preprocessing.name}' "
            f"makes {preprocessing.channel_count} ({preprocessing.channels}); write a .toml with "
            f'extends and channels = "{other}"'
        )
    _check_range(entry.dtype, preprocessing, subject)
    return ImageInput(entry.name, height, width, layout, entry.dtype)


def _layout(
    entry: ModelInput, preprocessing: Preprocessing, subject: str
) -> Literal["NCHW", "NHWC"]:
    if preprocessing.layout != "auto":
        return preprocessing.layout
    first, last = entry.shape[1] in (1, 3), entry.shape[3] in (1, 3)
    if first == last:
        raise DataError(
            f'{subject}; its channel axis cannot be told, write a .toml with layout = "NCHW" or '
            '"NHWC", and bind symbols with --shape'
        )
    return "NCHW" if first else "NHWC"


def _check_range(dtype: np.dtype[Any], preprocessing: Preprocessing, subject: str) -> None:
    if dtype.kind == "f":
        return
    if dtype.kind not in "iu":
        raise DataError(f"{subject}, which takes no image; give .npz or file.py:function instead")
    low, high = preprocessing.value_range
    bounds = np.iinfo(dtype)
    if low < bounds.min - 0.5 or high > bounds.max + 0.5 or high - low < _FEWEST_LEVELS:
        raise DataError(
            f"{subject}, and preprocessing '{preprocessing.name}' makes values from {low:.3g} to "
            f"{high:.3g}, which it cannot hold; choose one that keeps 0–255, as imagenet-raw does"
        )
