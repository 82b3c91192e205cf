"""The fine-tune as a whole: blocks in topological order, then the network from end to end.

Block by block (Li et al. 2021, BRECQ; Yin et al. 2020, block-wise distillation) every block starts
from nearly right inputs, which a network of a hundred rewritten places needs: fitted from end to
end at once it does not move. Then all layers together, against the original's activations at every
layer and its outputs: what one block could not do, others make up for.
"""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from actcc.calibration import SampleSet
from actcc.graph import Graph
from actcc.progress import Advance
from actcc.repair.distill.feeding import Feeder, Tap
from actcc.repair.distill.fitting import LARGEST_BATCH, Feeds, Fit, Settings, fit
from actcc.repair.distill.losses import Losses
from actcc.repair.distill.matching import (
    Feature,
    OutputGroup,
    features,
    leaf_names,
    output_groups,
    shared_tensors,
    within,
)
from actcc.repair.distill.network import Tensors, TorchNetwork, to_torch
from actcc.repair.distill.problem import Problem
from actcc.repair.distill.result import Distilled, SpanFigures
from actcc.repair.distill.spans import Span, blocks, segments, shares
from actcc.repair.layers import Layer, find_layers

_HELD_OUT = 0.2
_MOST_HELD_OUT = 16
# Of the time: blocks bring a network into reach, the whole is what brings it home.
_TIME_FOR_BLOCKS = 0.35
_BLOCK_RATE, _WHOLE_RATE = 0.01, 0.004
_BLOCK_REUSE = 4
_NO_FALL = "the held-out loss did not fall"


@dataclass(frozen=True)
class _Networks:
    """Both networks, and what is compared.

    Attributes:
        rewritten: as it was given.
        translated: with the present weights.
        weights: those that have changed, by the name that they have in `rewritten`.
    """

    original: Graph
    rewritten: Graph
    translated: TorchNetwork
    layers: Mapping[str, Layer]
    features: tuple[Feature, ...]
    groups: tuple[OutputGroup, ...]
    device: torch.device
    weights: Mapping[str, torch.Tensor] = field(default_factory=dict)

    @classmethod
    def of(cls, original: Graph, rewritten: Graph, layers: Mapping[str, Layer]) -> _Networks:
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        shared = shared_tensors(original, rewritten)
        return cls(
            original,
            rewritten,
            TorchNetwork.of(rewritten, device),
            layers,
            features(list(layers.values()), shared),
            output_groups(original, shared),
            device,
        )

    def with_weights(self, weights: Mapping[str, torch.Tensor]) -> _Networks:
        """The networks after weights of the rewritten one have changed."""
        constants = {**self.translated.constants, **weights}
        return replace(
            self,
            weights={**self.weights, **weights},
            translated=replace(self.translated, constants=constants),
        )

    def current(self) -> Graph:
        """The rewritten network with the present weights."""
        return set_weights(self.rewritten, self.layers.values(), self.weights)


