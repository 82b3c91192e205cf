"""What a model is made of, and where its latency goes on a target."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from actcc.activations import find_activations
from actcc.blocks import Block, find_blocks
from actcc.estimators.nn_mass import nn_mass
from actcc.graph import Graph, Shape, extract, static_types
from actcc.graph.macs import count_macs, count_parameters
from actcc.neighbourhood import neighbouring_nodes
from actcc.normalize import normalize
from actcc.pass_api import discover, find_sites, select_passes
from actcc.prices import LayerTime, Source
from actcc.site import Refusal, Site
from actcc.targets import Target, load_target
from actcc.validity import require_valid


@dataclass(frozen=True)
class SiteRow:
    """Activations of one kind, spelling and shape."""

    activation: str
    spelling: str
    shape: Shape
    count: int


@dataclass(frozen=True)
class BlockRow:
    """Blocks of one kind and shape.

    Attributes:
        macs: products of one of them; None where a shape is not known.
        nn_mass: of one of them, with the layers around it that a skip connection joins.
    """

    kind: str
    shapes: str
    has_gate: bool
    has_residual: bool
    macs: int | None
    nn_mass: float
    count: int


@dataclass(frozen=True)
class Inspection:
    """What `actcc inspect` shows; latencies in nanoseconds, sizes in bytes.

    Attributes:
        nn_mass: of the whole network; see `actcc.estimators.nn_mass`.
    """

    model: str
    opset: int
    nodes: int
    parameters: int
    macs: int
    nn_mass: float
    target: str
    tool: str
    source: Source
    latency_ns: float
    peak_bytes: int | None
    sites: tuple[SiteRow, ...]
    blocks: tuple[BlockRow, ...]
    layers: tuple[LayerTime, ...]
    refusals: tuple[tuple[str, Refusal], ...]

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        return {"format": 1, **asdict(self)}


def inspect_model(
    model: str | Path,
    target: str | Target = "cpu",
    *,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    plugins: Sequence[str | Path] = (),
) -> Inspection:
    """Look at a model as the optimizer sees it, after the normalizing passes.

    Raises:
        ActccError: bad input.
    """
    chosen = target if isinstance(target, Target) else load_target(target)
    original = Graph.load(model, input_shapes)
    require_valid(Path(model), original)
    static_types(original)
    graph = normalize(original).graph
    rows = Counter(
        (match.activation.name, match.spelling, graph.shape(match.writes) or ())
        for match in find_activations(graph)
    )
    (timing,) = chosen.backend.time_models([graph])
    survey = find_sites(graph, select_passes(None, plugins), chosen)
    return Inspection(
        model=Path(model).name,
        opset=graph.opset,
        nodes=sum(1 for _ in graph.nodes()),
        parameters=count_parameters(graph),
        macs=count_macs(graph),
        nn_mass=nn_mass(graph),
        target=chosen.name,
        tool=timing.tool,
        source=timing.source,
        latency_ns=timing.latency_ns,
        peak_bytes=timing.peak_bytes,
        sites=tuple(SiteRow(*key, count) for key, count in rows.most_common()),
        blocks=_block_rows(graph),
        layers=tuple(chosen.backend.layers(graph)),
        refusals=survey.refusals,
    )


def _block_rows(graph: Graph) -> tuple[BlockRow, ...]:
    """Blocks that look alike in one row, those with the most work first."""
    alike: dict[BlockRow, list[Block]] = {}
    for block in find_blocks(graph):
        look = (block.kind, block.shapes, block.has_gate, block.has_residual, block.macs)
        alike.setdefault(BlockRow(*look, nn_mass=0.0, count=0), []).append(block)
    rows = (
        replace(row, nn_mass=_mass(graph, blocks[0]), count=len(blocks))
        for row, blocks in alike.items()
    )
    return tuple(sorted(rows, key=lambda row: -(row.macs or 0) * row.count))


def _mass(graph: Graph, block: Block) -> float:
    first, last = (graph.node(name) for name in (block.nodes[0], block.nodes[-1]))
    around = neighbouring_nodes(graph, Site(block.nodes, first.inputs[0], last.outputs[0]))
    return nn_mass(extract(graph, around, static=False))


def list_passes(plugins: Sequence[str | Path] = ()) -> list[dict[str, str]]:
    """Every pass in running order with what it does, the first line of its docstring."""
    from actcc.passes import NORMALIZING

    rows = [_row(entry.name, "normalizing", entry) for entry in NORMALIZING]
    for found in discover([Path(path) for path in plugins]):
        kind = "exact" if found.exact else "approximate"
        rows.append(_row(found.name, kind if found.default else f"{kind}, off", type(found)))
    return rows


def _row(name: str, kind: str, cls: type) -> dict[str, str]:
    lines = (cls.__doc__ or "").strip().splitlines()
    return {"pass": name, "kind": kind, "what it does": lines[0] if lines else ""}
