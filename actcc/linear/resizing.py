"""Resize and Upsample as linear maps that are the same for every channel.

Each number that a Resize writes is a mean of pixels: of one of them where the mode is nearest, and
in every mode with weights that add up to 1, at the border too, where pixels beyond it count as the
last one, or the others count for more (ONNX, Resize: coordinate_transformation_mode,
exclude_outside, antialias). Only tf_crop_and_resize writes a value of its own. Where channels are
not resized, the pixels are of one channel. Tensors are [batch, channels, …].
"""

from __future__ import annotations

import numpy as np

from actcc.graph import Array, Graph, Node, Tensor
from actcc.graph.operators import ONNX_DOMAINS
from actcc.linear.reading import Types

_CHANNELS = 1


def is_resize(node: Node) -> bool:
    """Whether the node is a Resize, or an Upsample, as it was called before opset 10."""
    return node.op in ("Resize", "Upsample") and node.domain in ONNX_DOMAINS


def fixed_channels(tensor: Tensor, types: Types) -> int | None:
    """Number of channels of a tensor; None where it is not fixed."""
    shape = types[tensor.name].shape if tensor.name in types else None
    channels = shape[_CHANNELS] if shape is not None and len(shape) > _CHANNELS else None
    return channels if isinstance(channels, int) else None


def resize_obstacle(graph: Graph, resize: Node, types: Types) -> str:
    """Why what a Resize writes may be no mean of pixels of one channel; empty where it is."""
    channels = fixed_channels(resize.inputs[0], types)
    if channels is None:
        return "the number of channels is not fixed"
    if resize.attrs.get("coordinate_transformation_mode") == "tf_crop_and_resize":
        return "it writes a value of its own outside the picture"
    place = _place_of_channels(graph, resize)
    if place is None:
        return ""
    if resize.attrs.get("keep_aspect_ratio_policy", "stretch") != "stretch":
        return "it keeps the ratio of all sizes, channels among them"
    scales, sizes = (graph.argument(resize, name) for name in ("scales", "sizes"))
    scaled = scales is not None and np.size(scales) > 0
    if not scaled and sizes is None:
        return "its scales or sizes are not constant"
    kept = np.ravel(scales)[place] == 1 if scaled else np.ravel(sizes)[place] == channels
    return "" if kept else "it resizes the channels"


def resize_arguments(graph: Graph, resize: Node, channels: int) -> list[Tensor | Array]:
    """What a Resize without an obstacle reads beside its data, for another number of channels."""
    arguments: list[Tensor | Array] = list(resize.inputs[1:])
    place, sizes = _place_of_channels(graph, resize), graph.argument(resize, "sizes")
    if place is not None and sizes is not None:
        changed = np.array(sizes)
        changed[place] = channels
        arguments[-1] = changed
    return arguments


def _place_of_channels(graph: Graph, resize: Node) -> int | None:
    """Where scales and sizes tell of the channels; None where they do not."""
    axes = resize.attrs.get("axes")
    if axes is None:
        return _CHANNELS
    rank = len(graph.shape(resize.inputs[0]) or ())
    counted = [axis % rank for axis in axes]
    return counted.index(_CHANNELS) if _CHANNELS in counted else None
