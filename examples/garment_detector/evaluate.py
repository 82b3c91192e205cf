"""Print COCO's mean average precision of an ONNX file on the folder's evaluation scenes.

    python evaluate.py                  # garment_detector.onnx
    python evaluate.py optimized.onnx

Needs onnxruntime, Pillow and pycocotools; it shares no code with actcc's own metric `coco-map`.
"""

import argparse
import contextlib
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

HERE = Path(__file__).resolve().parent
LOWEST_SCORE = 0.001
SUPPRESSION_OVERLAP = 0.65


@dataclass(frozen=True)
class Detections:
    """What was found in one image.

    Attributes:
        boxes: [n, 4], left, top, width, height in pixels.
        scores: [n] in [0, 1], falling.
        classes: [n], 0 to 9.
    """

    boxes: NDArray[np.float32]
    scores: NDArray[np.float32]
    classes: NDArray[np.int64]


def decode(prediction: NDArray[np.float32]) -> Detections:
    """Return the detections in a prediction [14, 320] after suppression class by class."""
    scores, classes = prediction[4:].max(0), prediction[4:].argmax(0)
    order = np.argsort(-scores, kind="stable")
    order = order[scores[order] >= LOWEST_SCORE]
    boxes, scores, classes = prediction[:4, order].T, scores[order], classes[order]
    low, high = boxes[:, :2] - boxes[:, 2:] / 2, boxes[:, :2] + boxes[:, 2:] / 2
    shared = np.minimum(high[:, None], high) - np.maximum(low[:, None], low)
    shared = np.maximum(shared, 0).prod(-1)
    areas = boxes[:, 2] * boxes[:, 3]
    overlaps = shared / (areas[:, None] + areas - shared)
    rivals = (overlaps > SUPPRESSION_OVERLAP) & (classes[:, None] == classes)
    kept: list[int] = []
    for index in range(len(order)):
        if not rivals[index, kept].any():
            kept.append(index)
    return Detections(np.hstack([low, boxes[:, 2:]])[kept], scores[kept], classes[kept])


def detect(model: Path, images: Path, truth: COCO) -> list[dict[str, Any]]:
    """Return detections in COCO's result format, run by ONNX Runtime on one CPU thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    (name,) = [entry.name for entry in session.get_inputs()]
    categories = sorted(truth.getCatIds())
    results = []
    for image in truth.dataset["images"]:
        pixels = np.asarray(Image.open(images / image["file_name"]).convert("RGB"), np.float32)
        (prediction,) = session.run(None, {name: pixels.transpose(2, 0, 1)[None] / 255})
        found = decode(prediction[0])
        for box, score, label in zip(found.boxes, found.scores, found.classes, strict=True):
            results.append(
                {
                    "image_id": image["id"],
                    "category_id": categories[label],
                    "bbox": box.tolist(),
                    "score": float(score),
                }
            )
    return results


def mean_average_precision(model: Path, folder: Path = HERE) -> tuple[float, float]:
    """Return mAP at IoU 0.50 to 0.95 and at 0.50 (Lin et al. 2014), in [0, 1]."""
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(folder / "evaluation.json"))
        found = truth.loadRes(detect(model, folder / "evaluation", truth))
        evaluation = COCOeval(truth, found, "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return float(evaluation.stats[0]), float(evaluation.stats[1])


def main() -> None:
    parser = argparse.ArgumentParser(description="Print the mAP of an ONNX file.")
    parser.add_argument("model", type=Path, nargs="?", default=HERE / "garment_detector.onnx")
    arguments = parser.parse_args()
    if not arguments.model.is_file():
        parser.error(f"{arguments.model}: no such file; run train.py or name another ONNX file")
    overall, coarse = mean_average_precision(arguments.model)
    print(f"{arguments.model.name}: mAP50-95 {100 * overall:.1f} %, mAP50 {100 * coarse:.1f} %")


if __name__ == "__main__":
    main()
