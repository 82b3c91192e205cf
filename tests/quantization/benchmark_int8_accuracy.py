"""What each way of choosing int8 numbers adds to the accuracy of a network of which all is in int8.

    python tests/quantization/benchmark_int8_accuracy.py MODEL --calib FOLDER --preprocess yolox
        [--labels FILE --metric coco-map] [--swap Relu] [--target cpu] [--samples N] [--seed N]
        [--ranges [WAY ...]]

Half of the calibration images give ranges and fits, the other half what is printed; evaluation
images are not looked at. --swap first puts another function in the place of all activations that
may have it, and repairs the network: in mixed precision, those are the layers that int8 pays for.
--ranges compares ways to find ranges of feature maps instead (`range_choice`), each with weights
rounded to the nearest and with all that is done about rounding; the first way's seconds are those
of all.

Relative error: squared error of the outputs in parts of the energy of those of the network in
floating point, mean over outputs and images. Fidelity and metric are those of `actcc optimize`.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from range_choice import WAYS as WAYS_OF_RANGES
from range_choice import Candidates, RangesBy

from actcc.accuracy.built_in import load_metric
from actcc.accuracy.fidelity import FidelityReference
from actcc.accuracy.metric import Metric
from actcc.calibration import SampleSet, load_samples
from actcc.calibration.labels import label_samples
from actcc.graph import Array, Graph
from actcc.int8_rounding import fit_int8_weights, quantize_network
from actcc.normalize import normalize
from actcc.pass_api import Pass, apply_candidates, find_sites
from actcc.passes.quantize_layers import QuantizeLayers
from actcc.passes.swap_activation import SwapActivation
from actcc.quantization.equalization import equalizable_pairs, equalized
from actcc.quantization.int8_layers import find_int8_layers
from actcc.quantization.layer_fit import FitSteps
from actcc.repair import RepairMethod
from actcc.runtime import run, session
from actcc.targets import load_target

WAYS = {
    "bias correction": FitSteps(refit=False, together=False),
    "rounded together": FitSteps(refit=False, bias=False),
    "rounded together, bias correction": FitSteps(refit=False),
    "re-fitted, rounded together, bias correction": FitSteps(),
}
Outputs = dict[str, Array]


def rewritten(
    graph: Graph, found: Pass, target: str, samples: SampleSet, wanted: str | None
) -> Graph:
    """The graph with one candidate chosen at all sites: that of a name, or the first."""
    sites = find_sites(graph, [found], load_target(target), samples=samples).sites
    chosen = [
        (site, candidate.name)
        for site in sites
        for candidate in site.candidates[: None if wanted else 1]
        if wanted in (None, candidate.name)
    ]
    return apply_candidates(graph, [found], chosen)


def quantized(graph: Graph, target: str, samples: SampleSet, rewrite: Pass | None = None) -> Graph:
    """All in int8 that can be, each weight rounded to the nearest."""
    return rewritten(graph, rewrite or QuantizeLayers(), target, samples, None)


def networks(reference: Graph, target: str, fit: SampleSet) -> Iterator[tuple[str, Graph, float]]:
    """The network in int8 in several ways, and the seconds that each took."""
    begin = time.perf_counter()
    nearest = quantized(reference, target, fit)
    yield "rounded to the nearest", nearest, time.perf_counter() - begin
    layers = find_int8_layers(reference, nearest)
    for name, steps in WAYS.items():
        begin = time.perf_counter()
        found = fit_int8_weights(reference, nearest, fit.choose(24, seed=0), layers, steps)
        yield name, found, time.perf_counter() - begin
    begin = time.perf_counter()
    pairs = equalizable_pairs(reference, {layer.reference.node for layer in layers})
    alike = equalized(reference, pairs, fit.choose(8, seed=0)) if pairs else reference
    other = quantized(alike, target, fit) if pairs else nearest
    yield f"equalized ({len(pairs)} pairs)", other, time.perf_counter() - begin
    begin = time.perf_counter()
    found = quantize_network(reference, partial(quantized, target=target, samples=fit), fit)
    yield "all, where held-out images gain", found, time.perf_counter() - begin


def networks_by_ranges(
    reference: Graph, target: str, fit: SampleSet, ways: Sequence[str]
) -> Iterator[tuple[str, Graph, float]]:
    """The network in int8 with ranges found in several ways: rounded to the nearest, and with all
    that is done about rounding.
    """
    known: dict[str, Candidates] = {}
    for way in ways:
        quantize = partial(quantized, target=target, samples=fit, rewrite=RangesBy(way, known))
        rounded = partial(quantize_network, quantize=quantize, samples=fit)
        for name, make in (("nearest", quantize), ("all", rounded)):
            begin = time.perf_counter()
            found = make(reference)
            yield f"{way}, {name}", found, time.perf_counter() - begin


def outputs(graph: Graph, samples: SampleSet) -> list[Outputs]:
    """Of all samples, by name."""
    runner = session(graph)
    return [run(runner, sample.inputs) for sample in samples]


def relative_error(found: Outputs, wanted: Outputs) -> float:
    """Squared error in parts of the energy, mean over outputs."""
    shares = [
        np.square(found[name] - exact.astype(np.float64)).mean() / np.square(exact).mean()
        for name, exact in wanted.items()
    ]
    return float(np.mean(shares))


def lines(
    reference: Graph,
    made: Iterable[tuple[str, Graph, float]],
    held_out: SampleSet,
    metric: Metric | None,
) -> Iterator[str]:
    """The table, row by row."""
    wanted = outputs(reference, held_out)
    fidelity, every = FidelityReference(wanted), np.arange(len(held_out))
    judge = None

    def value(found: list[Outputs]) -> str:
        nonlocal judge
        if metric is None:
            return ""
        seen = [metric.observe(one, s) for one, s in zip(found, held_out, strict=True)]
        judge = judge or metric.judge(seen, held_out)
        return f"{judge(seen).value(every):.4f}"

    yield f"| numbers | relative error | fidelity | {metric.name if metric else ''} | seconds |"
    yield "| --- | --- | --- | --- | --- |"
    yield f"| floating point | 0 | 1 | {value(wanted)} | |"
    for name, graph, seconds in made:
        found = outputs(graph, held_out)
        error = np.mean([relative_error(a, b) for a, b in zip(found, wanted, strict=True)])
        loss = fidelity.loss(found)
        yield f"| {name} | {error:.4f} | {1 - loss:.4f} | {value(found)} | {seconds:.1f} |"


def main() -> None:
    """Print the table."""
    options = _options()
    graph = normalize(Graph.load(options.model)).graph
    samples = load_samples(options.calib, graph, options.preprocess, limit=options.samples)
    metric = None
    if options.labels is not None:
        samples, metric = label_samples(samples, options.labels), load_metric(options.metric)
    fit, held_out = samples.split(0.5, seed=options.seed)
    if options.swap is not None:
        swapped = rewritten(graph, SwapActivation(), options.target, fit, options.swap)
        graph = RepairMethod().run(graph, swapped, fit).graph
    print(f"{options.model.name}: {len(fit)} images for the fit, {len(held_out)} held out\n")
    if options.ranges is None:
        made = networks(graph, options.target, fit)
    else:
        ways = options.ranges or WAYS_OF_RANGES
        made = networks_by_ranges(graph, options.target, fit, ways)
    for line in lines(graph, made, held_out, metric):
        print(line)
        sys.stdout.flush()


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path, help="ONNX model in floating point")
    parser.add_argument("--calib", type=Path, required=True, help="folder of images")
    parser.add_argument("--preprocess", required=True, help="name or .toml, as for actcc")
    parser.add_argument("--labels", type=Path, help="of the images of --calib")
    parser.add_argument("--metric", default="top1", help="where labels are given")
    parser.add_argument("--swap", help="function for all activations that may have it")
    parser.add_argument("--target", default="cpu", help="how many bits weights have")
    parser.add_argument(
        "--ranges",
        nargs="*",
        choices=WAYS_OF_RANGES,
        help="compare ways to find ranges instead; all of them where none is named",
    )
    parser.add_argument("--seed", type=int, default=0, help="of which images are held out")
    parser.add_argument("--samples", type=int, help="images at most")
    return parser.parse_args()


if __name__ == "__main__":
    main()
