"""Print the top-1 accuracy of an ONNX file on evaluation.npz, or on the whole test set.

    python evaluate.py                          # fashion_mnist.onnx, the 1,000 committed images
    python evaluate.py optimized.onnx --full    # 10,000 images of Debian's dataset-fashion-mnist

Needs onnxruntime and numpy, nothing else.
"""

import argparse
import gzip
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from metric import top1
from numpy.typing import NDArray

HERE = Path(__file__).resolve().parent
DEBIAN_DATA = Path("/usr/share/datasets/fashion-mnist")


@dataclass(frozen=True)
class LabelledImage:
    """One image as the metric reads it."""

    name: str
    inputs: dict[str, NDArray[Any]]
    annotations: dict[str, NDArray[Any]]


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Return the array in a gzipped idx file of unsigned bytes (LeCun's MNIST format)."""
    if not path.is_file():
        raise SystemExit(
            f"{path}: no such file; apt-get install dataset-fashion-mnist, or --data-dir"
        )
    content = gzip.decompress(path.read_bytes())
    if content[:3] != b"\x00\x00\x08":
        raise SystemExit(f"{path}: not an idx file of unsigned bytes; reinstall the data set")
    rank = content[3]
    shape = np.frombuffer(content, ">u4", count=rank, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(tuple(shape))


def read_split(data_dir: Path, split: str) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Return images [n, 1, 28, 28] in [0, 1] and labels [n] of the split ``train`` or ``t10k``."""
    images = read_idx(data_dir / f"{split}-images-idx3-ubyte.gz")
    labels = read_idx(data_dir / f"{split}-labels-idx1-ubyte.gz")
    return images[:, None].astype(np.float32) / np.float32(255), labels.astype(np.int64)


def labelled(images: NDArray[np.float32], labels: NDArray[np.int64]) -> Iterator[LabelledImage]:
    """Yield one sample, with a batch axis of 1, for each image."""
    for index, label in enumerate(labels):
        yield LabelledImage(
            f"#{index}", {"images": images[index : index + 1]}, {"labels": np.asarray(label)}
        )


def accuracy(model: Path, samples: Sequence[LabelledImage]) -> float:
    """Return the top-1 accuracy in [0, 1] of an ONNX file under ONNX Runtime on one CPU thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    names = [output.name for output in session.get_outputs()]
    outputs = [dict(zip(names, session.run(names, s.inputs), strict=True)) for s in samples]
    return top1(outputs, samples)


def main() -> None:
    parser = argparse.ArgumentParser(description="Print the top-1 accuracy of an ONNX file.")
    parser.add_argument("model", type=Path, nargs="?", default=HERE / "fashion_mnist.onnx")
    parser.add_argument("--full", action="store_true", help="all 10,000 test images")
    parser.add_argument("--data-dir", type=Path, default=DEBIAN_DATA, help="idx files for --full")
    arguments = parser.parse_args()
    if not arguments.model.is_file():
        parser.error(f"{arguments.model}: no such file; run train.py or name another ONNX file")

    if arguments.full:
        images, labels = read_split(arguments.data_dir, "t10k")
    else:
        with np.load(HERE / "evaluation.npz") as data:
            images, labels = data["images"], data["labels"]
    share = accuracy(arguments.model, list(labelled(images, labels)))
    print(f"{arguments.model.name}: top-1 {100 * share:.2f} % of {len(labels)} test images")


if __name__ == "__main__":
    main()
