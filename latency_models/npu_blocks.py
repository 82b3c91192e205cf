"""How an NPU cuts a convolution into blocks, and what one block costs.

The rules are those of Arm's Vela compiler for Ethos-U55 and U65, version 5.2: `find_block_config`
in architecture_allocator.py takes the block that fits the buffers and makes the device read the
fewest elements for each result; `_estimate_conv_cycles`, `measure_element_access` and
`_estimate_memory_transfer_efficiency` in npu_performance.py say how long it takes and what moves.
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
        kernel, stride: (height, width).
        each: channels are independent (depthwise).
        enlarged: factor by which the input is upsampled while it is read.
    """

    rows: int
    columns: int
    inputs: int
    outputs: int
    kernel: tuple[int, int]
    stride: tuple[int, int]
    each: bool
    enlarged: int = 1

    @classmethod
    def of(cls, work: Contraction) -> Layer:
        """The layer of a contraction; a transposed one runs over its zeros, with stride 1."""
        channels = work.groups * work.outputs if work.depthwise else work.outputs
        rows, columns, stride = work.rows, work.columns, work.stride
        if work.transposed:
            rows, columns, stride = rows * stride[0], columns * stride[1], (1, 1)
        return cls(
            rows=rows,
            columns=columns,
            inputs=channels if work.depthwise else work.inputs,
            outputs=channels,
            kernel=work.kernel,
            stride=stride,
            each=work.depthwise,
            enlarged=max(work.stride) if work.transposed else 1,
        )

    @property
    def elements(self) -> int:
        """Elements of the kernel."""
        return self.kernel[0] * self.kernel[1]


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
    return narrow > wide


def summed(layer: Layer, blocks: Blocks) -> int:
    """Products for one result, with those that fill up a step."""
    if layer.each:
        return round_up(layer.elements, blocks.depthwise_kernel)
    if not takes_kernel_elements(layer, blocks):
        return round_up(layer.inputs, blocks.input_channels) * layer.elements
    taken = min(_NARROW, round_up(layer.inputs, blocks.narrow_input_channels))
    at_once = round_up(taken, blocks.narrow_input_channels)
    return (
        math.ceil(layer.inputs / taken) * at_once * round_up(layer.elements, blocks.narrow_kernel)
    )


def choose_block(layer: Layer, blocks: Blocks) -> Block:
    """The block that fits and reads the least for each result; the first of those that tie."""
    depth = _depths(layer, blocks)[:, None, None]
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
    pieces = np.ceil(layer.rows / height) * np.ceil(layer.columns / width)
    weights = layer.elements * layer.inputs * pieces * (1 if layer.each else layer.outputs)
    reads = input_rows * input_columns * layer.inputs
    reads = reads * (layer.rows / height) * (layer.columns / width)
    reads = reads * (1 if layer.each else np.ceil(layer.outputs / depth))
    cost = (reads + weights) * np.ones_like(held, dtype=float)
    whole = layer.rows * layer.columns * math.prod(layer.stride) * layer.inputs
    inside = whole / layer.enlarged**2 < 2 * input_rows * input_columns * input_channels
    cost = np.where(inside, cost / 2, cost)
    cost = np.where(fits, cost, np.inf)
    z, y, x = np.unravel_index(int(np.argmin(cost)), cost.shape)
    return Block(
        rows=int(height[0, y, 0]),
        columns=int(width[0, 0, x]),
        channels=int(depth[z, 0, 0]),
        input_rows=int(input_rows[0, y, 0]),
        input_columns=int(input_columns[0, 0, x]),
        input_channels=int(input_channels[z, 0, 0]),
    )


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


def _depths(layer: Layer, blocks: Blocks) -> np.ndarray:
    most = round_up(min(layer.outputs, blocks.largest[2]), blocks.output_channels)
    split = max(blocks.stored_channels, blocks.output_channels)
    return np.unique([*range(split, most + 1, split), most if layer.outputs <= most else split])


def _read(size: np.ndarray, layer: Layer, axis: int, step: int) -> np.ndarray:
    """Input rows or columns for so many of the output."""
    kernel = min(layer.kernel[axis], _LARGEST_KERNEL)
    needed = np.ceil(((size - 1) * layer.stride[axis] + kernel) / layer.enlarged)
    return np.asarray(np.ceil(needed / step) * step).astype(int)


def _granules(size: np.ndarray, granule: int) -> np.ndarray:
    return np.asarray(np.ceil(size / granule) * granule)


def round_up(value: int, multiple: int) -> int:
    """The next multiple."""
    return -(-value // multiple) * multiple
