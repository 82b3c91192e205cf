"""Where a window lies on its input: ONNX counts the padding, TFLite says SAME or VALID."""

from __future__ import annotations

from dataclasses import dataclass

from actcc.backends.ethos_u.builder import Builder
from actcc.errors import PricingError
from actcc.graph import Node


@dataclass(frozen=True)
class Window:
    """A window that moves over the two spatial axes.

    Attributes:
        kernel, strides, dilations: (height, width).
        before: padding that the window reaches at the top and on the left.
        after: the same at the bottom and on the right; what no window reaches is left out.
        same: whether that is what TFLite calls SAME.
    """

    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    before: tuple[int, int]
    after: tuple[int, int]
    same: bool

    @property
    def padded(self) -> bool:
        """Whether any window reaches beyond the input."""
        return any(self.before) or any(self.after)

    @property
    def explicit(self) -> bool:
        """Whether the input has to be padded by an operator of its own."""
        return self.padded and not self.same

    @property
    def padding(self) -> str:
        """Name in TFLite's `Padding`, after an explicit one was made."""
        return "SAME" if self.padded and self.same else "VALID"


def window_of(builder: Builder, node: Node, kernel: tuple[int, ...]) -> Window:
    """The window of a Conv or pooling node over an input of rank 4.

    Raises:
        PricingError: the input has another rank.
    """
    source, result = builder.shape(node.inputs[0]), builder.shape(node.outputs[0])
    if len(source) != 4 or len(kernel) != 2:
        raise PricingError(
            f"node '{node.name}' ({node.op}) has {len(source) - 2} spatial axes; only 2 are lowered"
        )
    strides = _pair(node, "strides")
    dilations = _pair(node, "dilations")
    spans = [(k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True)]
    reach = [
        max((result[axis + 2] - 1) * strides[axis] + spans[axis] - source[axis + 2], 0)
        for axis in range(2)
    ]
    before = _first_padding(node, reach)
    after = [max(total - first, 0) for total, first in zip(reach, before, strict=True)]
    same = all(
        result[axis + 2] == -(-source[axis + 2] // strides[axis])
        and before[axis] == reach[axis] // 2
        for axis in range(2)
    )
    return Window(
        (kernel[0], kernel[1]),
        strides,
        dilations,
        (before[0], before[1]),
        (after[0], after[1]),
        same,
    )


def _pair(node: Node, name: str) -> tuple[int, int]:
    found = node.attrs.get(name) or (1, 1)
    return int(found[0]), int(found[1])


def _first_padding(node: Node, reach: list[int]) -> list[int]:
    automatic = node.attrs.get("auto_pad", "NOTSET")
    if automatic == "SAME_UPPER":
        return [total // 2 for total in reach]
    if automatic == "SAME_LOWER":
        return [total - total // 2 for total in reach]
    pads = node.attrs.get("pads") or (0, 0, 0, 0)
    return [int(pads[0]), int(pads[1])]
