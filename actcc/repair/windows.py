"""Which inputs lie under which output of a convolution, with any stride, pad, dilation and group.

Conv:           output o reads inputs  o·stride + tap·dilation − pad
ConvTranspose:  output o reads inputs  (o + pad − tap·dilation) / stride, where that is whole

in each spatial axis; what lies outside the input is zero. There may be any number of spatial axes.
Where `auto_pad` or `output_shape` leave it to the runtime, the padding before an axis follows from
the sizes of input and output, as the ONNX operator specification has it (Conv-22 and
ConvTranspose-22): the total is what makes the window fit, at least zero, and of an odd total the
larger part comes last for SAME_UPPER and first for all else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from actcc.graph import Array, Node


@dataclass(frozen=True)
class Window:
    """The geometry of a convolution; each tuple has one entry for each spatial axis.

    Attributes:
        pads: before each axis; None where they follow from the shapes.
        upper: whether the odd element of such a padding comes last.
        output_padding: of a ConvTranspose whose pads follow from the shapes; zero for all else.
        transposed: whether it is a ConvTranspose.
    """

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...] | None
    upper: bool
    output_padding: tuple[int, ...]
    transposed: bool

    @classmethod
    def of(cls, node: Node, kernel: Sequence[int]) -> Window:
        """The window of a Conv or ConvTranspose with weights of that kernel."""
        rank = len(kernel)
        transposed = node.op == "ConvTranspose"
        auto = node.attrs.get("auto_pad", "NOTSET")
        found = auto in ("SAME_UPPER", "SAME_LOWER") or (
            transposed and "output_shape" in node.attrs
        )
        ones, zeros = (1,) * rank, (0,) * rank
        pads = zeros if auto == "VALID" else node.attrs.get("pads", zeros)
        extra = node.attrs.get("output_padding", zeros) if found and transposed else zeros
        return cls(
            kernel=_integers(kernel),
            strides=_integers(node.attrs.get("strides", ones)),
            dilations=_integers(node.attrs.get("dilations", ones)),
            pads=None if found else _integers(pads[:rank]),
            upper=found and auto == "SAME_UPPER",
            output_padding=_integers(extra),
            transposed=transposed,
        )

    @property
    def taps(self) -> int:
        """Inputs of one channel under one output."""
        return math.prod(self.kernel)

    @property
    def is_pointwise(self) -> bool:
        """Whether each output reads the inputs of its own position alone."""
        pads = self.pads or (0,) * len(self.kernel)
        return self.taps == 1 and set(self.strides) <= {1} and not any(pads)

    def samples_like(self, other: Window) -> bool:
        """Whether both read the same places, where what they read and write has the same shapes."""
        alike = (
            self.kernel == other.kernel
            and self.strides == other.strides
            and self.dilations == other.dilations
            and self.transposed == other.transposed
        )
        one_follows = (self.pads is None) != (other.pads is None)
        return alike and (one_follows or (self.pads, self.upper) == (other.pads, other.upper))

    def rows(self, values: Array, positions: Array, shape: Sequence[int], groups: int) -> Array:
        """Inputs under outputs: [groups, rows, channels of a group · taps].

        Args:
            values: input [batch, channels, *spatial].
            positions: flat indices into [batch, *spatial] of the output, in C order.
            shape: of the output.
        """
        batch, channels = values.shape[:2]
        index, inside = self._indices(values.shape[2:], positions, shape)
        planes = values.reshape(batch, channels, math.prod(values.shape[2:]))
        flat = np.moveaxis(planes, 1, -1).reshape(-1, channels)
        found = flat.take(np.where(inside, index, 0), axis=0)  # [rows, taps, channels]
        if not inside.all():
            found[~inside] = 0
        rows, taps = index.shape
        inner = channels // groups
        grouped = found.reshape(rows, taps, groups, inner).transpose(2, 0, 3, 1)
        return np.ascontiguousarray(grouped).reshape(groups, rows, inner * taps)

    def _indices(
        self, spatial: Sequence[int], positions: Array, shape: Sequence[int]
    ) -> tuple[Array, Array]:
        """Flat indices into [batch, *spatial] of the input, and which of them are inside it."""
        places = np.unravel_index(positions, (shape[0], *shape[2:]))
        taps = np.unravel_index(np.arange(self.taps), self.kernel)
        index = places[0][:, None].astype(np.int64)
        inside = np.ones((len(positions), self.taps), bool)
        for axis, size in enumerate(spatial):
            pad, stride = self._pad(axis, size, shape[2 + axis]), self.strides[axis]
            out, tap = places[1 + axis][:, None], taps[axis][None] * self.dilations[axis]
            if self.transposed:
                where, between = np.divmod(out + pad - tap, stride)
                inside &= between == 0
            else:
                where = out * stride + tap - pad
            inside &= (where >= 0) & (where < size)
            index = index * size + where
        return index, inside

    def _pad(self, axis: int, size: int, out: int) -> int:
        """Padding before an axis with that many inputs and outputs."""
        if self.pads is not None:
            return self.pads[axis]
        reach = (self.kernel[axis] - 1) * self.dilations[axis] + 1 + self.output_padding[axis]
        small, large = (size, out) if self.transposed else (out, size)
        total = max((small - 1) * self.strides[axis] + reach - large, 0)
        return total // 2 if self.upper else total - total // 2


def _integers(values: Sequence[int]) -> tuple[int, ...]:
    return tuple(int(value) for value in values)
