"""Which candidates are priced together with a place in int8: they cost another amount so.

What reads each other in int8 saves the way out of it and back. A swap whose function a kernel cuts
off for nothing joins the layer in front and what reads the swap; one whose function is cheaper in
int8 is computed there itself. All that read one tensor, and all that one place reads, are priced as
a whole too: each of them alone may save what can be saved only once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from actcc.activations import find_activations
from actcc.graph import Graph
from actcc.pass_api import Group
from actcc.quantization.qdq import feature_maps, written_by
from actcc.site import OfferedSite, Site

# What a kernel in int8 cuts off for nothing.
_SWALLOWED = frozenset({"Relu", "Relu6"})
# What activations are swapped for to be computed in int8: as close, and cheaper there.
_CHEAPER_IN_INT8 = frozenset({"HardSigmoid", "HardSwish"})


@dataclass(frozen=True)
class Int8Place:
    """What is computed in int8 at a site, by names of tensors.

    Attributes:
        reads: in int8.
        writes: in int8, with what is cut off behind it.
        swapped: what an activation reads that another may take the place of: the result of a node,
            or what the activation reads that is the place itself.
        is_activation: not a node.
    """

    reads: tuple[str, ...]
    writes: str
    swapped: str
    is_activation: bool

    @classmethod
    def of_activation(cls, site: Site) -> Int8Place:
        """The place of an activation."""
        return cls((site.reads,), site.writes, site.reads, is_activation=True)

    @classmethod
    def of_node(cls, graph: Graph, site: Site) -> Int8Place:
        """The place of a node of `actcc.quantization.qdq.QUANTIZABLE`."""
        node = graph.node(site.nodes[0])
        reads = sorted({tensor.name for tensor in feature_maps(graph, node)})
        writes = written_by(graph, node).name
        return cls(tuple(reads), writes, node.outputs[0].name, is_activation=False)


def groups_in_int8(
    graph: Graph,
    places: Sequence[tuple[OfferedSite, Int8Place]],
    others: Sequence[OfferedSite],
) -> Iterator[Group]:
    """What reads each other, with a swap between them that a kernel swallows, and swaps for
    activations that are computed in int8 themselves.

    Args:
        places: sites of which the candidates are int8.
        others: all other sites.
    """
    readers: dict[str, list[OfferedSite]] = {}
    for site, place in places:
        for name in place.reads:
            readers.setdefault(name, []).append(site)
    swaps = _swaps(graph, others)
    yield from _joined(places)
    for site, place in places:
        yield from _read_by((_member(site),), readers.get(place.writes, ()))
        swap = swaps.get(place.swapped)
        if swap is None:
            continue
        if place.is_activation:
            for names in _swaps_in_int8(swap):
                yield (swap, names), _member(site)
        elif _swallowed(swap):
            pair = _member(site), (swap, _swallowed(swap))
            yield pair
            yield from _read_by(pair, readers.get(swap.site.writes, ()))


def _read_by(group: Group, readers: Sequence[OfferedSite]) -> Iterator[Group]:
    """A group with each reader of what it writes, and with all of them."""
    for reader in readers:
        yield *group, _member(reader)
    if len(readers) > 1:
        yield *group, *map(_member, readers)


def _joined(places: Sequence[tuple[OfferedSite, Int8Place]]) -> Iterator[Group]:
    """Each place that reads several others, with them."""
    writers = {place.writes: site for site, place in places}
    for site, place in places:
        read = [writers[name] for name in place.reads if name in writers]
        if len(read) > 1:
            yield *map(_member, read), _member(site)


def _member(site: OfferedSite) -> tuple[OfferedSite, tuple[str, ...]]:
    """A site with all of its candidates."""
    return site, tuple(candidate.name for candidate in site.candidates)


def _swaps(graph: Graph, others: Sequence[OfferedSite]) -> dict[str, OfferedSite]:
    """Sites where an activation stands, and another may stand, by what it reads."""
    places = {(match.reads.name, match.writes.name) for match in find_activations(graph)}
    return {
        other.site.reads: other
        for other in others
        if (other.site.reads, other.site.writes) in places
        and (_swallowed(other) or _swaps_in_int8(other))
    }


def _swaps_in_int8(site: OfferedSite) -> list[tuple[str, ...]]:
    """Candidates by function that are worth computing in int8; several spellings are one there."""
    functions = dict.fromkeys(
        c.computes for c in site.candidates if c.computes.partition("(")[0] in _CHEAPER_IN_INT8
    )
    return [tuple(c.name for c in site.candidates if c.computes == f) for f in functions]


def _swallowed(site: OfferedSite) -> tuple[str, ...]:
    """Names of a site's candidates that cost nothing behind a kernel in int8."""
    return tuple(c.name for c in site.candidates if c.computes in _SWALLOWED)
