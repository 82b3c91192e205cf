"""Files of labels: classes as `.csv`, and boxes as COCO `.json`."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
from pydantic import BaseModel, TypeAdapter, ValidationError

from actcc.errors import DataError
from actcc.graph import Array

_FILE_COLUMNS = ("file", "filename", "file_name", "image", "image_name", "name", "path", "img")
_CLASS_COLUMNS = ("class", "label", "target", "class_id", "class_index", "label_id", "category")


def read_classes(path: Path) -> list[tuple[str, int]]:
    """File and class of each line of a `.csv` with a header, separated by comma, semicolon or tab.

    Raises:
        DataError: it cannot be read, has no such columns, or a class is no whole number.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            header = file.readline()
            delimiter = max(",;\t", key=header.count)
            file.seek(0)
            lines = list(csv.reader(file, delimiter=delimiter))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path}: cannot be read ({reason}); give a .csv in UTF-8") from error
    names = [name.strip().lower() for name in lines[0]] if lines else []
    columns = [
        next((names.index(known) for known in kind if known in names), None)
        for kind in (_FILE_COLUMNS, _CLASS_COLUMNS)
    ]
    file_column, class_column = columns
    if file_column is None or class_column is None:
        wanted = _FILE_COLUMNS if file_column is None else _CLASS_COLUMNS
        raise DataError(
            f"{path}: no column is named {', '.join(wanted[:3])} or the like, the first line is "
            f"'{header.strip()[:80]}'; put 'file,class' above the lines"
        )
    found: dict[str, int] = {}
    for number, row in enumerate(lines[1:], start=2):
        if not any(cell.strip() for cell in row):
            continue
        name, index = _line(path, number, row, file_column, class_column)
        if found.setdefault(name, index) != index:
            raise DataError(
                f"{path}, line {number}: '{name}' has class {index} here and {found[name]} above; "
                "remove one of the lines"
            )
    if not found:
        raise DataError(f"{path}: no line below the header; give a line for each image")
    return list(found.items())


def _line(
    path: Path, number: int, row: list[str], file_column: int, class_column: int
) -> tuple[str, int]:
    if len(row) <= max(file_column, class_column):
        raise DataError(f"{path}, line {number}: {len(row)} cells only; give a file and a class")
    text = row[class_column].strip()
    try:
        return row[file_column].strip(), int(text)
    except ValueError as error:
        raise DataError(
            f"{path}, line {number}: class '{text}' is no whole number; give the index of the "
            "class as the model counts it, from 0"
        ) from error


class _Image(BaseModel):
    id: int | str
    file_name: str
    width: int | None = None
    height: int | None = None


class _Annotation(BaseModel):
    image_id: int | str
    category_id: int
    bbox: tuple[float, float, float, float]
    area: float | None = None
    iscrowd: int = 0


class _Category(BaseModel):
    id: int


class _Instances(BaseModel):
    images: list[_Image]
    annotations: list[_Annotation]
    categories: list[_Category]


def read_instances(path: Path) -> list[tuple[str, dict[str, Array]]]:
    """File and annotations of each image of a COCO `.json` (instances; cocodataset.org).

    Annotations are `boxes`, `classes`, `areas`, `crowd`, `category_ids` as `label_samples` gives
    them, and `labelled_size` [2] (height, width) where the file has it.

    Raises:
        DataError: it cannot be read, is no such file, or a category is not defined.
    """
    try:
        held = TypeAdapter(_Instances).validate_json(path.read_bytes())
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); give a COCO .json") from error
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise DataError(
            f"{path}: {where}: {first['msg']}; give COCO's instances format: images, annotations "
            "with bbox, and categories"
        ) from error
    ids = sorted({category.id for category in held.categories})
    index = {category: position for position, category in enumerate(ids)}
    of_image: dict[int | str, list[_Annotation]] = {image.id: [] for image in held.images}
    for annotation in held.annotations:
        if annotation.category_id not in index:
            raise DataError(
                f"{path}: an object of image {annotation.image_id} has category "
                f"{annotation.category_id}, which is not among the categories; add it there"
            )
        if annotation.image_id in of_image:
            of_image[annotation.image_id].append(annotation)
    return [(image.file_name, _arrays(image, of_image[image.id], index)) for image in held.images]


def _arrays(
    image: _Image, annotations: list[_Annotation], index: dict[int, int]
) -> dict[str, Array]:
    boxes = np.array([a.bbox for a in annotations], np.float64).reshape(-1, 4)
    sizes = boxes[:, 2] * boxes[:, 3]
    given = [a.area for a in annotations]
    arrays = {
        "boxes": np.concatenate([boxes[:, :2], boxes[:, :2] + boxes[:, 2:]], axis=1),
        "classes": np.array([index[a.category_id] for a in annotations], np.int64),
        "areas": np.array([s if g is None else g for s, g in zip(sizes, given, strict=True)]),
        "crowd": np.array([bool(a.iscrowd) for a in annotations], bool),
        "category_ids": np.array(list(index), np.int64),
    }
    if image.width is not None and image.height is not None:
        arrays["labelled_size"] = np.array([image.height, image.width], np.int64)
    return arrays
