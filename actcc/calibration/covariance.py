"""How the channels of tensors vary together on calibration samples."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from actcc.calibration.sample import SampleSet
from actcc.graph import Array, Graph, ancestors, extract
from actcc.runtime import run, session

# Positions of all samples together.
_ROWS = 8192


def channel_covariances(
    graph: Graph, tensors: Mapping[str, int], samples: SampleSet
) -> dict[str, Array]:
    """Covariances [channels, channels] of tensors, in float64, over positions drawn at random.

    The network runs once for each sample, and of its tensors only sums are kept. The positions
    depend on nothing but the samples' number and the tensors' shapes.

    Args:
        tensors: names, and the axis of their channels: 1, or -1 for the last.

    Raises:
        ModelError: the runtime cannot load or run the network.
        DataError: a sample cannot be loaded.
    """
    from threadpoolctl import threadpool_limits

    names = list(tensors)
    part = extract(graph, ancestors(graph, names), names, static=False)
    fed = [tensor.name for tensor in part.inputs]
    runner = session(part)
    each = math.ceil(_ROWS / len(samples))
    sums: dict[str, _Sums] = {}
    # One thread: how sums are split among threads changes their last bits.
    with threadpool_limits(1, user_api="blas"):
        for index in range(len(samples)):
            inputs = samples[index].inputs
            found = run(runner, {name: inputs[name] for name in fed})
            for name, axis in tensors.items():
                rows = _rows(found[name], axis, each, index)
                sums.setdefault(name, _Sums(rows.shape[1])).add(rows)
        return {name: sums.pop(name).covariance for name in names}


def _rows(values: Array, axis: int, most: int, seed: int) -> Array:
    """Channels at some positions, float64 [positions, channels]; all that are finite numbers."""
    if axis == 1:
        planes = values.reshape(*values.shape[:2], -1)
    else:
        planes = values.reshape(-1, values.shape[-1], 1)
    size = planes.shape[2]
    positions = np.arange(len(planes) * size)
    if len(positions) > most:
        positions = np.random.default_rng(seed).choice(len(positions), most, replace=False)
    batch, place = np.divmod(positions, max(size, 1))
    rows: Array = planes[batch, :, place].astype(np.float64)
    return rows[np.isfinite(rows).all(axis=1)]


class _Sums:
    """Sums over rows, of them and of their products."""

    def __init__(self, channels: int) -> None:
        self._count = 0
        self._sum = np.zeros(channels)
        self._products = np.zeros((channels, channels))

    def add(self, rows: Array) -> None:
        self._count += len(rows)
        self._sum += rows.sum(axis=0)
        self._products += rows.T @ rows

    @property
    def covariance(self) -> Array:
        count = max(self._count, 1)
        mean = self._sum / count
        found: Array = self._products / count - np.outer(mean, mean)
        return found
