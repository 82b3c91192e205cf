"""Ranges of feature maps by other rules than least squared error, and a choice among them.

For each tensor: all values (minmax), percentiles and entropy as ONNX Runtime's calibrators find
them, the range of least squared error (`actcc.quantization.distribution`), and whichever of these
makes the layers that read the tensor miss the least of what they give in floating point.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization.calibrate import HistogramCollector

from actcc.calibration import SampleSet
from actcc.errors import ModelError
from actcc.graph import Array, Graph, content_hash, extract
from actcc.graph.operators import HEAVY
from actcc.passes.quantize_layers import QuantizeLayers
from actcc.quantization.distribution import Range
from actcc.quantization.steps import HIGHEST, Step
from actcc.runtime import run, session
from actcc.site import Site

LEAST_ERROR = "least squared error"
PERCENTILES = (99.9, 99.99, 99.999)
RULES = ("minmax", *(f"percentile {p}" for p in PERCENTILES), "entropy", LEAST_ERROR)
SMALLEST_OUTPUT_ERROR = "smallest output error"
BUT_FOR_MEANS = "smallest output error but for means"  # which the bias correction makes good
WAYS = (*RULES, SMALLEST_OUTPUT_ERROR, BUT_FOR_MEANS)
_BINS = 2048
# ONNX Runtime's defaults, 128 and 128, leave its entropy calibrator no threshold to choose; its
# time grows with the square of the first.
_ENTROPY_BINS, _MERGED = 256, 128
_COMPARED_SAMPLES = 8
_JOINTS = frozenset({"Add", "Concat"})
Candidates = dict[str, dict[str, Range]]
"""Ranges by rule and tensor."""


class RangesBy(QuantizeLayers):
    """The pass with ranges that are found in one of the ways; `known` keeps those of all ways."""

    def __init__(self, way: str, known: dict[str, Candidates]) -> None:
        self._way, self._known = way, known

    def observe(self, graph: Graph, sites: Sequence[Site], samples: SampleSet) -> Iterator[Site]:
        """The same sites with these ranges."""
        identity = content_hash(graph)
        if identity not in self._known:
            ranges = candidate_ranges(graph, samples)
            self._known[identity] = ranges | choose_ranges(graph, samples, ranges)
        chosen = self._known[identity][self._way]
        for site in super().observe(graph, sites, samples):
            found = {name: chosen[name] for name in json.loads(str(site.facts["ranges"]))}
            yield replace(site, facts={**site.facts, "ranges": json.dumps(found)})


def candidate_ranges(graph: Graph, samples: SampleSet) -> Candidates:
    """The ranges of every tensor that int8 may stand for, by each rule."""
    found = QuantizeLayers()
    sites = [site for site in found.sites(graph) if isinstance(site, Site)]
    least: dict[str, Range] = {}
    for site in found.observe(graph, sites, samples):
        known = json.loads(str(site.facts["ranges"]))
        least |= {name: (low, high) for name, (low, high) in known.items()}
    collector = HistogramCollector("percentile", False, _BINS, _MERGED, 100.0, "same")
    entropy = HistogramCollector("entropy", False, _ENTROPY_BINS, _MERGED, 100.0, "same")
    for values in _values(graph, samples):
        collector.collect_value({name: values[name] for name in least})
        entropy.collect_value({name: values[name] for name in least})
    ranges: Candidates = {LEAST_ERROR: least}
    ranges["minmax"] = {n: (float(h[2]), float(h[3])) for n, h in collector.histogram_dict.items()}
    with contextlib.redirect_stdout(io.StringIO()):  # the calibrators print
        for percentile in PERCENTILES:
            collector.percentile = percentile
            ranges[f"percentile {percentile}"] = _bounds(collector.compute_percentile())
        ranges["entropy"] = _bounds(entropy.compute_entropy())
    return ranges


def _bounds(thresholds: Mapping[str, tuple[Array, ...]]) -> dict[str, Range]:
    return {name: (float(found[0]), float(found[1])) for name, found in thresholds.items()}


def _values(graph: Graph, samples: SampleSet) -> Iterator[dict[str, Array]]:
    """What every tensor of the graph is, sample by sample."""
    model = graph.to_proto()
    known = {tensor.name for tensor in model.graph.output}
    names = [t.name for n in graph.nodes() for t in n.outputs if not t.is_empty()]
    wanted = [onnx.ValueInfoProto(name=name) for name in names if name not in known]
    model.graph.output.extend(wanted)
    runner = session(model, optimise=False)
    for sample in samples:
        yield {**sample.inputs, **run(runner, sample.inputs)}


@dataclass(frozen=True)
class _Reading:
    """The layers that read a tensor, with what lies between."""

    reads: str
    part: Graph

    @cached_property
    def _runner(self) -> Any:
        return session(self.part, optimise=False)

    def errors(
        self, values: Mapping[str, Array], ranges: Sequence[Range]
    ) -> list[tuple[float, float]]:
        """Of each range, the squared error of the outputs against their spread, of layers by
        channel; with the mean error, and without it.
        """
        layers = {t.name for n in self.part.nodes() if n.op in HEAVY for t in n.outputs}
        feeds = {tensor.name: values[tensor.name] for tensor in self.part.inputs}
        exact = run(self._runner, feeds)
        found = []
        for bounds in ranges:
            rounded = run(self._runner, {**feeds, self.reads: _rounded(feeds[self.reads], bounds)})
            parts = [_error(rounded[n], exact[n], by_channel=n in layers) for n in exact]
            found.append((sum(p[0] for p in parts), sum(p[1] for p in parts)))
        return found


def _rounded(values: Array, bounds: Range) -> Array:
    step = Step.of(bounds)
    numbers = np.clip(np.round(values / np.float32(step.scale)) + step.zero_point, 0, HIGHEST)
    result: Array = ((numbers - step.zero_point) * step.scale).astype(np.float32)
    return result


def _error(found: Array, exact: Array, *, by_channel: bool) -> tuple[float, float]:
    others = tuple(axis for axis in range(exact.ndim) if axis != 1 or not by_channel)
    difference, spread = found.astype(np.float64) - exact, exact.astype(np.float64).var(axis=others)
    least = np.maximum(spread, spread.mean() * 1e-4 + 1e-12)
    whole = np.square(difference).mean(axis=others) / least
    means = np.square(difference.mean(axis=others)) / least
    return float(whole.mean()), float((whole - means).mean())


def _reading(graph: Graph, name: str) -> _Reading | None:
    """None where no layer reads a tensor: only its own error counts then."""
    waiting, nodes = [graph.tensor(name)], set()
    while waiting:
        for reader in graph.consumers(waiting.pop()):
            if reader.name in nodes:
                continue
            nodes.add(reader.name)
            if reader.op not in HEAVY | _JOINTS:
                waiting += [tensor for tensor in reader.outputs if not tensor.is_empty()]
    if not nodes:
        return None
    try:
        part = extract(graph, nodes, static=False)
    except ModelError:
        return None
    return _Reading(name, part) if name in {tensor.name for tensor in part.inputs} else None


def choose_ranges(graph: Graph, samples: SampleSet, candidates: Candidates) -> Candidates:
    """Of each tensor the range, of these, of smallest output error on some samples."""
    readings = {name: _reading(graph, name) for name in candidates[LEAST_ERROR]}
    totals = {
        name: np.zeros((len(RULES), 2)) for name, reading in readings.items() if reading is not None
    }
    for values in _values(graph, samples.choose(_COMPARED_SAMPLES, seed=0)):
        for name, reading in readings.items():
            if reading is not None:
                ranges = [candidates[rule][name] for rule in RULES]
                totals[name] += np.array(reading.errors(values, ranges))
    chosen: Candidates = {}
    for column, way in enumerate((SMALLEST_OUTPUT_ERROR, BUT_FOR_MEANS)):
        best = {name: RULES[int(np.argmin(total[:, column]))] for name, total in totals.items()}
        chosen[way] = {
            name: candidates[best.get(name, LEAST_ERROR)][name] for name in candidates[LEAST_ERROR]
        }
    return chosen
