"""Operators and latency before and after the exact passes on structure, on whole networks.

    PYTHONPATH=tests python tests/passes/benchmark_structure.py [MODELS] [--full-size]
        [--time TARGET [--solve]] [--only NAME]

For each network: nodes (without Constant) in the file, after the normalizing passes that only bring
it into one form, and after all of them; what went and came between the last two; how far the
outputs are from the original's, relative to the largest magnitude, and the bound on it: 1e-5, or
what ONNX Runtime's own optimisations change where that is more. With --time the latency of file and
result on a target, from one interleaved run where it is measured, and their ratio; the result is
the normalized network, with --solve the exact plan of `actcc optimize` without calibration.

Networks: those of tests/exported_networks.py, with random weights; the folder MODELS; PP-OCR, which
comes with rapidocr-onnxruntime: pip install 'actcc[ocr]'.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import onnx
from benchmark_networks import Network, built_networks, shared_networks, text_networks

import actcc
from actcc.errors import ActccError
from actcc.evidence import priced_baseline
from actcc.graph import Graph
from actcc.graph.compare import compare, compare_outputs
from actcc.normalize import normalize
from actcc.passes import NORMALIZING
from actcc.runtime import run, session
from actcc.targets import Target, load_target

_EXACT = 1e-5
# What only brings a network into one form.
_PLAIN = ("freeze-initializers", "inline-functions", "simplify", "fold-constants",
          "remove-identity")  # fmt: skip
STRUCTURE = tuple(found.name for found in NORMALIZING if found.name not in _PLAIN)


def operators(graph: Graph) -> Counter[str]:
    """How many nodes of each operator there are in the main graph."""
    return Counter(node.op for node in graph.nodes() if node.op != "Constant")


def change(before: Counter[str], after: Counter[str]) -> str:
    """What went and what came, "-3 Add, +1 Conv"."""
    went = [f"-{count} {op}" for op, count in sorted((before - after).items())]
    return ", ".join(went + [f"+{count} {op}" for op, count in sorted((after - before).items())])


def row(network: Network, target: Target | None, *, solve: bool) -> list[str]:
    """One line of the table."""
    graph, feeds = network.graph(), [network.feeds]
    plain = normalize(graph, skip=STRUCTURE, feeds=feeds).graph
    whole = normalize(graph, feeds=feeds).graph
    counts = [operators(each) for each in (graph, plain, whole)]
    own = compare_outputs(
        [run(session(graph, optimise=False), network.feeds)],
        [run(session(graph), network.feeds)],
    ).worst_relative
    cells = [
        network.name,
        *(str(sum(count.values())) for count in counts),
        change(counts[1], counts[2]) or "none",
        f"{compare(graph, whole, feeds, optimise=False).worst_relative:.1e}",
        f"{own:.1e}, the runtime's own" if own > _EXACT else f"{_EXACT:.0e}",
    ]
    return cells if target is None else cells + timed(network, graph, whole, target, solve=solve)


def timed(
    network: Network, graph: Graph, whole: Graph, target: Target, *, solve: bool
) -> list[str]:
    """What was chosen, latency before and after, and their ratio with its noise."""
    chosen, after = "normalized", whole
    try:
        if solve:
            chosen, after = solved(network, target)
        before = priced_baseline(graph, whole, target.backend)
        one, other = target.backend.time_models([before, after], network.feeds)
    except ActccError as error:
        return [f"not timed: {error}", "", "", ""]
    faster = 1 / other.ratio if other.ratio != 1 else one.latency_ns / other.latency_ns
    noise = other.ratio_noise * faster**2
    times = [f"{timing.latency_ns / 1e6:.3f}" for timing in (one, other)]
    baseline = "" if before is graph else " (before: normalized)"
    return [chosen + baseline, *times, f"{faster:.2f} ± {noise:.2f}"]


def solved(network: Network, target: Target) -> tuple[str, Graph]:
    """The exact plan, in words, and the network as it is written."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / f"{network.name}.onnx"
        if isinstance(network.model, onnx.ModelProto):
            onnx.save(network.model, path)
        else:
            path = network.model
        result = actcc.optimize(path, target, input_shapes=network.shapes, workers=1)
    changes = [f"{count} {what}" for what, count in result.changes.items()]
    chosen = ", ".join(changes) or "normalized"
    return chosen if result.status == "optimized" else f"unchanged: {result.reason}", result.graph


def networks(options: argparse.Namespace) -> Iterator[Network]:
    """All that were asked for."""
    yield from built_networks(full_size=options.full_size, only=options.only)
    real = [] if options.models is None else [*shared_networks(options.models), *text_networks()]
    yield from (network for network in real if options.only in network.name)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", type=Path, nargs="?", help="folder of ONNX models")
    parser.add_argument("--full-size", action="store_true", help="built networks at full size")
    parser.add_argument("--time", metavar="TARGET", help="latency on this target as well")
    parser.add_argument("--solve", action="store_true", help="time what `actcc optimize` writes")
    parser.add_argument("--only", default="", help="networks whose name has this in it")
    options = parser.parse_args()
    if options.solve and not options.time:
        parser.error("--solve times a plan; give --time TARGET")
    target = None if options.time is None else load_target(options.time)
    titles = ["network", "file", "plain", "structure", "change", "difference", "bound"]
    if target is not None:
        titles += ["chosen", "before ms", "after ms", "times faster"]
    print(f"| {' | '.join(titles)} |\n|{' --- |' * len(titles)}", flush=True)
    for network in networks(options):
        print(f"| {' | '.join(row(network, target, solve=options.solve))} |", flush=True)


if __name__ == "__main__":
    main()
