"""Compose scenes: Fashion-MNIST garments with boxes on textured backgrounds, drawn by a seed.

Everything is drawn for a whole batch at once. Needs torch; the garments are Debian's package
dataset-fashion-mnist.
"""

import gzip
import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

DEBIAN_DATA = Path("/usr/share/datasets/fashion-mnist")
CLASSES = (
    "T-shirt",
    "trouser",
    "pullover",
    "dress",
    "coat",
    "sandal",
    "shirt",
    "sneaker",
    "bag",
    "ankle boot",
)
SIZE = 128
GARMENTS = 6
GARMENT_PIXELS = 28
SMALLEST, LARGEST = 28.0, 64.0
PLACES = 12
OVERLAP = 0.15


@dataclass(frozen=True)
class Garments:
    """One split of the data set.

    Attributes:
        pixels: [n, 28, 28] in [0, 1].
        opacity: [n, 28, 28] in [0, 1]; 0 is the studio's background.
        extent: [n, 4], left, top, right, bottom of what is opaque, in pixels of the garment.
        labels: [n], 0 to 9.
    """

    pixels: Tensor
    opacity: Tensor
    extent: Tensor
    labels: Tensor

    def select(self, rows: Tensor) -> "Garments":
        """Return these rows alone."""
        return Garments(self.pixels[rows], self.opacity[rows], self.extent[rows], self.labels[rows])


@dataclass(frozen=True)
class Scenes:
    """A batch of scenes.

    Attributes:
        images: [b, 3, 128, 128], RGB in [0, 1].
        boxes: [b, 6, 4], left, top, right, bottom in pixels.
        labels: [b, 6], 0 to 9.
        present: [b, 6], which of the six are there; the rows of the others mean nothing.
    """

    images: Tensor
    boxes: Tensor
    labels: Tensor
    present: Tensor


