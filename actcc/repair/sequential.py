"""Step 3, sequential: each layer is fitted on what the layers before it, already fitted, give it.

Layers are fitted in topological order. Both networks are executed segment by segment over all
samples, just as far as the next layer needs, and only what is still to be read is kept; errors of
earlier layers are so made up for and do not pile up (Frantar and Alistarh 2022, section 3, fit
layer by layer in the same way).
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from actcc.errors import RepairError
from actcc.graph import Array, Graph
from actcc.progress import Advance
from actcc.repair.biases import with_own_biases
from actcc.repair.execution import Execution, Feeds
from actcc.repair.factors import cut
from actcc.repair.fitting import ALL_STEPS, Fitted, Problem, Rows, Steps, fit, merge
from actcc.repair.layers import (
    Layer,
    channels_of,
    count_positions,
    find_layers,
    rows_of,
    targets_of,
)
from actcc.repair.refits import Refit, Refits, plan_refits
from actcc.repair.store import TensorStore
from actcc.repair.stored import with_real_weights, with_stored_weights
from actcc.tasks import default_workers

# A layer, its weights and its bias; None where the bias stays.
NewWeights: TypeAlias = tuple[Layer, Array, "Array | None"]

DEFAULT_MEMORY = 2 << 30
_ROWS_A_COLUMN = 12
# Rows of both networks, their targets, and what is made of them, are held a few times over.
_COPIES = 6
_SHARE_FOR_ROWS = 0.4
# Whatever the number of threads is: how a product is cut decides the last bits of its numbers.
_PARTS = 2


@dataclass(frozen=True)
class LayerFigures:
    """How one layer was fitted, on calibration data.

    Attributes:
        missed: share of the energy of what its reader is to get that it does not get, before and
            after the fit of this layer, with the layers before it fitted.
    """

    node: str
    missed: tuple[float, float]


@dataclass(frozen=True)
class Repaired:
    """A repaired network.

    Attributes:
        graph: the rewritten network with new weights.
        layers: what was fitted, in order.
        refused: nodes whose input changed and that were left alone, with the reason.
        seconds: wall time.
        memory_bytes: most that was held of tensors at once.
        spilled_bytes: tensors that were put on disk.
    """

    graph: Graph
    layers: tuple[LayerFigures, ...]
    refused: Mapping[str, str]
    seconds: float
    memory_bytes: int
    spilled_bytes: int

    def but(self, graph: Graph, seconds: float) -> Repaired:
        """The same with weights that took some seconds more to find."""
        return replace(self, graph=graph, seconds=self.seconds + seconds)


def repair(
    original: Graph,
    rewritten: Graph,
    samples: Feeds,
    *,
    memory_bytes: int = DEFAULT_MEMORY,
    seed: int = 0,
    threads: int | None = None,
    steps: Steps = ALL_STEPS,
    advance: Advance = lambda: None,
) -> Repaired:
    """Re-fit the layers of a rewritten network so that it does what the original does.

    Args:
        rewritten: has tensors of the original under the original's names; what its layers give
            under such a name they are fitted for.
        samples: calibration samples, or what a session is fed for each; no labels are used.
        memory_bytes: of tensors between layers; more is put on disk.
        seed: of the positions that are sampled.
        threads: None for one a core.
        steps: which are taken.
        advance: called when a layer has been fitted.

    Raises:
        ModelError: a network cannot be run.
        RepairError: there are no samples.
    """
    from threadpoolctl import threadpool_limits

    if not len(samples):
        raise RepairError("the repair needs calibration samples; give --calib")
    begin = time.monotonic()
    original, _ = with_real_weights(original)
    rewritten, stored = with_real_weights(rewritten)
    plan = plan_refits(original, rewritten)
    repaired = with_own_biases(rewritten, [refit.layer.writes for refit in plan.refits])
    layers, _ = find_layers(repaired)
    refits = [refit.on(layers) for refit in plan.refits]
    if not steps.joined:
        refits = [refit.alone for refit in refits]
    plan = replace(plan, refits=tuple(refits))
    limit = int(memory_bytes * (1 - _SHARE_FOR_ROWS))
    # One thread for each product: how sums are split among threads changes their last bits.
    with (
        threadpool_limits(1, user_api="blas"),
        ThreadPoolExecutor(threads or default_workers()) as pool,
        TensorStore(limit) as store,
    ):
        sweep = _Sweep(
            original,
            repaired,
            plan,
            samples,
            store,
            pool,
            memory_bytes,
            seed,
            steps,
        )
        for refit in plan.refits:
            sweep.fit(refit)
            advance()
        return Repaired(
            with_stored_weights(sweep.result(), stored),
            tuple(sweep.figures),
            {**plan.refused, **sweep.refused},
            time.monotonic() - begin,
            store.most_bytes,
            store.spilled_bytes,
        )


class _Sweep:
    """One pass through both networks, from the inputs to the outputs."""

    def __init__(
        self,
        original: Graph,
        repaired: Graph,
        plan: Refits,
        samples: Feeds,
        store: TensorStore,
        pool: ThreadPoolExecutor,
        memory_bytes: int,
        seed: int,
        steps: Steps,
    ) -> None:
        self._steps = steps
        self._repaired = repaired
        self._count = len(samples)
        self._pool = pool
        self._row_bytes = int(memory_bytes * _SHARE_FOR_ROWS)
        self._seed = seed
        self._theirs = Execution(original, samples, store, pool)
        self._ours = Execution(repaired, samples, store, pool, self._theirs, plan.same)
        self._fitted: list[NewWeights] = []
        self.figures: list[LayerFigures] = []
        self.refused: dict[str, str] = {}
        for refit in plan.refits:
            self._theirs.want(_original_reads(refit))
            self._ours.want(_rewritten_reads(refit))

    def fit(self, refit: Refit) -> None:
        """Fit one layer and let what follows run with it."""
        self._theirs.reach(_original_reads(refit))
        self._ours.reach(_rewritten_reads(refit))
        rows = self._rows(refit)
        for name in _original_reads(refit):
            self._theirs.release(name)
        for name in _rewritten_reads(refit):
            self._ours.release(name)
        if rows.count < 2:
            self.refused[refit.layer.node] = "on no calibration sample are its values finite"
            return
        layer = refit.layer
        reference = None if refit.reference is None else refit.reference.matrix
        problem = Problem(refit, rows, layer.matrix, layer.offset, reference, self._steps)
        parts = list(self._pool.map(_fit, problem.split(_PARTS)))
        found = merge(parts, layer.groups)
        if not all(np.isfinite(v).all() for v in (found.matrix, found.offset, found.missed[1])):
            self.refused[layer.node] = "its values are too large to be fitted"
            return
        lost = self._take(refit, rows, found)
        whole = max(found.wanted, 1e-30)
        before, after = (float(share) for share in found.missed / whole)
        after += lost / whole
        self.figures.append(LayerFigures(layer.node, (before, after)))

    def result(self) -> Graph:
        """The network with its new weights."""
        for layer, weights, bias in self._fitted:
            node = self._repaired.node(layer.node)
            self._repaired.set_input(node, 1, weights)
            if bias is None:
                continue
            node = self._repaired.node(layer.adds or layer.node)
            index = [tensor.name for tensor in node.inputs].index(layer.bias)
            self._repaired.set_input(node, index, bias)
        return self._repaired

    def _take(self, refit: Refit, rows: Rows, found: Fitted) -> float:
        """Use what was found; gives the energy that is lost where two layers stand for one."""
        layer = refit.layer
        if refit.factors is None:
            self._store(layer, layer.tensor(found.matrix), layer.vector(found.offset))
            return 0.0
        first, second = refit.factors
        halves = cut(first, second, rows.inputs, found.matrix)
        self._store(first, halves.first, None)
        self._store(second, halves.second, second.vector(found.offset + halves.shift))
        return halves.energy

    def _store(self, layer: Layer, weights: Array, bias: Array | None) -> None:
        self._ours.set_weight(layer.weight, weights)
        if layer.bias is not None and bias is not None:
            self._ours.set_weight(layer.bias, bias)
        self._fitted.append((layer, weights, bias))

    def _rows(self, refit: Refit) -> Rows:
        layer = refit.layer
        wanted = max(self._steps.rows(refit), _ROWS_A_COLUMN * layer.columns)
        a_row = 4 * (layer.columns * layer.groups + layer.groups * layer.outputs) * _COPIES
        wanted = max(min(wanted, self._row_bytes // a_row), 2)
        each = math.ceil(wanted / self._count)

        def take(index: int) -> Rows:
            shape = self._theirs.values(refit.pre_activation, index).shape
            positions = self._positions(refit, index, count_positions(layer, shape), each)
            return self._rows_of_sample(refit, index, positions)

        return Rows.joined(list(self._pool.map(take, range(self._count))))

    def _positions(self, refit: Refit, index: int, there_are: int, wanted: int) -> Array:
        if there_are <= wanted:
            return np.arange(there_are)
        generator = np.random.default_rng((self._seed, len(self.figures), index))
        return np.sort(generator.choice(there_are, wanted, replace=False))

    def _rows_of_sample(self, refit: Refit, index: int, positions: Array) -> Rows:
        layer, ours, kept = refit.layer, self._ours, refit.kept

        def original(name: str, channels: Array | None) -> Array:
            return channels_of(layer, self._theirs.values(name, index), channels)

        pre_activation = original(refit.pre_activation, kept.outputs)
        shape = pre_activation.shape

        def target(values: Array) -> Array:
            whole = np.broadcast_to(values, shape)
            return targets_of(layer, whole, positions).astype(np.float32)

        def columns(values: Array) -> Array:
            return rows_of(layer, values, positions, shape).astype(np.float32)

        added, joined = refit.added, refit.joined
        wanted = None
        if joined is not None:
            wanted = target(original(joined.writes, kept.outputs))
            wanted = wanted - target(ours.values(joined.other, index))
        reference = refit.reference
        return Rows(
            columns(ours.values(layer.reads, index)),
            None if reference is None else columns(original(reference.reads, kept.inputs)),
            target(pre_activation),
            None if added is None else target(ours.values(added.other, index)),
            wanted,
        )


def _fit(problem: Problem) -> Fitted:
    """What overflows on the way is seen by its result, which is not finite then."""
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        return fit(problem)


def _original_reads(refit: Refit) -> list[str]:
    """Tensors of the original network that a fit needs."""
    reads = [] if refit.reference is None else [refit.reference.reads]
    joined = [] if refit.joined is None else [refit.joined.writes]
    return list(dict.fromkeys([*reads, refit.pre_activation, *joined]))


def _rewritten_reads(refit: Refit) -> list[str]:
    """Tensors of the rewritten network that a fit needs."""
    others = [found.other for found in (refit.added, refit.joined) if found is not None]
    return list(dict.fromkeys([refit.layer.reads, *others]))