@contextlib.contextmanager
def workers_of_one_thread() -> Iterator[int]:
    """PyTorch with one thread; gives how many workers may compute side by side instead."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        # Each has two samples at least: features are compared free of their means over them.
        yield 1 if torch.cuda.is_available() else min(threads, LARGEST_BATCH // 2)
    finally:
        torch.set_num_threads(threads)


def fine_tune(
    original: Graph,
    rewritten: Graph,
    samples: SampleSet,
    *,
    time_limit_s: float,
    seed: int,
    workers: int,
    advance: Advance,
) -> Distilled:
    """See `actcc.repair.distill.distill`."""
    began = time.monotonic()
    train, held = samples.split(_HELD_OUT, seed)
    held_out = [sample.inputs for sample in held.take(_MOST_HELD_OUT)]
    layers, refused = _free_layers(rewritten)
    networks = _Networks.of(original, rewritten, layers)
    before = _output_loss(networks, rewritten, held_out)
    spent_s = time.monotonic() - began
    run = _Run(train, held_out, seed, workers, advance)
    figures: list[SpanFigures] = []
    whole = segments(rewritten, layers, networks.translated.refused)
    parts = [part for segment in whole for part in blocks(rewritten, segment, layers)]
    limit = began + time_limit_s - 0.5 * spent_s
    middle = time.monotonic() + _TIME_FOR_BLOCKS * (limit - time.monotonic())
    if len(parts) > len(whole):
        networks = run.stage("block", networks, parts, middle, figures)
    networks = run.stage("whole", networks, whole, limit, figures)
    result = networks.current()
    after = _output_loss(networks, result, held_out)
    better = after < before
    return Distilled(
        result if better else rewritten,
        tuple(figures),
        before,
        after if better else before,
        time.monotonic() - began,
        {**refused, **networks.translated.refused},
    )


@dataclass(frozen=True)
class _Run:
    """What all spans are fitted with."""

    train: SampleSet
    held_out: Sequence[Feeds]
    seed: int
    workers: int
    advance: Advance

    def stage(
        self,
        name: str,
        networks: _Networks,
        spans: Sequence[Span],
        deadline: float,
        figures: list[SpanFigures],
    ) -> _Networks:
        """Fit spans one after another, each on what those before it have become."""
        efforts = shares(networks.rewritten, spans)
        for number, span in enumerate(spans):
            if time.monotonic() >= deadline:
                break
            share = efforts[number] / sum(efforts[number:])
            end = time.monotonic() + share * (deadline - time.monotonic())
            networks, found = self._fit(name, networks, span, end)
            figures.append(found)
            self.advance()
        return networks

    def _fit(
        self, stage: str, networks: _Networks, span: Span, end: float
    ) -> tuple[_Networks, SpanFigures]:
        problem = self._problem(networks, span)
        if isinstance(problem, str):
            return networks, _figures(stage, span, None, problem)
        settings = (
            Settings(_BLOCK_RATE, _BLOCK_REUSE, self.seed, self.workers)
            if stage == "block"
            else Settings(_WHOLE_RATE, 1, self.seed, self.workers)
        )
        found = fit(problem, self._sample, len(self.train), self.held_out, end, settings)
        if not found.after < found.before:
            return networks, _figures(stage, span, found, _NO_FALL)
        return networks.with_weights(found.weights), _figures(stage, span, found, "")

    def _sample(self, index: int) -> Feeds:
        return self.train[index].inputs

    def _problem(self, networks: _Networks, span: Span) -> Problem | str:
        """The span's problem, or why there is none."""
        if not span.layers:
            return "it has no layer whose weights may be changed"
        written = {*span.writes}
        compared = [f for f in networks.features if f.name in written]
        groups = within(networks.groups, written)
        names = dict.fromkeys([*(f.name for f in compared), *leaf_names(groups)])
        if not names:
            return "none of its tensors has a counterpart in the original"
        feeder = Feeder(
            Tap(networks.current(), span.reads),
            Tap(networks.original, list(names)),
            networks.device,
        )
        few = self.held_out[: max(2, len(self.held_out) // 2)]
        targets = feeder.batch(few).targets
        together = {name: torch.cat([part[name] for part in targets]) for name in names}
        wanted = [*names, *(n for layer in span.layers for n in (layer.reads, layer.writes))]
        problem = Problem(
            span.layers,
            networks.translated.between(span.reads, wanted),
            networks.translated.constants,
            tuple(names),
            feeder,
            Losses.of(compared, groups, together),
        )
        return problem.joined([self.held_out[0], self.held_out[-1]])


def _figures(stage: str, span: Span, found: Fit | None, reason: str) -> SpanFigures:
    return SpanFigures(
        stage,
        span.nodes[0],
        span.nodes[-1],
        len(span.layers),
        0 if found is None else found.steps,
        math.nan if found is None else found.before,
        math.nan if found is None else found.after,
        reason,
    )


def set_weights(
    graph: Graph, layers: Iterable[Layer], weights: Mapping[str, torch.Tensor]
) -> Graph:
    """A copy of the graph with the weights, by their names in it, rounded to the layers' types."""
    copy = graph.copy()
    for layer in layers:
        for node_name, held in ((layer.node, layer.weight), (layer.adds or layer.node, layer.bias)):
            if held is None or held not in weights:
                continue
            node = copy.node(node_name)
            index = [tensor.name for tensor in node.inputs].index(held)
            values = weights[held].cpu().contiguous().numpy().astype(layer.dtype)
            copy.set_input(node, index, copy.initializer(held, values))
    return copy


def _free_layers(graph: Graph) -> tuple[dict[str, Layer], dict[str, str]]:
    """Layers in topological order; a bias that other nodes read too is none of theirs."""
    layers, refused = find_layers(graph)
    own = {
        name: replace(layer, bias=None)
        if layer.bias is not None and len(graph.consumers(layer.bias)) > 1
        else layer
        for name, layer in layers.items()
    }
    return own, refused


def _output_loss(networks: _Networks, graph: Graph, samples: Sequence[Feeds]) -> float:
    """The outputs' loss under ONNX Runtime; NaN where none can be compared."""
    names = leaf_names(networks.groups)
    if not names:
        return math.nan
    taps = [Tap(found, names) for found in (graph, networks.original)]
    found, targets = ([_on_host(tap.read(s)) for s in samples] for tap in taps)
    together = {name: torch.cat([part[name] for part in targets]) for name in names}
    losses = Losses.of((), networks.groups, together)
    return float(
        np.mean([float(losses.outputs(f, t)) for f, t in zip(found, targets, strict=True)])
    )


def _on_host(tensors: Feeds) -> Tensors:
    return {name: to_torch(value, torch.device("cpu")) for name, value in tensors.items()}
