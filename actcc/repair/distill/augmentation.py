"""More samples out of a few dozen: images mirrored, zoomed, shifted, dimmed and patched together.

No label is needed, since the original network says what is to come out of whatever goes in. Inputs
that are no images stay as they are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch.nn import functional

from actcc.graph import Array

_LARGEST_ZOOM = 1.5
_SMALLEST_ZOOM = 0.6
_DIMMED = (0.7, 1.2)


def varied(
    samples: Sequence[Mapping[str, Array]], random: np.random.Generator
) -> list[dict[str, Array]]:
    """The samples, each varied in its own way where they are single images."""
    if not samples or not all(_is_image(sample) for sample in samples):
        return [dict(sample) for sample in samples]
    name = next(iter(samples[0]))
    images = [_varied(sample[name], random) for sample in samples]
    return [{name: _patched(image, images, random)} for image in images]


def _is_image(sample: Mapping[str, Array]) -> bool:
    """Whether the only input is [N, C, H, W] or [N, H, W, C] with up to four channels."""
    if len(sample) != 1:
        return False
    array = next(iter(sample.values()))
    if array.ndim != 4 or array.dtype.kind not in "fu" or min(array.shape) < 1:
        return False
    return bool(min(array.shape[1], array.shape[3]) <= 4 < array.shape[2])


def _channels_first(array: Array) -> bool:
    return bool(array.shape[1] <= 4)


def _varied(array: Array, random: np.random.Generator) -> Array:
    image = torch.from_numpy(array.astype(np.float32))
    if not _channels_first(array):
        image = image.permute(0, 3, 1, 2)
    if random.random() < 0.5:
        image = image.flip(3)
    if random.random() < 0.8:
        image = _zoomed(image, random)
    if random.random() < 0.5:
        image = image * float(random.uniform(*_DIMMED))
    if not _channels_first(array):
        image = image.permute(0, 2, 3, 1)
    low, high = float(array.min()), float(array.max())
    values: Array = image.clamp(low, high).numpy()
    return np.ascontiguousarray(np.rint(values) if array.dtype.kind == "u" else values).astype(
        array.dtype
    )


def _zoomed(image: torch.Tensor, random: np.random.Generator) -> torch.Tensor:
    """Zoomed and shifted; what was outside is mirrored."""
    step = 1 / random.uniform(_SMALLEST_ZOOM, _LARGEST_ZOOM)
    right, down = random.uniform(-0.3, 0.3, 2)
    matrix = torch.tensor([[[step, 0, right], [0, step, down]]], dtype=torch.float32)
    grid = functional.affine_grid(
        matrix.expand(image.shape[0], -1, -1), list(image.shape), align_corners=False
    )
    return functional.grid_sample(image, grid, padding_mode="reflection", align_corners=False)


def _patched(image: Array, others: Sequence[Array], random: np.random.Generator) -> Array:
    """Three in ten get a rectangle of another image in the same place (Yun et al. 2019, CutMix)."""
    if random.random() >= 0.3:
        return image
    other = others[int(random.integers(len(others)))]
    first = 2 if _channels_first(image) else 1
    height, width = image.shape[first], image.shape[first + 1]
    rows, columns = (int(size * random.uniform(0.3, 0.7)) for size in (height, width))
    top = int(random.integers(height - rows + 1))
    left = int(random.integers(width - columns + 1))
    where: list[slice] = [slice(None)] * 4
    where[first] = slice(top, top + rows)
    where[first + 1] = slice(left, left + columns)
    patched: Array = image.copy()
    patched[tuple(where)] = other[tuple(where)]
    return patched
