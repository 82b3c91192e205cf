"""Weights of layers in int8, rounded with a view to what the layers read and give.

Layers are taken in topological order. Each is fed what the network in int8 gives it, the layers in
front rounded already, and is to give what the network in floating point gives: errors are made up
for and do not pile up. Weights and biases get other numbers (`actcc.quantization.layer_fit`);
nothing else in the file changes, and so its latency does not.

Before that, the channels of feature maps between layers are made alike
(`actcc.quantization.equalization`). Whether either helps is seen on samples that were held out: it
stays only where the outputs of the whole network come nearer to those of the network in floating
point.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from actcc.accuracy.fidelity import FidelityReference
from actcc.calibration import SampleSet
from actcc.graph import Array, Graph
from actcc.quantization.equalization import equalizable_pairs, equalized
from actcc.quantization.int8_layers import Int8Layer, dequantized_twin, find_int8_layers, store
from actcc.quantization.layer_fit import ALL_STEPS, FitSteps, Rounding, Rows, fit_rounded
from actcc.repair.execution import Execution
from actcc.repair.layers import Layer, count_positions, find_layers, rows_of, targets_of
from actcc.repair.sequential import DEFAULT_MEMORY
from actcc.repair.store import TensorStore
from actcc.runtime import run, session
from actcc.tasks import default_workers

_MOST_FITTED, _MOST_HELD_OUT, _HELD_OUT_SHARE = 24, 12, 1 / 3
_MOST_OBSERVED = 8
# Of the loss that making channels alike has to save: less than that is chance.
_LEAST_GAIN = 0.1
_LEAST_ROWS, _ROWS_A_COLUMN = 2048, 8


def quantize_network(
    reference: Graph, quantize: Callable[[Graph], Graph], samples: SampleSet
) -> Graph:
    """A network with some layers in int8, as near to its outputs as is known how.

    Args:
        reference: the network in floating point.
        quantize: puts layers of it into int8; called again with other weights in it.
        samples: for calibration; some are held out of the fit. Below two it is quantized as it is.

    Raises:
        ActccError: a network cannot be run.
    """
    plain = quantize(reference)
    nodes = {layer.reference.node for layer in find_int8_layers(reference, plain)}
    pairs = equalizable_pairs(reference, nodes)
    if not pairs or len(samples) < 2:
        return round_to_reference(reference, plain, samples)
    seen, held_out = _parts(samples)
    alike = equalized(reference, pairs, seen.choose(_MOST_OBSERVED, seed=0))
    other = quantize(alike)
    before, after = _losses(reference, (plain, other), held_out)
    if after < (1 - _LEAST_GAIN) * before:
        return round_to_reference(alike, other, samples)
    return round_to_reference(reference, plain, samples)


def round_to_reference(reference: Graph, quantized: Graph, samples: SampleSet) -> Graph:
    """A network in int8 whose outputs are nearer to those in floating point, or the same network.

    Args:
        reference: the network before its layers were quantized.
        quantized: the same network with layers in int8, as `actcc.quantization.qdq` writes them.
        samples: for calibration; some are held out of the fit. Below two nothing changes.

    Returns:
        `quantized` itself, or a copy with other numbers in its weights and biases.

    Raises:
        ActccError: a network cannot be run.
    """
    layers = find_int8_layers(reference, quantized)
    if not layers or len(samples) < 2:
        return quantized
    seen, held_out = _parts(samples)
    rounded = fit_int8_weights(reference, quantized, seen.choose(_MOST_FITTED, seed=0), layers)
    before, after = _losses(reference, (quantized, rounded), held_out)
    return rounded if after < before else quantized


def fit_int8_weights(
    reference: Graph,
    quantized: Graph,
    samples: SampleSet,
    layers: Sequence[Int8Layer],
    steps: FitSteps = ALL_STEPS,
) -> Graph:
    """A copy of the network in int8 with other numbers in the weights and biases of its layers.

    A layer keeps its numbers where what it reads or gives, or its square, is not finite.

    Args:
        samples: all of which the layers are fitted to.
        layers: of `find_int8_layers`.
        steps: which are taken.

    Raises:
        ActccError: a network cannot be run.
    """
    from concurrent.futures import ThreadPoolExecutor

    from threadpoolctl import threadpool_limits

    twin, result = dequantized_twin(quantized, list(layers)), quantized.copy()
    own = {layer.node: layer for layer in find_layers(twin)[0].values()}
    with (
        threadpool_limits(1, user_api="blas"),  # how sums are split changes their last bits
        ThreadPoolExecutor(default_workers()) as pool,
        TensorStore(DEFAULT_MEMORY) as kept,
    ):
        theirs = Execution(reference, samples, kept, pool)
        ours = Execution(twin, samples, kept, pool)
        for layer in layers:
            theirs.want([layer.wanted])
            ours.want([own[layer.node].reads])
        for place, layer in enumerate(layers):
            held = own[layer.node]
            theirs.reach([layer.wanted])
            ours.reach([held.reads])
            rows = _rows(place, layer, held, theirs, ours, len(samples))
            theirs.release(layer.wanted)
            ours.release(held.reads)
            if rows and all(part.is_finite for part in rows):
                _round(layer, held, rows, result, ours, steps)
    return result


def _parts(samples: SampleSet) -> tuple[SampleSet, SampleSet]:
    """For the fit, and held out of it."""
    return samples.split(min(_HELD_OUT_SHARE, _MOST_HELD_OUT / len(samples)), seed=0)


def _rows(
    place: int, layer: Int8Layer, held: Layer, theirs: Execution, ours: Execution, count: int
) -> list[Rows]:
    """Of each sample, at positions that are drawn; samples without any are left out."""
    each = math.ceil(max(_LEAST_ROWS, _ROWS_A_COLUMN * held.columns) / count)
    found = []
    for index in range(count):
        wanted = theirs.values(layer.wanted, index)
        there_are = count_positions(held, wanted.shape)
        positions = np.arange(there_are)
        if there_are > each:
            generator = np.random.default_rng((0, place, index))
            positions = np.sort(generator.choice(there_are, each, replace=False))
        if there_are:
            inputs = rows_of(held, ours.values(held.reads, index), positions, wanted.shape)
            targets = targets_of(held, wanted, positions)
            found.append(Rows(inputs.astype(np.float32), targets.astype(np.float32)))
    return found


def _round(
    layer: Int8Layer,
    held: Layer,
    rows: Sequence[Rows],
    result: Graph,
    ours: Execution,
    steps: FitSteps,
) -> None:
    """Fit one layer, and let what follows run with it."""
    offset = None if layer.bias_steps is None else layer.reference.offset
    problem = Rounding(layer.reference.matrix, offset, layer.steps, layer.highest, layer.keeps)
    numbers, bias = fit_rounded(problem, rows, steps)
    stored: Array | None = None
    ours.set_weight(held.weight, layer.weights(numbers))
    if bias is not None and layer.bias_steps is not None and held.bias is not None:
        stored = layer.rounded_bias(bias)
        ours.set_weight(held.bias, (stored * layer.bias_steps).astype(np.float32))
    store(result, layer, numbers, stored)


def _losses(reference: Graph, networks: Sequence[Graph], samples: SampleSet) -> list[float]:
    """1 − fidelity of each network."""
    runner = session(reference, optimise=False)
    wanted = FidelityReference([run(runner, sample.inputs) for sample in samples])
    found = []
    for network in networks:
        runner = session(network, optimise=False)
        found.append(wanted.loss([run(runner, sample.inputs) for sample in samples]))
    return found
