"""What ONNX Runtime makes of a graph: the nodes that it runs, and where their time goes."""

from __future__ import annotations

import json
import re
import tempfile
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnx

from actcc.backends.onnx_session import Settings, bound_run, open_session
from actcc.errors import ModelError, PassError
from actcc.graph import Graph
from actcc.prices import LayerTime
from actcc.runtime import SessionSource, session_source

_PROFILED_RUNS = 20
_NODE_EVENT = "_kernel_time"
_LAYOUT_SUFFIX = "_nchwc"
_CAST_PREFIX = "InsertedPrecisionFreeCast_"
_SUFFIX = re.compile(r"(/\w+Fusion/.*|_token_\d+)$")


def fused_operators(graph: Graph, settings: Settings | None = None) -> list[str]:
    """Operator types of the graph that the runtime really runs, in order.

    A node that applies an activation itself is written "Conv+Relu".

    Raises:
        ModelError: the runtime cannot load the graph.
    """
    with (
        session_source(graph) as source,
        tempfile.TemporaryDirectory(prefix="actcc-") as folder,
    ):
        path = Path(folder) / "optimized.onnx"
        open_session(source, settings or Settings(), _writing(path))
        return [_label(node) for node in onnx.load(path, load_external_data=False).graph.node]


def _writing(path: Path) -> Any:
    def adjust(options: Any) -> None:
        options.optimized_model_filepath = str(path)

    return adjust


def _label(node: onnx.NodeProto) -> str:
    for attribute in node.attribute:
        if attribute.name == "activation" and attribute.type == onnx.AttributeProto.STRING:
            return f"{node.op_type}+{attribute.s.decode()}"
    return str(node.op_type)


def profiled_layers(
    graph: Graph,
    source: SessionSource,
    values: Mapping[str, Any],
    settings: Settings,
    latency_ns: float,
) -> list[LayerTime]:
    """Rows that share out `latency_ns` as the runtime's profiler does.

    A row is a node of the optimised graph, under the name of the node of `graph` that it came from
    where the runtime's name tells; a node that holds subgraphs is one row with all that runs inside
    it.

    Raises:
        ModelError: the runtime cannot load or run the graph, or its profile has no nodes.
    """
    with tempfile.TemporaryDirectory(prefix="actcc-") as folder:
        optimised = Path(folder) / "optimized.onnx"

        def adjust(options: Any) -> None:
            _writing(optimised)(options)
            options.enable_profiling = True
            options.profile_file_prefix = str(Path(folder) / "trace")

        session = open_session(source, settings, adjust)
        run = bound_run(session, values)
        for _ in range(_PROFILED_RUNS):
            run()
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
        labels = {
            node.name: _label(node)
            for node in onnx.load(optimised, load_external_data=False).graph.node
        }
    rows = _share_out(events, labels, latency_ns)
    names = {str(node.name) for node in graph.nodes()}
    return [replace(row, name=_original_name(graph, names, row)) for row in rows]


def _original_name(graph: Graph, names: Collection[str], row: LayerTime) -> str:
    """The runtime names a convolution in its own layout after the tensor that it writes, and a
    fused or rebuilt node after one that went into it, with a suffix."""
    stem = _SUFFIX.sub("", row.name)
    if stem in names:
        return stem
    tensor = row.name.removesuffix(_LAYOUT_SUFFIX)
    if tensor == row.name:
        return row.name
    tensor = tensor.removeprefix(_CAST_PREFIX)  # it writes 32-bit floats where the model has 16
    try:
        node = graph.producer(tensor)
    except PassError:
        return row.name
    heavy = row.op.partition("+")[0]
    while node is not None and node.op != heavy and node.inputs:
        node = graph.producer(node.inputs[0])
    return row.name if node is None else str(node.name)


def _share_out(
    events: Iterable[Mapping[str, Any]], labels: Mapping[str, str], latency_ns: float
) -> list[LayerTime]:
    spent: defaultdict[str, float] = defaultdict(float)
    operators: dict[str, str] = {}
    for event in _outermost(events):
        name = str(event["name"]).removesuffix(_NODE_EVENT)
        spent[name] += float(event["dur"])
        operators[name] = labels.get(name, str(event["args"]["op_name"]))
    total = sum(spent.values())
    if total <= 0:
        raise ModelError("ONNX Runtime's profile shows no time in any node; the model is too small")
    return [
        LayerTime(name, operators[name], latency_ns * share / total)
        for name, share in spent.items()
    ]


def _outermost(events: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Node events that lie in no other: the time of a subgraph is its holder's already."""
    nodes = [e for e in events if e.get("cat") == "Node" and e["name"].endswith(_NODE_EVENT)]
    end = -1
    for event in sorted(nodes, key=lambda e: (e["ts"], -e["dur"])):
        if event["ts"] >= end or event["dur"] == 0:
            yield event
            end = max(end, event["ts"] + event["dur"])
