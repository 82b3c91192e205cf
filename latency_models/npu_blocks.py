"""How an NPU cuts a convolution into blocks, and what one block costs.

The rules are those of Arm's Vela compiler for Ethos-U55 and U65, version 5.2: `FindBlockConfig` in
ethos_u55.cpp takes the block that fits the buffers and makes the device read the fewest elements
for each result, and for an element-wise operation the largest block.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from actcc.graph.macs import Contraction
from actcc.latency_models.npu_settings import Blocks

_LARGEST_KERNEL = 8  # larger ones are laid several times
_SUM_BYTES = 4
_NARROW = 16  # input channels that the mode for few of them takes at once


@dataclass(frozen=True)
class Layer:
    """One convolution as the device sees it, for one group.

    Attributes:
        rows, columns: of the output.
        inputs, outputs: channels.
        kernel, stride: (height, width); zeros that a wide dilation puts into the kernel count.
        each: channels are independent (depthwise).
        enlarged: factor by which the input is upsampled while it is read.
        dilation: (height, width).
    """

    rows: int
    columns: int
    inputs: int
    outputs: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    each: bool
    enlarged: int = 1
    dilation: tuple[int, int] = (1, 1)

    @classmethod
    def of(cls, work: Contraction) -> Layer:
        """The layer of a contraction; a transposed one runs over its zeros, with stride 1."""
        channels = work.groups * work.outputs if work.depthwise else work.outputs
        rows, columns, stride = work.rows, work.columns, work.stride
        if work.transposed:
            rows, columns, stride = rows * stride[0], columns * stride[1], (1, 1)
        # The device skips one element; what is left of a wider dilation are zeros in the kernel.
        skipped = tuple(2 if step % 2 == 0 else 1 for step in work.dilation)
        dense = [
            (size - 1) * (step // own) + 1
            for size, step, own in zip(work.kernel, work.dilation, skipped, strict=True)
        ]
        return cls(
            rows=rows,
            columns=columns,
            inputs=channels if work.depthwise else work.inputs,
            outputs=channels,
            kernel=(dense[0], dense[1]),
            stride=stride,
            each=work.depthwise,
            enlarged=max(work.stride) if work.transposed else 1,
            dilation=(skipped[0], skipped[1]),
        )

    @property
    def elements(self) -> int:
        """Elements of the kernel."""
        return self.kernel[0] * self.kernel[1]

    @property
    def span(self) -> tuple[int, int]:
        """Rows and columns of the input under the kernel."""
        down, across = (
            (size - 1) * step + 1 for size, step in zip(self.kernel, self.dilation, strict=True)
        )
        return down, across

    @property
    def layings(self) -> int:
        """How often the input is read because the kernel is larger than the device's."""
        return math.prod(math.ceil(size / _LARGEST_KERNEL) for size in self.kernel)

    def kernel_elements(self, at_once: int) -> int:
        """Elements of the kernel with those that fill up a step."""
        down, across = (
            [min(size - at, _LARGEST_KERNEL) for at in range(0, size, _LARGEST_KERNEL)]
            for size in self.kernel
        )
        return sum(round_up(a * b, at_once) for a in down for b in across)


@dataclass(frozen=True)
class Block:
    """A piece of the output that is computed at once.

    Attributes:
        rows, columns, channels: of the output.
        input_rows, input_columns, input_channels: that are read for a step of it.
    """

    rows: int
    columns: int
    channels: int
    input_rows: int
    input_columns: int
    input_channels: int


def takes_kernel_elements(layer: Layer, blocks: Blocks) -> bool:
    """Whether several elements of the kernel make one step, and not only channels."""
    if layer.inputs <= blocks.narrow_input_channels:
        return True
    wide = layer.inputs / round_up(layer.inputs, blocks.input_channels)
    narrow = layer.inputs / round_up(layer.inputs, blocks.narrow_input_channels)
    narrow *= layer.elements / round_up(layer.elements, blocks.narrow_kernel)
    return narrow >= wide


def summed(layer: Layer, blocks: Blocks) -> int:
    """Products for one result, with those that fill up a step."""
    if layer.each:
        return layer.kernel_elements(blocks.depthwise_kernel)
    if not takes_kernel_elements(layer, blocks):
        return round_up(layer.inputs, blocks.input_channels) * layer.elements
    taken = min(_NARROW, round_up(layer.inputs, blocks.narrow_input_channels))
    at_once = round_up(taken, blocks.narrow_input_channels)
    return math.ceil(layer.inputs / taken) * at_once * layer.kernel_elements(blocks.narrow_kernel)


