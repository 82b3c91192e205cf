"""Output layouts of detectors: from raw outputs to boxes in input pixels.

Each decoder has two functions: `find` picks the arrays that it reads, by shape (or name) alone,
so that a model and its rewrite are always read alike; `read` makes `Decoded` of them. Batch is 1
everywhere; n is a number of boxes and C of classes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from actcc.accuracy.detection.boxes import Detections
from actcc.accuracy.detection.grid import cells_of, cells_per_input
from actcc.graph import Array

Size: TypeAlias = tuple[int, int]
Arrays: TypeAlias = tuple[Array, ...]
_FEWEST_ANCHORS = 1000  # what a detector with its own suppression does not give out
_OWN_SUPPRESSION = (100, 300)
_FASTEST_STRIDE = 16


@dataclass(frozen=True, eq=False)
class Decoded:
    """Boxes as the model gives them, each with its best class.

    Attributes:
        detections: in input pixels, not yet suppressed unless the model does that itself.
        class_count: None where the outputs do not tell.
    """

    detections: Detections
    class_count: int | None = None


@dataclass(frozen=True)
class Decoder:
    """One layout.

    Attributes:
        name: what follows the colon in `coco-map:NAME`.
        layout: the outputs, for people.
        find: from outputs by name and the input's (height, width) to the arrays to read, or None;
            `strict` also asks for a number of boxes that is typical of the layout.
        read: the arrays, decoded.
        suppressed: the model has no two boxes for one object.
        category_ids: classes are the data set's category ids and no indices.
    """

    name: str
    layout: str
    find: Callable[[Mapping[str, Array], Size, bool], Arrays | None]
    read: Callable[[Arrays, Size], Decoded]
    suppressed: bool = False
    category_ids: bool = False


def _corners(centres: Array, sizes: Array) -> Array:
    """[n, 4] from centres [n, 2] and sizes [n, 2], in float64."""
    half = np.asarray(sizes, np.float64) / 2
    return np.concatenate([centres - half, centres + half], axis=1)


def _best_class(boxes: Array, scores: Array) -> Decoded:
    """Of boxes [n, 4] and scores [n, C]."""
    classes = np.argmax(scores, axis=1)
    best = np.take_along_axis(scores, classes[:, None], axis=1)[:, 0]
    found = Detections(np.asarray(boxes, np.float64), best.astype(np.float64), classes)
    return Decoded(found, scores.shape[1])


def _given(boxes: Array, scores: Array, classes: Array) -> Decoded:
    return Decoded(
        Detections(
            boxes.reshape(-1, 4).astype(np.float64),
            scores.reshape(-1).astype(np.float64),
            np.nan_to_num(classes.reshape(-1)).astype(np.int64),
        )
    )


def _tables(outputs: Mapping[str, Array], rank: int = 3) -> list[Array]:
    """Outputs of that rank for a batch of one, without the batch axis."""
    return [o[0] for o in outputs.values() if o.ndim == rank and o.shape[0] == 1]


def _row_table(outputs: Mapping[str, Array], columns: int, rows: set[int] | None) -> Arrays | None:
    found = [
        table
        for table in _tables(outputs)
        if table.shape[1] >= columns and (rows is None or table.shape[0] in rows)
    ]
    return (found[0],) if len(found) == 1 else None


def _find_yolox(outputs: Mapping[str, Array], size: Size, strict: bool) -> Arrays | None:
    del strict  # the raw grid cannot be read without its cells
    return _row_table(outputs, 6, cells_per_input(size))


def _read_yolox(arrays: Arrays, size: Size) -> Decoded:
    """Raw grid or decoded by the model, whichever leaves the centres nearer to their cells."""
    values = arrays[0].astype(np.float64)
    corner, stride = cells_of(len(values), size)
    in_cells = values[:, :2] / stride - corner
    raw = np.median(np.abs(values[:, :2] - 0.5)) <= np.median(np.abs(in_cells - 0.5))
    with np.errstate(over="ignore", invalid="ignore"):
        centres = (values[:, :2] + corner) * stride if raw else values[:, :2]
        sizes = np.exp(values[:, 2:4]) * stride if raw else values[:, 2:4]
        return _best_class(_corners(centres, sizes), values[:, 5:] * values[:, 4:5])


def _find_yolov5(outputs: Mapping[str, Array], size: Size, strict: bool) -> Arrays | None:
    three_each = {3 * count for count in cells_per_input(size)}
    return _row_table(outputs, 6, three_each if strict else None)


def _read_yolov5(arrays: Arrays, size: Size) -> Decoded:
    values = arrays[0].astype(np.float64)
    return _best_class(_corners(values[:, :2], values[:, 2:4]), values[:, 5:] * values[:, 4:5])


def _find_yolov8(outputs: Mapping[str, Array], size: Size, strict: bool) -> Arrays | None:
    if strict:
        counts = cells_per_input(size)
        found = [t for t in _tables(outputs) if t.shape[1] in counts and t.shape[0] >= 5]
    else:  # [1, n, 4+C] as well: there are more boxes than classes
        found = [t if t.shape[0] < t.shape[1] else t.T for t in _tables(outputs)]
        found = [table for table in found if table.shape[0] >= 5]
    return (found[0],) if len(found) == 1 else None


def _read_yolov8(arrays: Arrays, size: Size) -> Decoded:
    values = arrays[0].T
    return _best_class(_corners(values[:, :2], values[:, 2:4]), values[:, 4:])


def _find_rtdetr(outputs: Mapping[str, Array], size: Size, strict: bool) -> Arrays | None:
    return _row_table(outputs, 7 if strict else 5, {300} if strict else None)


def _read_rtdetr(arrays: Arrays, size: Size) -> Decoded:
    values = arrays[0] * np.array([*size[::-1], *size[::-1]] + [1] * (arrays[0].shape[1] - 4))
    return _best_class(_corners(values[:, :2], values[:, 2:4]), values[:, 4:])


def _boxes_and_scores(outputs: Mapping[str, Array]) -> Arrays | None:
    """The outputs [1, n, 4] and [1, n, C], in this order; of two [1, n, 4], the one named so."""
    named = {name: o[0] for name, o in outputs.items() if o.ndim == 3 and o.shape[0] == 1}
    if len(named) != 2 or len({len(table) for table in named.values()}) > 1:
        return None
    boxes = [name for name, table in named.items() if table.shape[1] == 4]
    if not boxes:
        return None
    chosen = next((name for name in boxes if "box" in name.lower()), boxes[0])
    return named.pop(chosen), next(iter(named.values()))


def _find_yolo_nas(outputs: Mapping[str, Array], size: Size, strict: bool) -> Arrays | None:
    found = _boxes_and_scores(outputs)
    fits = found is not None and (not strict or len(found[0]) in cells_per_input(size))
    return found if fits else None


def _read_yolo_nas(arrays: Arrays, size: Size) -> Decoded:
    return _best_class(*arrays)


def _find_ssd(outputs: Mapping[str, Array], size: Size, strict: bool) -> Arrays | None:
    found = _boxes_and_scores(outputs)
    if found is None or found[1].shape[1] < 2:
        return None
    count = len(found[0])
    typical = count >= _FEWEST_ANCHORS and count not in cells_per_input(size)
    return found if typical or not strict else None


def _read_ssd(arrays: Arrays, size: Size) -> Decoded:
    boxes, scores = arrays
    decoded = _best_class(boxes * np.array([*size[::-1]] * 2), scores[:, 1:])
    found = decoded.detections  # the background has category id 0
    return Decoded(Detections(found.boxes, found.scores, found.classes + 1))


def _find_end_to_end(outputs: Mapping[str, Array], size: Size, strict: bool) -> Arrays | None:
    found = [table for table in _tables(outputs) if table.shape[1] == 6]
    if len(found) != 1:
        return None
    return (found[0],) if not strict or len(found[0]) in _OWN_SUPPRESSION else None


def _read_end_to_end(arrays: Arrays, size: Size) -> Decoded:
    return _given(arrays[0][:, :4], arrays[0][:, 4], arrays[0][:, 5])


def _find_mmdetection(outputs: Mapping[str, Array], size: Size, strict: bool) -> Arrays | None:
    boxes = [o.reshape(-1, 5) for o in outputs.values() if o.ndim >= 2 and o.shape[-1] == 5]
    labels = [o.reshape(-1) for o in outputs.values() if o.ndim <= 2 and o.dtype.kind == "i"]
    fits = len(boxes) == len(labels) == 1 and len(boxes[0]) == len(labels[0])
    return (boxes[0], labels[0]) if fits else None


def _read_mmdetection(arrays: Arrays, size: Size) -> Decoded:
    return _given(arrays[0][:, :4], arrays[0][:, 4], arrays[1])


def _find_torchvision(outputs: Mapping[str, Array], size: Size, strict: bool) -> Arrays | None:
    values = list(outputs.values())
    boxes = [o for o in values if o.ndim == 2 and o.shape[1] == 4 and o.dtype.kind == "f"]
    scores = [o for o in values if o.ndim == 1 and o.dtype.kind == "f"]
    labels = [o for o in values if o.ndim == 1 and o.dtype.kind == "i"]
    if not len(boxes) == len(scores) == len(labels) == 1:
        return None
    fits = len(boxes[0]) == len(scores[0]) == len(labels[0])
    return (boxes[0], scores[0], labels[0]) if fits else None


def _read_torchvision(arrays: Arrays, size: Size) -> Decoded:
    return _given(*arrays)


def _find_tensorflow(outputs: Mapping[str, Array], size: Size, strict: bool) -> Arrays | None:
    wanted = ("detection_boxes", "detection_scores", "detection_classes")
    named = {name.partition(":")[0]: value for name, value in outputs.items()}
    if any(name not in named for name in wanted):
        return None
    boxes, scores, classes = (named[name] for name in wanted)
    return (boxes, scores, classes) if boxes.size == 4 * scores.size == 4 * classes.size else None


def _read_tensorflow(arrays: Arrays, size: Size) -> Decoded:
    boxes = arrays[0].reshape(-1, 4)[:, [1, 0, 3, 2]] * np.array([*size[::-1]] * 2)
    return _given(boxes, arrays[1], arrays[2])


def _find_fastestdet(outputs: Mapping[str, Array], size: Size, strict: bool) -> Arrays | None:
    maps = _tables(outputs, rank=4)
    if len(outputs) != 1 or len(maps) != 1 or maps[0].shape[0] < 6:
        return None
    expected = tuple(side // _FASTEST_STRIDE for side in size)
    return (maps[0],) if not strict or maps[0].shape[1:] == expected else None


def _read_fastestdet(arrays: Arrays, size: Size) -> Decoded:
    """FastestDet's `test.py`: score = objectness^0.6 · class^0.4."""
    channels, rows, columns = arrays[0].shape
    values = arrays[0].reshape(channels, -1).T.astype(np.float64)
    cells = np.stack(np.divmod(np.arange(rows * columns), columns)[::-1], axis=1)
    scale = np.array([size[1] / columns, size[0] / rows])
    centres = (cells + np.tanh(values[:, 1:3])) * scale
    with np.errstate(over="ignore"):
        sizes = np.array([size[1], size[0]]) / (1 + np.exp(-values[:, 3:5]))
    scores = np.maximum(values[:, :1], 0) ** 0.6 * np.maximum(values[:, 5:], 0) ** 0.4
    return _best_class(_corners(centres, sizes), scores)


