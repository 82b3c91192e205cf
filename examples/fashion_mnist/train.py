"""Train the example's classifier on Fashion-MNIST and write everything that the folder commits.

    python train.py                             # about twenty minutes on two cores
    python train.py --epochs 1 --out /tmp/try   # a quick try that leaves the folder alone

Writes fashion_mnist.onnx, calibration.npz and evaluation.npz to --out and prints the accuracy on
the 10,000 test images. Needs torch, onnx and onnxruntime; the data is Debian's package
dataset-fashion-mnist.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import onnx
import torch
from evaluate import DEBIAN_DATA, HERE, accuracy, labelled, read_split
from torch import Tensor, nn
from torch.nn import functional

CALIBRATION_IMAGES = 128
EVALUATION_IMAGES = 1000
BATCH = 64
OPSET = 17

# expansion, depthwise kernel, stride, output channels
BLOCKS = [
    (4, 3, 1, 16),
    (6, 5, 2, 32),
    (4, 3, 1, 32),
    (4, 3, 1, 32),
    (6, 5, 2, 64),
    (4, 5, 1, 64),
    (4, 3, 1, 64),
]
STEM_CHANNELS = 16
HEAD_CHANNELS = 256


def conv_norm(
    inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    """Return a convolution that keeps the size at stride 1, and its batch norm."""
    return [
        nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(outputs),
    ]


class SqueezeExcite(nn.Module):
    """Scale each channel by a gate computed from all channel means (Hu et al. 2018, section 3)."""

    def __init__(self, channels: int, squeezed: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, squeezed, 1),
            nn.SiLU(),
            nn.Conv2d(squeezed, channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x)


class InvertedResidual(nn.Module):
    """Expand, depthwise, squeeze-excite, project (Tan and Le 2019: MBConv)."""

    def __init__(self, inputs: int, expansion: int, kernel: int, stride: int, outputs: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.layers = nn.Sequential(
            *conv_norm(inputs, hidden, 1),
            nn.SiLU(),
            *conv_norm(hidden, hidden, kernel, stride, groups=hidden),
            nn.SiLU(),
            SqueezeExcite(hidden, inputs // 2),
            *conv_norm(hidden, outputs, 1),
        )
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.residual else self.layers(x)


class Classifier(nn.Module):
    """Images [n, 1, 28, 28] in [0, 1] → logits [n, 10]; the normalisation is inside."""

    def __init__(self, mean: float, deviation: float) -> None:
        super().__init__()
        self.mean, self.deviation = mean, deviation
        layers = [*conv_norm(1, STEM_CHANNELS, 3), nn.SiLU()]
        channels = STEM_CHANNELS
        for expansion, kernel, stride, outputs in BLOCKS:
            layers.append(InvertedResidual(channels, expansion, kernel, stride, outputs))
            channels = outputs
        layers += [*conv_norm(channels, HEAD_CHANNELS, 1), nn.SiLU(), nn.AdaptiveAvgPool2d(1)]
        self.layers = nn.Sequential(*layers, nn.Flatten(), nn.Linear(HEAD_CHANNELS, 10))

    def forward(self, images: Tensor) -> Tensor:
        return self.layers((images - self.mean) / self.deviation)


def augment(images: Tensor, size: int) -> Tensor:
    """Return the batch with half of the images mirrored, all shifted alike, scaled to size²."""
    mirrored = torch.rand(len(images), 1, 1, 1) < 0.5
    images = torch.where(mirrored, images.flip(3), images)
    top, left = torch.randint(0, 5, (2,)).tolist()
    images = functional.pad(images, (2, 2, 2, 2))[:, :, top : top + 28, left : left + 28]
    if size == 28:
        return images
    return functional.interpolate(images, size=(size, size), mode="bilinear", antialias=True)


def train(model: Classifier, images: Tensor, labels: Tensor, epochs: int) -> None:
    """Train in place; small images first, as in EfficientNetV2 (Tan and Le 2021, section 4)."""
    model.train()
    steps = len(images) // BATCH
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3, weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, max_lr=4e-3, total_steps=epochs * steps, pct_start=0.25
    )
    for epoch in range(epochs):
        size = 28 if epochs == 1 else 14 + 2 * round(7 * epoch / (epochs - 1))
        started, total = time.perf_counter(), 0.0
        for rows in torch.randperm(len(images))[: steps * BATCH].split(BATCH):
            batch = augment(images[rows], size).contiguous(memory_format=torch.channels_last)
            loss = functional.cross_entropy(model(batch), labels[rows], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            total += loss.item()
        seconds = time.perf_counter() - started
        result = f"loss {total / steps:.4f}, {seconds:.0f} s"
        print(f"epoch {epoch + 1}/{epochs} at {size}x{size}: {result}", flush=True)


@torch.no_grad()
def torch_accuracy(model: Classifier, images: Tensor, labels: Tensor) -> float:
    """Return the top-1 accuracy in [0, 1] of the model in evaluation mode."""
    model.eval()
    right = [
        (model(batch).argmax(1) == truth).sum().item()
        for batch, truth in zip(images.split(500), labels.split(500), strict=True)
    ]
    return sum(right) / len(images)


def export(model: Classifier, path: Path) -> None:
    """Write the model as ONNX at opset 17 with a batch of 1 and no dynamic axis.

    A batch of 1 is what a device runs, so every shape is known and every target can price it. The
    TorchScript exporter is used because the newer one starts at opset 18 (its conversion to 17
    fails on ReduceMean) and writes stack traces with this machine's paths into the file.
    """
    model.eval()
    torch.onnx.export(
        model,
        (torch.zeros(1, 1, 28, 28),),
        path,
        dynamo=False,
        opset_version=OPSET,
        input_names=["images"],
        output_names=["logits"],
    )
    onnx.checker.check_model(onnx.load(path), full_check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train and export the Fashion-MNIST example.")
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--data-dir", type=Path, default=DEBIAN_DATA, help="the four idx files")
    parser.add_argument("--out", type=Path, default=HERE, help="folder to write to")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()

    torch.manual_seed(arguments.seed)
    torch.use_deterministic_algorithms(True)
    torch.set_num_threads(arguments.threads)
    train_images, train_labels = read_split(arguments.data_dir, "train")
    test_images, test_labels = read_split(arguments.data_dir, "t10k")

    model = Classifier(round(float(train_images.mean()), 4), round(float(train_images.std()), 4))
    print(f"{sum(parameter.numel() for parameter in model.parameters())} parameters")
    model.to(memory_format=torch.channels_last)
    train(model, torch.from_numpy(train_images), torch.from_numpy(train_labels), arguments.epochs)
    share = torch_accuracy(model, torch.from_numpy(test_images), torch.from_numpy(test_labels))
    print(f"PyTorch: top-1 {100 * share:.2f} % of {len(test_labels)} test images")

    arguments.out.mkdir(parents=True, exist_ok=True)
    model_path = arguments.out / "fashion_mnist.onnx"
    export(model, model_path)
    share = accuracy(model_path, list(labelled(test_images, test_labels)))
    print(f"ONNX Runtime: top-1 {100 * share:.2f} % of {len(test_labels)} test images")

    rng = np.random.default_rng(arguments.seed)
    rows = np.sort(rng.choice(len(train_images), CALIBRATION_IMAGES, replace=False))
    np.savez_compressed(arguments.out / "calibration.npz", images=train_images[rows])
    rows = np.sort(rng.choice(len(test_images), EVALUATION_IMAGES, replace=False))
    np.savez_compressed(
        arguments.out / "evaluation.npz", images=test_images[rows], labels=test_labels[rows]
    )


if __name__ == "__main__":
    main()
