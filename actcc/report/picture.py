"""The network as a picture: boxes with their text and colour, and curves between them."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from actcc.graph import Graph
from actcc.plan import SitePlan
from actcc.report.boxes import Box, draw_boxes
from actcc.report.formats import (
    chosen_figures,
    clip,
    described,
    described_briefly,
    difference,
    shape,
)
from actcc.report.layout import Edge, Point, Size, layered_layout
from actcc.report.legend import Legend

_MARGIN = 12.0
_CHARACTER = 7.0
_NARROWEST, _WIDEST = 84.0, 230.0
_LONGEST_LINE = 34
_PORT_INSET = 12.0
_MOST_NAMES = 6
_PASSAGE = 17.0  # half a row: where an edge passes a row it goes straight down between the boxes


@dataclass(frozen=True)
class DrawnBox:
    """One box, in pixels.

    Attributes:
        lines: of text, the first in bold.
        site: number of the first site in it, for the link to its row; None without any.
        tooltip: everything that is known of it.
    """

    left: float
    top: float
    width: float
    height: float
    colour: str
    lines: tuple[str, ...]
    site: int | None
    tooltip: str


@dataclass(frozen=True)
class Picture:
    """The drawing.

    Attributes:
        curves: as SVG path data.
        absent: number of sites that are not in it.
        left_out: number of boxes after the last one that is drawn.
    """

    boxes: tuple[DrawnBox, ...]
    curves: tuple[str, ...]
    width: float
    height: float
    absent: int
    left_out: int


def draw(graph: Graph, sites: Sequence[SitePlan], legend: Legend, most_boxes: int) -> Picture:
    """Draw the network.

    Args:
        most_boxes: how many are drawn; the rest is left out, in topological order.
    """
    network = draw_boxes(graph, sites)
    shown = network.boxes[:most_boxes]
    edges = [edge for edge in network.edges if max(edge) < len(shown)]
    texts = [_lines(box, sites) for box in shown]
    sizes = [_size(lines) for lines in texts]
    layout = layered_layout(sizes, edges)
    drawn = []
    for box, lines, size, (x, y) in zip(shown, texts, sizes, layout.centres, strict=True):
        drawn.append(
            DrawnBox(
                left=round(x - size.width / 2 + _MARGIN),
                top=round(y - size.height / 2 + _MARGIN),
                width=size.width,
                height=size.height,
                colour=legend.of_box(box.sites) if box.nodes else "end",
                lines=lines,
                site=box.sites[0] if box.sites else None,
                tooltip=_tooltip(box, sites),
            )
        )
    return Picture(
        tuple(drawn),
        tuple(_curve(e, r, sizes) for e, r in zip(edges, layout.routes, strict=True)),
        layout.width + 2 * _MARGIN,
        layout.height + 2 * _MARGIN,
        network.absent,
        len(network.boxes) - len(shown),
    )


def _lines(box: Box, sites: Sequence[SitePlan]) -> tuple[str, ...]:
    behind = [described_briefly(sites[index]) for index in box.sites]
    behind += [f"{name} ×{box.rest.count(name)}" if box.rest.count(name) > 1 else name
               for name in dict.fromkeys(box.rest)]  # fmt: skip
    if not box.nodes:
        return (clip(box.title, _LONGEST_LINE), shape(box.shape))
    lines = [line for line in (box.title, " + ".join(dict.fromkeys(behind))) if line]
    return tuple(clip(line, _LONGEST_LINE) for line in lines)


def _size(lines: Sequence[str]) -> Size:
    longest = max((len(line) for line in lines), default=0)
    width = min(max(round(_CHARACTER * longest + 18), _NARROWEST), _WIDEST)
    return Size(width, 20.0 if len(lines) < 2 else 34.0)


def _tooltip(box: Box, sites: Sequence[SitePlan]) -> str:
    names = [clip(name) for name in box.nodes[:_MOST_NAMES]]
    if len(box.nodes) > _MOST_NAMES:
        names.append(f"and {len(box.nodes) - _MOST_NAMES} more")
    said = [shape(box.shape)]
    for index in box.sites:
        figures = chosen_figures(sites[index])
        priced = "" if figures is None else difference(figures)
        said.append(f"{described(sites[index])}{f' ({priced})' if priced else ': kept'}")
    return "\n".join(line for line in (*said, *names) if line)


def _curve(edge: Edge, route: Sequence[Point], sizes: Sequence[Size]) -> str:
    """From the lower side of one box to the upper side of the other; straight where it can be."""
    tail, head = sizes[edge[0]], sizes[edge[1]]
    points = [(x + _MARGIN, y + _MARGIN) for x, y in route]
    inner = points[1:-1]
    first = _port(points[0][0], tail.width, (inner or points[-1:])[0][0])
    last = _port(points[-1][0], head.width, (inner or [(first, 0.0)])[-1][0])
    stops = [
        (first, points[0][1] + tail.height / 2),
        *((x, y + step) for x, y in inner for step in (-_PASSAGE, _PASSAGE)),
        (last, points[-1][1] - head.height / 2),
    ]
    path = [f"M{stops[0][0]:.0f} {stops[0][1]:.0f}"]
    for (x0, y0), (x1, y1) in itertools.pairwise(stops):
        if round(x0) == round(x1):
            path.append(f"V{y1:.0f}")
        else:
            middle = (y0 + y1) / 2
            path.append(f"C{x0:.0f} {middle:.0f} {x1:.0f} {middle:.0f} {x1:.0f} {y1:.0f}")
    return "".join(path)


def _port(centre: float, width: float, towards: float) -> float:
    """Where an edge touches a box: straight above or below what it comes from, if it can."""
    reach = width / 2 - _PORT_INSET
    return min(max(towards, centre - reach), centre + reach)
