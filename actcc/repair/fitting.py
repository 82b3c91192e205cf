"""One layer fitted to rows that were taken from both networks."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from actcc.graph import Array
from actcc.repair.affine import affine_fit
from actcc.repair.asymmetric import asymmetric_fit
from actcc.repair.refits import Refit
from actcc.repair.ridge import NormalEquations, input_slopes, output_slopes

STRENGTH = 0.1
# Where no activation stands behind a layer, what it gives is often an output itself.
STRENGTH_AT_OUTPUTS = 0.03
# Of a layer that a rewrite made: what it starts from is worth less than weights that were trained.
STRENGTH_OF_MADE = 0.03
ROUNDS = 4
# Of all samples together, positions that a layer is fitted on at least.
LEAST_ROWS = 4096
# What decides an output (an object, a class) is at few positions; such layers have few columns.
_MORE_AT_OUTPUTS = 16


@dataclass(frozen=True)
class Steps:
    """Which steps are taken; all of them, unless one measures what each adds.

    Attributes:
        affine: the affine fit.
        gain: in it, a factor between layers.
        slopes: weights start from the original's times the slopes of their inputs.
        joined: layers make up for what is wrong with the other operand of an Add behind them.
        rounds: of the asymmetric fit.
        least_rows: positions, of all samples together, that a layer is fitted on at least.
        more_at_outputs: sixteen times as many where a layer gives an output.
    """

    affine: bool = True
    gain: bool = True
    slopes: bool = True
    joined: bool = True
    rounds: int = ROUNDS
    least_rows: int = LEAST_ROWS
    more_at_outputs: bool = True

    def rows(self, refit: Refit) -> int:
        """Positions that a layer is fitted on at least."""
        more = self.more_at_outputs and refit.at_outputs
        return self.least_rows * (_MORE_AT_OUTPUTS if more else 1)


ALL_STEPS = Steps()


@dataclass(frozen=True)
class Rows:
    """What a layer reads and is wanted to give, at sampled positions; all float32.

    Attributes:
        inputs: of the rewritten network, [groups, rows, columns].
        originals: of the original network, in the same shape; None for a layer that it lacks.
        pre_activation: what the layer gave in the original network, with what was added to it,
            [groups, rows, outputs].
        added: what is added to the layer's outputs in the rewritten network; None for nothing.
        wanted: what the activation behind is to give; None where that is f(pre_activation).
    """

    inputs: Array
    originals: Array | None
    pre_activation: Array
    added: Array | None
    wanted: Array | None

    @classmethod
    def joined(cls, parts: Sequence[Rows]) -> Rows:
        """Rows of all samples; those with a value that is not finite are left out."""

        def join(name: str) -> Array | None:
            arrays = [getattr(part, name) for part in parts]
            return None if arrays[0] is None else np.concatenate(arrays, axis=1)

        every = {name: join(name) for name in cls.__dataclass_fields__}
        present = [values for values in every.values() if values is not None]
        finite = np.all([np.isfinite(values).all(axis=(0, 2)) for values in present], axis=0)
        if not finite.all():
            every = {n: None if v is None else v[:, finite] for n, v in every.items()}
        return cls(**every)  # type: ignore[arg-type]

    @property
    def count(self) -> int:
        """Number of rows."""
        return int(self.inputs.shape[1])


@dataclass(frozen=True)
class Fitted:
    """A layer's new weights.

    Attributes:
        matrix: weights [groups, columns, outputs].
        offset: bias [groups, outputs].
        missed: energy of what the layer's reader misses, before and after the fit; [2].
        wanted: energy of what it is to get, free of its mean.
    """

    matrix: Array
    offset: Array
    missed: Array
    wanted: float


@dataclass(frozen=True)
class Problem:
    """A layer, or a part of one, with its rows.

    Attributes:
        matrix: present weights [groups, columns, outputs].
        offset: present bias [groups, outputs].
        reference: weights of the original network, in the shape of `matrix`; None where it has no
            such layer.
        steps: which are taken.
    """

    refit: Refit
    rows: Rows
    matrix: Array
    offset: Array
    reference: Array | None
    steps: Steps = Steps()

    def split(self, parts: int) -> Iterator[Problem]:
        """The problem in parts that know nothing of each other: groups, or outputs of one group."""
        grouped = len(self.matrix) > 1
        along = self.offset.shape[0 if grouped else 1]
        for chosen in np.array_split(np.arange(along), min(parts, along)):
            where = slice(int(chosen[0]), int(chosen[-1]) + 1)
            columns = where if grouped else slice(None)
            outputs = (where, ...) if grouped else (..., where)
            rows = self.rows
            yield Problem(
                self.refit,
                Rows(
                    rows.inputs[columns],
                    None if rows.originals is None else rows.originals[columns],
                    rows.pre_activation[outputs],
                    None if rows.added is None else rows.added[outputs],
                    None if rows.wanted is None else rows.wanted[outputs],
                ),
                self.matrix[outputs],
                self.offset[outputs],
                None if self.reference is None else self.reference[outputs],
                self.steps,
            )


def merge(parts: Sequence[Fitted], groups: int) -> Fitted:
    """The parts of `Problem.split` put together."""
    axis = 0 if groups > 1 else -1
    return Fitted(
        np.concatenate([part.matrix for part in parts], axis),
        np.concatenate([part.offset for part in parts], axis),
        np.sum([part.missed for part in parts], axis=0),
        sum(part.wanted for part in parts),
    )


def fit(problem: Problem) -> Fitted:
    """New weights for a layer: affine fit, ridge fit, and rounds of the asymmetric fit."""
    refit, rows = problem.refit, problem.rows
    added = 0.0 if rows.added is None else rows.added
    equations = NormalEquations(rows.inputs, _strength(refit))
    target, gain = rows.pre_activation, np.ones(problem.offset.shape, np.float32)
    weights, bias = _anchor(problem, equations, target - added), problem.offset
    if refit.swapped and problem.steps.affine:
        scale, shift, gain = _affine(refit, rows, gain=problem.steps.gain)
        target = target * scale[:, None] + shift[:, None]
        weights, bias = weights * scale[:, None], bias * scale + shift
    start = equations.solve(target - added, weights)
    given = equations.outputs(problem.matrix, problem.offset) + added
    if refit.after is None or refit.before is None:
        found = start
        ideal, results = rows.pre_activation, (given, equations.outputs(*found) + added)
    else:
        wanted = refit.before(rows.pre_activation) if rows.wanted is None else rows.wanted
        ideal = wanted / gain[:, None]
        found = asymmetric_fit(
            equations,
            refit.after,
            ideal,
            added,
            start,
            weights,
            rounds=problem.steps.rounds,
            offset_is_free=refit.offset_is_free,
        )
        after = refit.after(equations.outputs(*found) + added)
        results = (refit.after(given), after)
    missed = [_energy(ideal - result, centred=refit.offset_is_free) for result in results]
    return Fitted(*found, np.array(missed), _energy(ideal, centred=True))


def _strength(refit: Refit) -> float:
    if refit.reference is None:
        return STRENGTH_OF_MADE
    return STRENGTH if refit.after is not None else STRENGTH_AT_OUTPUTS


def _anchor(problem: Problem, equations: NormalEquations, target: Array) -> Array:
    """Weights that the ridge holds on to: [groups, columns, outputs].

    Those of the original, times the slopes of their inputs; where it has no such layer, what the
    rewrite started from, with each output scaled to what it is to give.
    """
    rows, layer = problem.rows, problem.refit.layer
    if problem.reference is None:
        return problem.matrix * output_slopes(
            equations.outputs(problem.matrix, problem.offset), target
        )
    if rows.originals is None or not problem.steps.slopes:
        return problem.reference
    taps = 1 if layer.window is None else layer.window.taps
    return problem.reference * input_slopes(rows.inputs, rows.originals, taps)[:, :, None]


def _affine(refit: Refit, rows: Rows, *, gain: bool) -> tuple[Array, Array, Array]:
    """Scale, shift and gain of each output: [groups, outputs]."""
    groups, count, outputs = rows.pre_activation.shape
    channels = rows.pre_activation.transpose(1, 0, 2).reshape(count, -1)
    if refit.before is None or refit.after is None:
        raise ValueError(f"no activation is known behind '{refit.layer.node}'")
    # The gain of ReLU is part of its scale.
    free = gain and refit.gain_is_free and refit.after.name != "Relu"
    found = affine_fit(
        refit.before,
        refit.after,
        channels,
        gain_is_free=free,
        offset_is_free=refit.offset_is_free,
    )
    shape = (groups, outputs)
    return found.scale.reshape(shape), found.shift.reshape(shape), found.gain.reshape(shape)


def _energy(values: Array, *, centred: bool) -> float:
    """Mean square over rows, or variance, summed over outputs."""
    if centred:
        return float(values.var(axis=1, dtype=np.float64).sum())
    return float(np.square(values, dtype=np.float64).mean(axis=1).sum())