def read_idx(path: Path) -> NDArray[np.uint8]:
    """Return the array in a gzipped idx file of unsigned bytes (LeCun's MNIST format)."""
    if not path.is_file():
        raise SystemExit(
            f"{path}: no such file; apt-get install dataset-fashion-mnist, or --data-dir"
        )
    content = gzip.decompress(path.read_bytes())
    rank = content[3]
    shape = np.frombuffer(content, ">u4", count=rank, offset=4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(tuple(shape))


def read_garments(data_dir: Path, split: str) -> Garments:
    """Return the garments of the split ``train`` or ``t10k``."""
    pixels = torch.tensor(read_idx(data_dir / f"{split}-images-idx3-ubyte.gz")) / 255
    labels = torch.tensor(read_idx(data_dir / f"{split}-labels-idx1-ubyte.gz")).long()
    opacity = (pixels * 6).clamp(0, 1)
    solid = opacity > 0.5
    bounds = []
    for axis in (1, 2):  # over rows: columns that hold something, then the other way round
        filled = solid.any(axis).int()
        first = filled.argmax(1)
        last = GARMENT_PIXELS - filled.flip(1).argmax(1)
        bounds.append((first, last))
    (left, right), (top, bottom) = bounds
    return Garments(pixels, opacity, torch.stack([left, top, right, bottom], 1).float(), labels)


def uniform(low: float, high: float, *shape: int, by: torch.Generator) -> Tensor:
    """Return values drawn evenly from [low, high)."""
    return low + (high - low) * torch.rand(*shape, generator=by)


def backgrounds(count: int, by: torch.Generator) -> Tensor:
    """Return [count, 3, 128, 128] in [0, 1]: cloudy or striped mixtures of two colours, grainy."""
    clouds = torch.zeros(count, 1, SIZE, SIZE)
    for cells in (2, 4, 8, 16, 32):
        coarse = torch.randn(count, 1, cells, cells, generator=by)
        weight = uniform(0, 1, count, 1, 1, 1, by=by) ** 2
        clouds += weight * functional.interpolate(coarse, (SIZE, SIZE), mode="bilinear")
    angle = uniform(0, math.pi, count, 1, 1, 1, by=by)
    waves = uniform(1, 16, count, 1, 1, 1, by=by) * 2 * math.pi
    place = torch.linspace(0, 1, SIZE)
    along = place.view(1, 1, 1, -1) * angle.cos() + place.view(1, 1, -1, 1) * angle.sin()
    stripes = torch.sin(waves * along + clouds)
    striped = uniform(0, 1, count, 1, 1, 1, by=by) < 0.4
    hardness = uniform(0.7, 4, count, 1, 1, 1, by=by)
    mixture = torch.sigmoid(hardness * torch.where(striped, stripes, clouds))
    first, second = uniform(0.05, 0.95, 2, count, 3, 1, 1, by=by)
    grain = uniform(0, 0.06, count, 1, 1, 1, by=by)
    noise = torch.randn(count, 3, SIZE, SIZE, generator=by)
    return first + (second - first) * mixture + grain * noise


def overlap(box: Tensor, others: Tensor) -> Tensor:
    """Return the largest share of the smaller box that ``box`` [b, p, 4] has in common.

    ``others`` is [b, n, 4]; the result is [b, p].
    """
    low = torch.maximum(box[:, :, None, :2], others[:, None, :, :2])
    high = torch.minimum(box[:, :, None, 2:], others[:, None, :, 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    areas = [(some[..., 2:] - some[..., :2]).prod(-1) for some in (box, others)]
    smaller = torch.minimum(areas[0][:, :, None], areas[1][:, None, :])
    return (shared / smaller.clamp(min=1)).amax(-1)


def place(widths: Tensor, by: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return boxes [b, 6, 4] for garments of ``widths`` [b, 6, 2], and which found room [b, 6].

    Each garment tries a dozen places and takes the one with the least overlap; it is left out if
    even there more than 15 % is covered, and beyond the number drawn for its scene.
    """
    count = len(widths)
    boxes = torch.zeros(count, GARMENTS, 4)
    wanted = torch.randint(1, GARMENTS + 1, (count, 1), generator=by)
    present = torch.arange(GARMENTS) < wanted
    for index in range(GARMENTS):
        extent = widths[:, index, None]
        corner = torch.rand(count, PLACES, 2, generator=by) * (SIZE - extent)
        tried = torch.cat([corner, corner + extent], -1)
        covered = overlap(tried, boxes)
        best = covered.argmin(1)
        rows = torch.arange(count)
        present[:, index] &= covered[rows, best] < OVERLAP
        boxes[:, index] = tried[rows, best] * present[:, index, None]
    return boxes, present


def compose(garments: Garments, count: int, by: torch.Generator) -> Scenes:
    """Return ``count`` scenes of one to six garments each."""
    chosen = torch.randint(len(garments.labels), (count, GARMENTS), generator=by)
    extent = garments.extent[chosen]
    scale = uniform(SMALLEST, LARGEST, count, GARMENTS, 1, by=by) / GARMENT_PIXELS
    scale = scale * uniform(0.87, 1.15, count, GARMENTS, 2, by=by)
    widths = (extent[..., 2:] - extent[..., :2]) * scale
    boxes, present = place(widths, by)
    mirrored = torch.rand(count, GARMENTS, 1, 1, generator=by) < 0.5
    tint = uniform(0.35, 1, count, GARMENTS, 3, 1, 1, by=by)

    images = backgrounds(count, by)
    pixels = torch.where(mirrored, garments.pixels[chosen].flip(-1), garments.pixels[chosen])
    opacity = torch.where(mirrored, garments.opacity[chosen].flip(-1), garments.opacity[chosen])
    flipped = extent.clone()
    flipped[..., 0], flipped[..., 2] = (
        GARMENT_PIXELS - extent[..., 2],
        GARMENT_PIXELS - extent[..., 0],
    )
    extent = torch.where(mirrored[..., 0], flipped, extent)
    origin = boxes[..., :2] - extent[..., :2] * scale
    centres = torch.arange(SIZE) + 0.5
    for index in range(GARMENTS):
        reach = centres - origin[:, index, :, None]
        reach = reach / (scale[:, index, :, None] * GARMENT_PIXELS) * 2 - 1
        grid = torch.stack(
            [
                reach[:, 0, None, :].expand(-1, SIZE, -1),
                reach[:, 1, :, None].expand(-1, -1, SIZE),
            ],
            -1,
        )
        layers = torch.stack([pixels[:, index], opacity[:, index]], 1)
        drawn = functional.grid_sample(layers, grid, align_corners=False)
        alpha = drawn[:, 1:] * present[:, index, None, None, None]
        images = images + alpha * (drawn[:, :1] * tint[:, index] - images)
    return Scenes(images.clamp(0, 1), boxes, garments.labels[chosen], present)
