"""`zen`: how strongly the network answers to a small push at its input (Lin et al. 2021, 3).

    score = log E ‖f(x) − f(x + α·ε)‖₁ + Σ log σ_BN        x, ε ~ N(0, 1), α = 0.01

f is the feature map in front of the head: what the last layers with weights read, before pooling.
The paper draws weights at random and corrects for batch normalization. Here the weights are the
trained ones and the normalization is folded into them; it is the same in every plan, so that the
second term cancels in differences and is left out. Where the range of an input is known, the noise
has its middle for a mean and a quarter of its width for a standard deviation.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from actcc.accuracy.estimate import Estimates
from actcc.calibration import SampleSet, load_samples
from actcc.errors import ModelError
from actcc.estimators.estimator import Needs, Subject
from actcc.estimators.measured import MeasuredLoss
from actcc.estimators.network_score import score_losses, score_shift
from actcc.graph import Array, Graph, Node
from actcc.graph.operators import HEAVY
from actcc.runtime import random_feeds

_PAIRS = 4
_PUSH = 0.01
_POOLING = frozenset(
    {"GlobalAveragePool", "ReduceMean", "AveragePool", "Flatten", "Reshape", "Squeeze", "Dropout"}
)


class ZenEstimator:
    """Zen-score of the trained network."""

    name = "zen"
    needs: Needs = "nothing"

    def losses(self, subject: Subject) -> Estimates:
        """See `Estimator`."""
        return score_losses(subject, self.network_loss(subject), "Scores by zen")

    def network_loss(self, subject: Subject) -> MeasuredLoss:
        """See `Estimator`.

        Raises:
            ModelError: the network has no layer with weights behind another.
        """
        observed = feature_maps(subject.graph)
        return score_shift(subject.graph, PushScore(), observed, pushed_pairs(subject, _PAIRS))


def feature_maps(graph: Graph) -> tuple[str, ...]:
    """What the last layers with weights read, before pooling, inputs of the network aside.

    Raises:
        ModelError: there is none.
    """
    feeding: set[str] = set()
    last: list[Node] = []
    for node in reversed(list(graph.nodes())):
        outputs = {tensor.name for tensor in node.outputs}
        weighted = node.op in HEAVY
        if weighted and outputs.isdisjoint(feeding):
            last.append(node)
        if weighted or not outputs.isdisjoint(feeding):
            feeding.update(tensor.name for tensor in node.inputs)
    maps = dict.fromkeys(_before_pooling(graph, node.inputs[0].name) for node in reversed(last))
    found = tuple(name for name in maps if graph.producer(name) is not None)
    if not found:
        raise ModelError(
            "the network has no feature map in front of a last layer to score; choose another "
            "--estimator"
        )
    return found


def _before_pooling(graph: Graph, name: str) -> str:
    writer = graph.producer(name)
    while writer is not None and writer.op in _POOLING:
        name = writer.inputs[0].name
        writer = graph.producer(name)
    return name


def pushed_pairs(subject: Subject, count: int) -> SampleSet:
    """Noise samples in pairs: x, and x with a hundredth of further noise added."""
    feeds: list[dict[str, Array]] = []
    for step in range(count):
        seed = subject.seed + 2 * step
        base, push = random_feeds(subject.graph, seed), random_feeds(subject.graph, seed + 1)
        floats = [name for name, values in base.items() if values.dtype.kind == "f"]
        pushed = {
            name: (base[name] + _PUSH * push[name]).astype(base[name].dtype) for name in floats
        }
        feeds += [_placed(subject, base, floats), _placed(subject, {**base, **pushed}, floats)]
    return load_samples(feeds, subject.graph)


def _placed(
    subject: Subject, feeds: Mapping[str, Array], floats: Sequence[str]
) -> dict[str, Array]:
    """Feeds with standard normal values moved into the range of the inputs, where it is known."""
    placed = dict(feeds)
    for name in floats:
        if name in subject.value_ranges:
            low, high = subject.value_ranges[name]
            values = (low + high) / 2 + (high - low) / 4 * feeds[name]
            placed[name] = values.astype(feeds[name].dtype)
    return placed


@dataclass(frozen=True)
class PushScore:
    """See `Score`."""

    def tally(self) -> PushTally:
        """A tally of nothing."""
        return PushTally()


@dataclass
class PushTally:
    """Distances of the pairs seen; every second sample is the pushed one before it."""

    distances: list[float] = field(default_factory=list)
    waiting: Mapping[str, Array] = field(default_factory=dict)

    def add(self, index: int, tensors: Mapping[str, Array]) -> None:
        """Keep a sample, or compare the pushed one with it."""
        if index % 2 == 0:
            self.waiting = tensors
            return
        apart = [
            np.abs(values.astype(np.float64) - self.waiting[name]).sum()
            for name, values in tensors.items()
        ]
        self.distances.append(float(np.sum(apart)))
        self.waiting = {}

    @property
    def score(self) -> float:
        """log of the mean distance; −∞ where nothing moved."""
        with np.errstate(divide="ignore"):
            return float(np.log(np.mean(self.distances)))
