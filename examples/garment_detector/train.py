"""Train the example's detector and write everything that the folder commits.

    python train.py                                       # twenty minutes of one core
    python train.py --steps 20 --out /tmp/try             # a quick try that leaves the folder alone
    python train.py --weights weights.pt --out /tmp/again # export and draw again, train nothing

Writes garment_detector.onnx, calibration/, evaluation/, evaluation.json and weights.pt (which the
repository leaves out) to --out. Needs torch, onnx, onnxruntime, onnxscript, Pillow and pycocotools;
the garments are Debian's package dataset-fashion-mnist.
"""

import argparse
import json
import shutil
import time
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import torch
from evaluate import mean_average_precision
from loss import detection_loss
from network import Detector
from PIL import Image
from scenes import CLASSES, DEBIAN_DATA, SIZE, Garments, Scenes, compose, read_garments
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

HERE = Path(__file__).resolve().parent
BATCH = 32
LEARNING_RATE = 2.5e-3
OPSET = 17
CALIBRATION_IMAGES = 40
EVALUATION_IMAGES = 200
AGREEMENT = 1e-4
CHECKED_IMAGES = 4


def train(model: Detector, garments: Garments, steps: int, seed: int) -> Detector:
    """Return the running average of the weights while training (on scenes drawn as it goes)."""
    by = torch.Generator().manual_seed(seed)
    model.to(memory_format=torch.channels_last).train()
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(0.998), use_buffers=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=LEARNING_RATE, total_steps=steps, pct_start=0.1
    )
    started, total = time.perf_counter(), 0.0
    for step in range(1, steps + 1):
        scenes = compose(garments, BATCH, by)
        sides, logits = model(scenes.images.contiguous(memory_format=torch.channels_last))
        loss = detection_loss(model, sides, logits, scenes)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 10.0)
        optimizer.step()
        schedule.step()
        average.update_parameters(model)
        total += loss.item()
        if step % 50 == 0 or step == steps:
            seconds = time.perf_counter() - started
            print(f"step {step}/{steps}: loss {total / 50:.3f}, {seconds:.0f} s", flush=True)
            total = 0.0
    return average.module


@torch.no_grad()
def export(model: Detector, path: Path, images: torch.Tensor) -> None:
    """Write the model as ONNX at opset 17 with a batch of 1, and compare it on ``images``.

    Batch norms are folded into the convolutions. The TorchScript exporter is used because the
    newer one starts at opset 18 and writes stack traces with this machine's paths into the file.
    """
    model.to(memory_format=torch.contiguous_format).eval()
    torch.onnx.export(
        model,
        (images[:1],),
        path,
        dynamo=False,
        opset_version=OPSET,
        input_names=["images"],
        output_names=["output0"],
    )
    onnx.checker.check_model(onnx.load(path), full_check=True)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for image in images.split(1):
        expected = model(image).numpy()
        (found,) = session.run(None, {"images": image.numpy()})
        difference = np.abs(found - expected).max() / np.abs(expected).max()
        if difference > AGREEMENT:
            raise SystemExit(f"{path}: differs from PyTorch by {difference:.1e}; do not use it")


def save_images(scenes: Scenes, folder: Path) -> list[str]:
    """Write the scenes as JPEG files into a fresh folder and return the names."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    names = []
    for index, image in enumerate(scenes.images):
        pixels = (image.permute(1, 2, 0) * 255).round().byte().numpy()
        names.append(f"{index:04}.jpg")
        Image.fromarray(pixels).save(folder / names[-1], quality=80, optimize=True)
    return names


def coco_labels(scenes: Scenes, names: list[str]) -> dict[str, list[dict[str, object]]]:
    """Return images, annotations and categories as COCO has them; ids from 1."""
    annotations: list[dict[str, object]] = []
    for image, present in enumerate(scenes.present):
        for row in present.nonzero().flatten().tolist():
            left, top, right, bottom = scenes.boxes[image, row].tolist()
            width, height = right - left, bottom - top
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": image + 1,
                    "category_id": int(scenes.labels[image, row]) + 1,
                    "bbox": [round(value, 2) for value in (left, top, width, height)],
                    "area": round(width * height, 2),
                    "iscrowd": 0,
                }
            )
    return {
        "images": [
            {"id": index + 1, "file_name": name, "width": SIZE, "height": SIZE}
            for index, name in enumerate(names)
        ],
        "annotations": annotations,
        "categories": [{"id": index + 1, "name": name} for index, name in enumerate(CLASSES)],
    }


def write_scenes(garments: Garments, folder: Path, seed: int) -> None:
    """Write calibration/, evaluation/ and evaluation.json; no garment is in both."""
    by = torch.Generator().manual_seed(seed)
    rows = torch.randperm(len(garments.labels), generator=by)
    half = len(rows) // 2
    save_images(
        compose(garments.select(rows[:half]), CALIBRATION_IMAGES, by), folder / "calibration"
    )
    scenes = compose(garments.select(rows[half:]), EVALUATION_IMAGES, by)
    names = save_images(scenes, folder / "evaluation")
    labels = json.dumps(coco_labels(scenes, names), separators=(",", ":"))
    (folder / "evaluation.json").write_text(labels + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description="Train and export the garment detector.")
    parser.add_argument("--steps", type=int, default=3200, help="batches of 32 scenes")
    parser.add_argument("--data-dir", type=Path, default=DEBIAN_DATA, help="the four idx files")
    parser.add_argument("--out", type=Path, default=HERE, help="folder to write to")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--weights", type=Path, help="of an earlier run: train nothing")
    arguments = parser.parse_args()

    torch.manual_seed(arguments.seed)
    torch.set_num_threads(arguments.threads)
    model = Detector()
    print(f"{sum(parameter.numel() for parameter in model.parameters())} parameters")
    arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.weights:
        model.load_state_dict(torch.load(arguments.weights))
    else:
        garments = read_garments(arguments.data_dir, "train")
        model = train(model, garments, arguments.steps, arguments.seed)
        torch.save(model.state_dict(), arguments.out / "weights.pt")

    test_garments = read_garments(arguments.data_dir, "t10k")
    write_scenes(test_garments, arguments.out, arguments.seed)
    checked = compose(test_garments, CHECKED_IMAGES, torch.Generator().manual_seed(arguments.seed))
    export(model, arguments.out / "garment_detector.onnx", checked.images)
    overall, coarse = mean_average_precision(arguments.out / "garment_detector.onnx", arguments.out)
    print(f"mAP50-95 {100 * overall:.1f} %, mAP50 {100 * coarse:.1f} %")


if __name__ == "__main__":
    main()