def choose_block(layer: Layer, blocks: Blocks) -> Block:
    """The block that fits and reads the least for each result; the first of those that tie."""
    depth = _depths(layer.outputs, blocks)[:, None, None]
    height = _sizes(layer.rows, blocks.largest[0], blocks.rows)[None, :, None]
    width = _sizes(layer.columns, blocks.largest[1], blocks.columns)[None, None, :]
    input_rows = _read(height, layer, 0, blocks.rows)
    input_columns = _read(width, layer, 1, blocks.columns)
    taken = _taken(layer, blocks)
    input_channels = depth if layer.each else np.full_like(depth, taken)
    row = layer.rows == 1 and layer.kernel[0] == 1
    sums = (1 if row else height) * width * depth
    fits = sums <= blocks.accumulators
    held = _granules(2 * input_rows * input_columns * input_channels, blocks.input_granule_bytes)
    held = held + _granules(2 * _SUM_BYTES * sums, blocks.sum_granule_bytes)
    fits = fits & (held <= blocks.buffer_bytes)
    # Vela counts in single precision, which decides between blocks that read the same.
    single = np.float32
    across, down = single(layer.columns) / single(width), single(layer.rows) / single(height)
    pieces = np.ceil(layer.rows / height) * np.ceil(layer.columns / width)
    weights = single(layer.elements * layer.inputs * pieces)
    if not layer.each:
        weights = weights * (single(layer.outputs) / single(depth) * single(depth))
    reads = single(input_rows * input_columns * layer.inputs * layer.layings) * across * down
    if not layer.each:
        reads = reads * single(np.ceil(layer.outputs / depth))
    cost = (reads + weights) / single(layer.rows * layer.columns * layer.outputs)
    source = (
        math.ceil(layer.rows * layer.stride[0] / layer.enlarged),
        math.ceil(layer.columns * layer.stride[1] / layer.enlarged),
    )
    read = input_rows * input_columns * input_channels
    cost = np.where(math.prod(source) * layer.inputs < 2 * read, cost / single(2), cost)
    cost = np.where(fits, cost, np.inf)
    covered = np.minimum(input_rows, source[0]) * np.minimum(input_columns, source[1])
    z, y, x = _cheapest(cost, math.prod(source) / covered, height, width)
    return Block(
        rows=int(height[0, y, 0]),
        columns=int(width[0, 0, x]),
        channels=int(depth[z, 0, 0]),
        input_rows=int(input_rows[0, y, 0]),
        input_columns=int(input_columns[0, 0, x]),
        input_channels=int(input_channels[z, 0, 0]),
    )


def choose_elementwise_block(
    rows: int, columns: int, channels: int, operands: int, blocks: Blocks
) -> Block:
    """The largest block that fits, with as many inputs beside each other as there are operands."""
    height = _sizes(rows, blocks.largest[0], blocks.rows)[None, :, None]
    width = _sizes(columns, blocks.largest[1], blocks.columns)[None, None, :]
    depth = _depths(channels, blocks)[:, None, None]
    size = height * width * depth
    held = operands * _granules(2 * size, blocks.input_granule_bytes)
    elements = rows * columns * channels
    cost = np.float32(elements) / np.float32(size)
    cost = np.where(elements < 2 * size, cost / np.float32(2), cost)
    cost = np.where(held <= blocks.buffer_bytes, cost, np.inf)
    covered = np.minimum(height, rows) * np.minimum(width, columns)
    z, y, x = _cheapest(cost, rows * columns / covered, height, width)
    sides = int(height[0, y, 0]), int(width[0, 0, x]), int(depth[z, 0, 0])
    return Block(*sides, *sides)


def _cheapest(
    cost: np.ndarray, coverage: np.ndarray, height: np.ndarray, width: np.ndarray
) -> tuple[int, int, int]:
    """The first of the cheapest; among small ones the last of those that cover the input best."""
    best = np.argwhere(cost == cost.min())
    first, others = best[0], best[1:]
    small = [at for at in others if height[0, at[1], 0] <= 4 and width[0, 0, at[2]] <= 4]
    coverage = np.broadcast_to(coverage, cost.shape)
    chosen = min(reversed(small), key=lambda at: coverage[tuple(at)], default=first)
    return int(chosen[0]), int(chosen[1]), int(chosen[2])


def block_counts(layer: Layer, block: Block) -> tuple[int, int, int]:
    """Blocks over rows, columns and channels."""
    return (
        math.ceil(layer.rows / block.rows),
        math.ceil(layer.columns / block.columns),
        math.ceil(layer.outputs / block.channels),
    )


def _taken(layer: Layer, blocks: Blocks) -> int:
    """Input channels of one step of a block."""
    most = _NARROW if takes_kernel_elements(layer, blocks) else blocks.input_channels
    return round_up(min(layer.inputs, most), blocks.narrow_input_channels)


def _sizes(extent: int, largest: int, step: int) -> np.ndarray:
    return np.arange(step, round_up(min(extent, largest), step) + 1, step)


def _depths(channels: int, blocks: Blocks) -> np.ndarray:
    most = round_up(min(channels, blocks.largest[2]), blocks.output_channels)
    split = max(blocks.stored_channels, blocks.output_channels)
    return np.unique([*range(split, most + 1, split), most if channels <= most else split])


def _read(size: np.ndarray, layer: Layer, axis: int, step: int) -> np.ndarray:
    """Input rows or columns for so many of the output."""
    kernel = min(layer.span[axis], _LARGEST_KERNEL)
    needed = np.ceil(((size - 1) * layer.stride[axis] + kernel) / layer.enlarged)
    return np.asarray(np.ceil(needed / step) * step).astype(int)


def _granules(size: np.ndarray, granule: int) -> np.ndarray:
    return np.asarray(np.ceil(size / granule) * granule)


def round_up(value: int, multiple: int) -> int:
    """The next multiple."""
    return -(-value // multiple) * multiple
