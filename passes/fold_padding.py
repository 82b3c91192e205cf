"""A Pad of constants before layers becomes the pads of those layers.

    Conv(Pad(x, 0))         =  Conv with larger pads
    AveragePool(Pad(x, 0))  =  AveragePool with larger pads that count (count_include_pad)
    MaxPool(Pad(x, c))      =  MaxPool with larger pads, where c never wins over an element of x:
                               c = -∞, or c ≤ f(x) behind an activation with f ≥ c (0 behind ReLU)

Requires: mode constant; only spatial axes are padded, by constant amounts of zero or more; all that
reads the padded tensor are such layers, and none takes its pads from auto_pad=SAME. For pooling: no
ceil_mode or dilation, so that the pads stay smaller than the kernel and no window holds nothing but
padding; AveragePool has no pads of its own that do not count; MaxPool gives no indices.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from actcc.activations.ranges import ValueRanges
from actcc.graph import Graph, Node
from actcc.graph.operators import ONNX_DOMAINS
from actcc.linear.linear_layer import only_read_by
from actcc.pass_api import NormalizingPass
from actcc.site import Site

_LAYERS = ("Conv", "MaxPool", "AveragePool")


class FoldPadding(NormalizingPass):
    """Pad, then Conv or pooling  →  the layer with pads."""

    name = "fold-padding"

    def run(self, graph: Graph) -> tuple[Graph, list[str]]:
        """The graph itself, how many were folded, and why the others were not."""
        folded: Counter[str] = Counter()
        kept: dict[str, list[str]] = {}
        for pad in reversed(list(graph.nodes("Pad"))):  # of Pads in a row the last goes first
            readers = graph.consumers(pad.outputs[0])
            padding = _foldable(graph, pad, readers)
            if isinstance(padding, str):
                kept.setdefault(padding, []).append(pad.name)
            else:
                for reader in readers:
                    _widen(graph, reader, padding.spatial)
                folded[readers[0].op] += 1
                graph.bypass(Site([pad], pad.inputs[0], pad.outputs[0]), pad.inputs[0])
        notes = [f"folded {n} Pad into {op}" for op, n in sorted(folded.items())]
        for reason, names in kept.items():
            notes.append(f"kept {len(names)} Pad: {reason} ('{names[0]}')")
        return graph, notes


@dataclass(frozen=True)
class _Padding:
    """Amounts at the beginning and the end of each axis, and what is written there."""

    amounts: tuple[int, ...]
    value: float

    @property
    def spatial(self) -> tuple[int, ...]:
        """Amounts of the axes behind the channels, as layers have them."""
        half = len(self.amounts) // 2
        return (*self.amounts[2:half], *self.amounts[half + 2 :])


def _read(graph: Graph, pad: Node) -> _Padding | None:
    """What a Pad writes where; None where that is not constant."""
    amounts = graph.argument(pad, "pads")
    later = graph.opset >= 11
    given = later and len(pad.inputs) > 2 and not pad.inputs[2].is_empty()
    value = graph.argument(pad, "constant_value" if later else "value", None if given else 0.0)
    if amounts is None or value is None:
        return None
    listed = tuple(int(amount) for amount in np.ravel(amounts))
    if len(pad.inputs) > 3 and not pad.inputs[3].is_empty():
        spread = _on_all_axes(graph, pad, listed)
        return None if spread is None else _Padding(spread, float(value))
    return _Padding(listed, float(value))


def _on_all_axes(graph: Graph, pad: Node, listed: Sequence[int]) -> tuple[int, ...] | None:
    axes, shape = graph.constant(pad.inputs[3]), graph.shape(pad.inputs[0])
    if axes is None or shape is None:
        return None
    whole = [0] * (2 * len(shape))
    for index, axis in enumerate(np.ravel(axes).tolist()):
        whole[axis % len(shape)] = listed[index]
        whole[axis % len(shape) + len(shape)] = listed[index + axes.size]
    return tuple(whole)


def _foldable(graph: Graph, pad: Node, readers: Sequence[Node]) -> _Padding | str:
    """What the layers have to pad, or why they cannot."""
    written = pad.outputs[0]
    mode = pad.attrs.get("mode", "constant")
    if (mode.decode() if isinstance(mode, bytes) else mode) != "constant":
        return f"it repeats elements ({mode})"
    if any(reader.op == "QuantizeLinear" for reader in readers):
        return "it is inside QDQ: its scales were calibrated for the padded tensor"
    if not readers or any(not _is_layer(reader, pad) for reader in readers):
        return "not all that reads it is Conv, MaxPool or AveragePool"
    if not only_read_by(graph, written, len(readers)):
        return "its output leaves the graph or a node of it"
    padding = _read(graph, pad)
    if padding is None:
        return "its amounts or its value are not constant"
    if min(padding.amounts) < 0:
        return "it crops (a negative amount)"
    half = len(padding.amounts) // 2
    if half < 3 or any(padding.amounts[:2]) or any(padding.amounts[half : half + 2]):
        return "it pads the batch or the channels"
    reasons = (_obstacle_of(graph, pad, reader, padding) for reader in readers)
    return next((reason for reason in reasons if reason), padding)


def _is_layer(reader: Node, pad: Node) -> bool:
    reads = [index for index, tensor in enumerate(reader.inputs) if tensor is pad.outputs[0]]
    return reader.op in _LAYERS and reader.domain in ONNX_DOMAINS and reads == [0]


def _obstacle_of(graph: Graph, pad: Node, reader: Node, padding: _Padding) -> str:
    if _auto_pad(reader).startswith("SAME"):
        return f"the {reader.op} behind it pads by auto_pad"
    value = padding.value
    if reader.op in ("Conv", "AveragePool") and value != 0:
        return f"the {reader.op} behind it pads with 0, not {value:g}"
    if reader.op == "Conv":
        return ""
    axes = len(padding.spatial) // 2
    kernel = [*reader.attrs["kernel_shape"]] * 2
    if reader.attrs.get("ceil_mode", 0) or max(reader.attrs.get("dilations", [1])) > 1:
        return f"the {reader.op} behind it has ceil_mode or dilations"
    own = _own_pads(reader, axes)
    sums = [a + b for a, b in zip(own, padding.spatial, strict=True)]
    if any(total >= size for total, size in zip(sums, kernel, strict=True)):
        return f"pads as large as the kernel of the {reader.op} behind it"
    if reader.op == "AveragePool" and graph.opset < 7:
        return "AveragePool before opset 7 does not count padding"
    if reader.op == "AveragePool":
        counted = reader.attrs.get("count_include_pad", 0)
        return "" if counted or not any(own) else "the AveragePool has pads that do not count"
    if any(tensor.outputs or graph.is_output(tensor) for tensor in reader.outputs[1:]):
        return "the MaxPool behind it also gives indices"
    lowest = max(ValueRanges(graph).of(pad.inputs[0]).low, float(np.finfo(np.float32).min))
    if not value <= lowest:  # NaN is neither
        return f"{value:g} may be the largest element of a window of the MaxPool behind it"
    return ""


def _own_pads(layer: Node, axes: int) -> list[int]:
    pads = layer.attrs.get("pads") if _auto_pad(layer) == "NOTSET" else None
    return list(pads or [0] * (2 * axes))


def _auto_pad(layer: Node) -> str:
    automatic = layer.attrs.get("auto_pad", "NOTSET")
    return automatic.decode() if isinstance(automatic, bytes) else str(automatic)


def _widen(graph: Graph, layer: Node, amounts: Sequence[int]) -> None:
    own = _own_pads(layer, len(amounts) // 2)
    graph.set_attribute(layer, "auto_pad", "NOTSET")
    graph.set_attribute(layer, "pads", [a + b for a, b in zip(own, amounts, strict=True)])
    if layer.op == "AveragePool":
        graph.set_attribute(layer, "count_include_pad", 1)