DECODERS: tuple[Decoder, ...] = (
    Decoder(
        "end-to-end",
        "[1,n,6] left, top, right, bottom, score, class (YOLOv10, YOLO26, exports with NMS)",
        _find_end_to_end,
        _read_end_to_end,
        suppressed=True,
    ),
    Decoder(
        "yolox",
        "[1,n,5+C] raw grid or decoded, objectness · class, one box a cell",
        _find_yolox,
        _read_yolox,
    ),
    Decoder(
        "yolov5",
        "[1,n,5+C] centre, size, objectness · class, three boxes a cell (YOLOv5, YOLOv7)",
        _find_yolov5,
        _read_yolov5,
    ),
    Decoder(
        "yolov8",
        "[1,4+C,n] centre, size, class scores (YOLOv8, YOLOv9, YOLO11)",
        _find_yolov8,
        _read_yolov8,
    ),
    Decoder(
        "rtdetr",
        "[1,300,4+C] centre and size as shares of the input, class scores",
        _find_rtdetr,
        _read_rtdetr,
        suppressed=True,
    ),
    Decoder(
        "yolo-nas",
        "[1,n,4] corners and [1,n,C], one box a cell (YOLO-NAS, PP-YOLOE)",
        _find_yolo_nas,
        _read_yolo_nas,
    ),
    Decoder(
        "ssd",
        "[1,n,4] corners as shares of the input and [1,n,1+C], class 0 is the background",
        _find_ssd,
        _read_ssd,
        category_ids=True,
    ),
    Decoder(
        "fastestdet",
        "[1,5+C,h,w] objectness, tanh offsets, sigmoid sizes, class scores at stride 16",
        _find_fastestdet,
        _read_fastestdet,
    ),
    Decoder(
        "mmdetection",
        "[1,n,5] corners and score, and [1,n] class indices (MMDeploy)",
        _find_mmdetection,
        _read_mmdetection,
        suppressed=True,
    ),
    Decoder(
        "torchvision",
        "[n,4] corners, [n] scores, [n] category ids",
        _find_torchvision,
        _read_torchvision,
        suppressed=True,
        category_ids=True,
    ),
    Decoder(
        "tensorflow",
        "detection_boxes, detection_scores, detection_classes (TF object detection)",
        _find_tensorflow,
        _read_tensorflow,
        suppressed=True,
        category_ids=True,
    ),
)
