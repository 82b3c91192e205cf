"""Operators and latency before and after the exact passes on structure, on real networks.

    python tests/passes/benchmark_structure.py ../shared/models [--time]

For each network: nodes (without Constant) in the file, after normalizing without the passes on
structure, and after normalizing with them; what went and came between the last two; how far the
outputs are from the original's beside how far ONNX Runtime's own optimisations move them, both
relative to the largest magnitude; with --time the latency on this machine's CPU, one thread.
The networks of PP-OCR come with rapidocr-onnxruntime: pip install 'actcc[ocr]'.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from PIL import Image, ImageDraw

from actcc.graph import Array, Graph
from actcc.graph.compare import compare
from actcc.normalize import normalize
from actcc.runtime import random_feeds, run, session

STRUCTURE = (
    "merge-equal-nodes",
    "simplify-activations",
    "fold-padding",
    "fold-scale-and-shift",
)


@dataclass(frozen=True)
class Network:
    """A model and what it is run on."""

    name: str
    model: Path | onnx.ModelProto
    feeds: Mapping[str, Array]

    def graph(self) -> Graph:
        """The model at the shapes of the feeds."""
        shapes = {name: values.shape for name, values in self.feeds.items()}
        return Graph.load(self.model, shapes)


def page(height: int, width: int) -> Array:
    """Dark text on white, float32 [1, 3, height, width] in [-1, 1]."""
    image = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(image)
    for top in range(4, height - 16, 24):
        draw.text((6, top), f"line {top}: exact rewrites change nothing", fill="black")
    pixels = np.asarray(image, np.float32).transpose(2, 0, 1)[None]
    return np.ascontiguousarray(pixels / 127.5 - 1)


def noise(like: Array) -> Array:
    """Random pixels: in [0, 255] for networks that take bytes, else in [0, 1]."""
    bytes_ = np.random.default_rng(0).integers(0, 256, like.shape)
    return bytes_.astype(np.uint8) if like.dtype == np.uint8 else (bytes_ / 255).astype(like.dtype)


def shared_networks(folder: Path) -> Iterator[Network]:
    """Every model of a folder; the one of speech by what it is fed with."""
    for path in sorted(folder.glob("*.onnx")):
        if path.name == "silero_vad.onnx":
            sound = 0.1 * np.random.default_rng(0).standard_normal((1, 576)).astype(np.float32)
            state, rate = np.zeros((2, 1, 128), np.float32), np.asarray(16000, np.int64)
            yield Network(path.stem, path, {"input": sound, "state": state, "sr": rate})
            continue
        (one,) = random_feeds(Graph.load(path), 0).items()
        yield Network(path.stem, path, {one[0]: noise(one[1])})


def text_networks() -> Iterator[Network]:
    """The networks of PP-OCR, where they are installed."""
    found = importlib.util.find_spec("rapidocr_onnxruntime")
    if found is None or found.origin is None:
        return
    sizes = {"det": (320, 320), "rec": (48, 320), "cls": (48, 192)}
    for path in sorted((Path(found.origin).parent / "models").glob("*.onnx")):
        size = next(value for key, value in sizes.items() if f"_{key}_" in path.name)
        yield Network(path.stem, path, {"x": page(*size)})


def operators(graph: Graph) -> Counter[str]:
    """How many nodes of each operator there are in the main graph."""
    return Counter(node.op for node in graph.nodes() if node.op != "Constant")


def change(before: Counter[str], after: Counter[str]) -> str:
    """What went and what came, "-3 Add, +1 Conv"."""
    went = [f"-{count} {op}" for op, count in sorted((before - after).items())]
    return ", ".join(went + [f"+{count} {op}" for op, count in sorted((after - before).items())])


def latencies_ms(graphs: list[Graph], feeds: Mapping[str, Array], runs: int = 30) -> list[float]:
    """Median latency of each graph, timed in turn."""
    sessions = [session(graph) for graph in graphs]
    times: list[list[float]] = [[] for _ in graphs]
    for _ in range(runs):
        for found, taken in zip(sessions, times, strict=True):
            begin = time.perf_counter()
            run(found, feeds)
            taken.append(1e3 * (time.perf_counter() - begin))
    return [statistics.median(taken[2:]) for taken in times]


def row(network: Network, timed: bool) -> str:
    """One line of the table."""
    graph, feeds = network.graph(), [network.feeds]
    plain = normalize(graph, skip=STRUCTURE, feeds=feeds).graph
    whole = normalize(graph, feeds=feeds)
    counts = [operators(each) for each in (graph, plain, whole.graph)]
    before = run(session(graph, optimise=False), network.feeds)
    after = run(session(graph), network.feeds)
    own = max(_relative(before[name], after[name]) for name in before)
    cells = [
        network.name,
        *(str(sum(count.values())) for count in counts),
        change(counts[1], counts[2]) or "none",
        f"{compare(graph, whole.graph, feeds, optimise=False).worst_relative:.1e}",
        f"{own:.1e}",
    ]
    if timed:
        cells += [f"{ms:.2f}" for ms in latencies_ms([graph, plain, whole.graph], network.feeds)]
    return f"| {' | '.join(cells)} |"


def _relative(expected: Array, found: Array) -> float:
    wide, other = expected.astype(np.float64), found.astype(np.float64)
    scale = float(np.abs(wide).max(initial=0))
    return float(np.abs(wide - other).max(initial=0)) / scale if scale else 0.0


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("models", type=Path, help="folder of ONNX models")
    parser.add_argument("--time", action="store_true", help="latency on this CPU as well")
    parser.add_argument("--only", default="", help="networks whose name has this in it")
    options = parser.parse_args()
    titles = ["network", "file", "plain", "structure", "change", "difference", "runtime's own"]
    if options.time:
        titles += ["file ms", "plain ms", "structure ms"]
    print(f"| {' | '.join(titles)} |\n|{' --- |' * len(titles)}", flush=True)
    for network in (*shared_networks(options.models), *text_networks()):
        if options.only in network.name:
            print(row(network, options.time), flush=True)


if __name__ == "__main__":
    main()
