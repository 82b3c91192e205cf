"""The network as a picture: boxes with their text and colour, and curves between them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

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

_MARGIN = 12
_CHARACTER = 7.0
_NARROWEST, _WIDEST = 84.0, 230.0
_LONGEST_LINE = 34
_PORT_INSET = 12.0
_MOST_BOXES = 2500  # a layout of more takes more than a few seconds
_PASSAGE = 17.0  # half a row: where an edge passes a row it goes straight down between the boxes


@dataclass(frozen=True)
class DrawnBox:
    """One box, in pixels.

    Attributes:
        lines: of text, the first in bold.
        site: number of the site that gives it its colour, for the link to its row.
        said: what is known of it, line by line.
        nodes: names.
    """

    left: int
    top: int
    width: int
    height: int
    colour: str
    lines: tuple[str, ...]
    site: int | None
    said: tuple[str, ...]
    nodes: tuple[str, ...]


@dataclass(frozen=True)
class Picture:
    """The drawing.

    Attributes:
        curves: SVG path data, and the number of the box that it ends at.
        absent: number of sites that are not in it.
        left_out: number of boxes after the last one that is drawn.
    """

    boxes: tuple[DrawnBox, ...]
    curves: tuple[tuple[str, int], ...]
    width: int
    height: int
    absent: int
    left_out: int

    def within(self, boxes: int, names: int) -> Picture:
        """The first boxes, each with some of its names."""
        if not self.boxes or boxes <= 0:
            return replace(self, boxes=(), curves=(), height=0, left_out=self.count)
        shown = tuple(replace(box, nodes=_some(box.nodes, names)) for box in self.boxes[:boxes])
        return replace(
            self,
            boxes=shown,
            curves=tuple(curve for curve in self.curves if curve[1] < len(shown)),
            height=max(box.top + box.height for box in shown) + _MARGIN,
            left_out=self.count - len(shown),
        )

    @property
    def count(self) -> int:
        """Boxes of the whole network."""
        return len(self.boxes) + self.left_out


def draw(graph: Graph, sites: Sequence[SitePlan], legend: Legend) -> Picture:
    """Draw the network; of a huge one the boxes that come first in topological order."""
    network = draw_boxes(graph, sites)
    shown = network.boxes[:_MOST_BOXES]
    edges = [edge for edge in network.edges if max(edge) < len(shown)]
    texts = [_lines(box, sites) for box in shown]
    sizes = [_size(lines) for lines in texts]
    layout = layered_layout(sizes, edges)
    curves = [_curve(edge, r, sizes) for edge, r in zip(edges, layout.routes, strict=True)]
    return Picture(
        tuple(
            _drawn(box, lines, size, centre, sites, legend)
            for box, lines, size, centre in zip(shown, texts, sizes, layout.centres, strict=True)
        ),
        tuple((curve, head) for curve, (_, head) in zip(curves, edges, strict=True)),
        round(layout.width) + 2 * _MARGIN,
        round(layout.height) + 2 * _MARGIN,
        network.absent,
        len(network.boxes) - len(shown),
    )


def _drawn(
    box: Box,
    lines: tuple[str, ...],
    size: Size,
    centre: Point,
    sites: Sequence[SitePlan],
    legend: Legend,
) -> DrawnBox:
    shown = legend.shown_site(box.sites)
    return DrawnBox(
        left=round(centre[0] - size.width / 2) + _MARGIN,
        top=round(centre[1] - size.height / 2) + _MARGIN,
        width=round(size.width),
        height=round(size.height),
        colour="end" if not box.nodes else "plain" if shown is None else legend.colours[shown],
        lines=lines,
        site=shown,
        said=tuple(line for line in (shape(box.shape), *_choices(box, sites)) if line),
        nodes=box.nodes,
    )


def _some(names: tuple[str, ...], most: int) -> tuple[str, ...]:
    left_out = len(names) - most
    shown = tuple(clip(name) for name in names[:most])
    return (*shown, f"and {left_out} more") if most and left_out > 0 else shown


def _choices(box: Box, sites: Sequence[SitePlan]) -> Iterator[str]:
    for index in box.sites:
        figures = chosen_figures(sites[index])
        priced = "" if figures is None else difference(figures)
        yield f"{described(sites[index])}{f' ({priced})' if priced else ': kept'}"


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
            if path[-1].startswith("V"):
                path.pop()
            path.append(f"V{y1:.0f}")
        else:
            middle = (y0 + y1) / 2
            path.append(f"C{x0:.0f} {middle:.0f} {x1:.0f} {middle:.0f} {x1:.0f} {y1:.0f}")
    return "".join(path)


def _port(centre: float, width: float, towards: float) -> float:
    """Where an edge touches a box: straight above or below what it comes from, if it can."""
    reach = width / 2 - _PORT_INSET
    return min(max(towards, centre - reach), centre + reach)
