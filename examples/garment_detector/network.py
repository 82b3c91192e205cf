"""The detector: YOLOv8's blocks, narrow, with heads at strides 8 and 16."""

import torch
from scenes import CLASSES, SIZE
from torch import Tensor, nn
from torch.nn import functional

STRIDES = (8, 16)
BINS = 8
"""Distances from an anchor to a side are expected values over 0 to 7 strides."""


class ConvSiLU(nn.Sequential):
    """Convolution that keeps the size at stride 1, batch norm, SiLU."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__(
            nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False),
            nn.BatchNorm2d(outputs, eps=1e-3, momentum=0.03),
            nn.SiLU(),
        )


class Bottleneck(nn.Module):
    """Two 3x3 convolutions, added to their input where ``shortcut``."""

    def __init__(self, channels: int, shortcut: bool) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            ConvSiLU(channels, channels, 3), ConvSiLU(channels, channels, 3)
        )
        self.shortcut = shortcut

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x) if self.shortcut else self.layers(x)


class C2f(nn.Module):
    """Split in two, a chain of bottlenecks on one half, all intermediate results joined."""

    def __init__(self, inputs: int, outputs: int, depth: int = 2, shortcut: bool = True) -> None:
        super().__init__()
        self.half = half = outputs // 2
        self.enter = ConvSiLU(inputs, outputs)
        self.blocks = nn.ModuleList(Bottleneck(half, shortcut) for _ in range(depth))
        self.leave = ConvSiLU((2 + depth) * half, outputs)

    def forward(self, x: Tensor) -> Tensor:
        parts = list(self.enter(x).split(self.half, 1))
        for block in self.blocks:
            parts.append(block(parts[-1]))
        return self.leave(torch.cat(parts, 1))


class SPPF(nn.Module):
    """Three chained 5x5 max poolings, joined (spatial pyramid pooling, He et al. 2015)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.enter = ConvSiLU(channels, channels // 2)
        self.pool = nn.MaxPool2d(5, 1, 2)
        self.leave = ConvSiLU(channels * 2, channels)

    def forward(self, x: Tensor) -> Tensor:
        parts = [self.enter(x)]
        for _ in range(3):
            parts.append(self.pool(parts[-1]))
        return self.leave(torch.cat(parts, 1))


class Head(nn.Module):
    """Sides as distributions over ``BINS`` and class scores, from two separate branches."""

    def __init__(self, channels: int, stride: int) -> None:
        super().__init__()
        sides, scores = 32, 48
        self.sides = nn.Sequential(
            ConvSiLU(channels, sides, 3),
            ConvSiLU(sides, sides, 3),
            nn.Conv2d(sides, 4 * BINS, 1),
        )
        self.scores = nn.Sequential(
            ConvSiLU(channels, scores, 3),
            ConvSiLU(scores, scores, 3),
            nn.Conv2d(scores, len(CLASSES), 1),
        )
        nn.init.constant_(self.sides[-1].bias, 1.0)
        nn.init.constant_(self.scores[-1].bias, -5.0)
        self.anchors = (SIZE // stride) ** 2

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        sides = self.sides(x).reshape(-1, 4 * BINS, self.anchors)
        return sides, self.scores(x).reshape(-1, len(CLASSES), self.anchors)


class Detector(nn.Module):
    """Images [n, 3, 128, 128] in [0, 1] → predictions [n, 14, 320] once ``eval()`` is set.

    Each column is one anchor: centre x, centre y, width, height in pixels, ten class scores in
    [0, 1]; the layout of an exported YOLOv8. In training: raw sides [n, 32, 320] and class logits
    [n, 10, 320].
    """

    anchors: Tensor
    strides: Tensor
    distances: Tensor

    def __init__(self, widths: tuple[int, int, int, int, int] = (16, 24, 48, 72, 96)) -> None:
        super().__init__()
        w2, w4, w8, w16, w32 = widths
        self.to8 = nn.Sequential(
            ConvSiLU(3, w2, 3, 2),
            ConvSiLU(w2, w4, 3, 2),
            C2f(w4, w4, 1),
            ConvSiLU(w4, w8, 3, 2),
            C2f(w8, w8),
        )
        self.to16 = nn.Sequential(ConvSiLU(w8, w16, 3, 2), C2f(w16, w16))
        self.to32 = nn.Sequential(ConvSiLU(w16, w32, 3, 2), C2f(w32, w32), SPPF(w32))
        self.down16 = C2f(w32 + w16, w16, shortcut=False)
        self.down8 = C2f(w16 + w8, w8, shortcut=False)
        self.up16 = ConvSiLU(w8, w8, 3, 2)
        self.out16 = C2f(w8 + w16, w16, shortcut=False)
        self.heads = nn.ModuleList([Head(w8, 8), Head(w16, 16)])
        anchors, strides = anchor_points()
        self.register_buffer("anchors", anchors)
        self.register_buffer("strides", strides)
        self.register_buffer("distances", torch.arange(float(BINS)).reshape(1, 1, BINS, 1))

    def forward(self, images: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        at8 = self.to8(images)
        at16 = self.to16(at8)
        joined = torch.cat([enlarge(self.to32(at16)), at16], 1)
        middle = self.down16(joined)
        fine = self.down8(torch.cat([enlarge(middle), at8], 1))
        coarse = self.out16(torch.cat([self.up16(fine), middle], 1))
        found = [head(x) for head, x in zip(self.heads, (fine, coarse), strict=True)]
        sides = torch.cat([sides for sides, _ in found], 2)
        scores = torch.cat([scores for _, scores in found], 2)
        if self.training:
            return sides, scores
        low, high = self.corners(sides).split(2, 1)
        return torch.cat([(low + high) / 2, high - low, scores.sigmoid()], 1)

    def corners(self, sides: Tensor) -> Tensor:
        """Return left, top, right, bottom [n, 4, 320] in pixels of raw ``sides``."""
        bins = sides.reshape(-1, 4, BINS, sides.shape[2]).softmax(2)
        distances = (bins * self.distances).sum(2) * self.strides
        low, high = distances.split(2, 1)
        return torch.cat([self.anchors - low, self.anchors + high], 1)


def enlarge(x: Tensor) -> Tensor:
    """Return the map at twice its size."""
    return functional.interpolate(x, scale_factor=2.0, mode="nearest")


def anchor_points() -> tuple[Tensor, Tensor]:
    """Return the centres [1, 2, 320] of all cells in pixels, and their strides [1, 1, 320]."""
    points, strides = [], []
    for stride in STRIDES:
        centres = (torch.arange(SIZE // stride) + 0.5) * stride
        rows, columns = torch.meshgrid(centres, centres, indexing="ij")
        points.append(torch.stack([columns.flatten(), rows.flatten()]))
        strides.append(torch.full((1, rows.numel()), float(stride)))
    return torch.cat(points, 1)[None], torch.cat(strides, 1)[None]
