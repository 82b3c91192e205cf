"""Where an image lies in a model's input: stretched, letterboxed or cropped."""

from __future__ import annotations

from dataclasses import dataclass

from actcc.calibration.preprocessing import Preprocessing


@dataclass(frozen=True)
class Placement:
    """The resized image in input pixels; it may reach beyond the input, which cuts it.

    A point (x, y) of an image of size (h, w) lies at (left + x·width/w, top + y·height/h).
    """

    top: int
    left: int
    height: int
    width: int


def place(preprocessing: Preprocessing, image: tuple[int, int], size: tuple[int, int]) -> Placement:
    """Where an image of `image` = (height, width) pixels lies in an input of `size`.

    Sides are rounded as the projects do that made the models: down for a letterbox in the upper
    left (YOLOX, `preproc`), to the nearest for one in the centre (Ultralytics, `LetterBox`), down
    for the longer side before a centre crop (torchvision, `Resize`).
    """
    if preprocessing.resize == "stretch":
        return Placement(0, 0, *size)
    if preprocessing.resize == "letterbox":
        return _letterbox(preprocessing.position == "center", image, size)
    return _center_crop(preprocessing.crop_ratio, image, size)


def _letterbox(centred: bool, image: tuple[int, int], size: tuple[int, int]) -> Placement:
    (height, width), (rows, columns) = image, size
    # Integers, so that the side that decides fills the input exactly.
    tall = rows * width <= columns * height
    numerator, denominator = (rows, height) if tall else (columns, width)
    half = denominator // 2 if centred else 0
    new_height = rows if tall else max((height * numerator + half) // denominator, 1)
    new_width = columns if not tall else max((width * numerator + half) // denominator, 1)
    if not centred:
        return Placement(0, 0, new_height, new_width)
    return Placement((rows - new_height) // 2, (columns - new_width) // 2, new_height, new_width)


def _center_crop(ratio: float, image: tuple[int, int], size: tuple[int, int]) -> Placement:
    (height, width), (rows, columns) = image, size
    full_rows, full_columns = round(rows / ratio), round(columns / ratio)
    if full_rows * width >= full_columns * height:
        new_height, new_width = full_rows, full_rows * width // height
    else:
        new_height, new_width = full_columns * height // width, full_columns
    top, left = round((new_height - rows) / 2), round((new_width - columns) / 2)
    return Placement(-top, -left, new_height, new_width)
