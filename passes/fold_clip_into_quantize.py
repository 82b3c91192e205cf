"""Relu or Clip in front of a QuantizeLinear that cuts off the same values.

    Relu → QuantizeLinear  =  QuantizeLinear        which stores no negative number: uint8 with the
                                                    zero point 0, int8 with -128
    Clip → QuantizeLinear  =  QuantizeLinear        whose least and greatest number lie inside
    DequantizeLinear → QuantizeLinear  =  nothing   of one and the same scale and zero point

What a Relu or Clip makes of values outside its bounds is stored as the least or the greatest
number with and without it, since rounding keeps the order of numbers. The bounds may lie up to a
quarter of a step inside the range that is stored: whatever rounds to the last number still does.
The third case is what a Relu between DequantizeLinear and QuantizeLinear leaves behind.

Requires: constant scales and zero points, of integers; nothing else reads what the Relu or Clip
writes. Exact, bit for bit, but for NaN, of which ONNX does not say how it is stored.
"""

from __future__ import annotations

from collections import Counter

import numpy as np

from actcc.activations.ranges import clip_bounds
from actcc.graph import Graph, Node
from actcc.graph.operators import ONNX_DOMAINS
from actcc.graph.pairs import DEQUANTIZE, QUANTIZE, stored_as
from actcc.pass_api import NormalizingPass
from actcc.site import Site

# Numbers of at most 8 bits times such a scale are neither 0 nor infinite, and come back exactly.
_SMALLEST, _LARGEST = 1e-30, 1e30


class FoldClipIntoQuantize(NormalizingPass):
    """Relu or Clip, then QuantizeLinear  →  QuantizeLinear."""

    name = "fold-clip-into-quantize"

    def run(self, graph: Graph) -> tuple[Graph, list[str]]:
        """The graph itself, and what was removed."""
        done: Counter[str] = Counter()
        for node in list(graph.nodes()):
            if node.domain in ONNX_DOMAINS and node.outputs and _is_cut_off_behind(graph, node):
                done[str(node.op)] += 1
                site = Site([node], node.inputs[0], node.outputs[0])
                with graph.marking(self.name, site.writes, "removed"):
                    graph.bypass(site, site.reads)
        lines = [
            f"removed {count} {op} of values that QuantizeLinear cuts off"
            for op, count in done.items()
        ]
        undone = _remove_ways_back(graph)
        if undone:
            lines.append(
                f"removed {undone} DequantizeLinear with the QuantizeLinear that undoes it"
            )
        return graph, lines


def _is_cut_off_behind(graph: Graph, node: Node) -> bool:
    bounds = clip_bounds(graph, node)
    if bounds is None or not bounds.low <= bounds.high:
        return False
    written = node.outputs[0]
    readers = graph.consumers(written)
    if not readers or graph.is_output(written) or graph.is_read_in_subgraph(written):
        return False
    for reader in readers:
        if reader.op != QUANTIZE or any(tensor is written for tensor in reader.inputs[1:]):
            return False
        kind = stored_as(graph, reader)
        if kind is None or not kind.cuts_off(bounds.low, bounds.high):
            return False
    return True


def _remove_ways_back(graph: Graph) -> int:
    count = 0
    for quantize in list(graph.nodes(QUANTIZE)):
        dequantize = graph.producer(quantize.inputs[0])
        if dequantize is not None and _is_undone(graph, dequantize, quantize):
            count += 1
            site = Site([quantize], dequantize.inputs[0], quantize.outputs[0])
            with graph.marking(FoldClipIntoQuantize.name, site.writes, "removed"):
                graph.bypass(site, site.reads)
    return count


def _is_undone(graph: Graph, dequantize: Node, quantize: Node) -> bool:
    if dequantize.op != DEQUANTIZE or dequantize.domain not in ONNX_DOMAINS:
        return False
    first, second = stored_as(graph, dequantize), stored_as(graph, quantize)
    if first is None or second is None or not first.is_whole or not first.same(second):
        return False
    scale = float(first.scale.reshape(()))
    wide = first.zero_point.dtype.itemsize > 1 or first.scale.dtype != np.float32
    return not wide and _SMALLEST < scale < _LARGEST
