"""Numeric comparison of two models under ONNX Runtime."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx

from actcc.errors import ModelError
from actcc.graph.graph import Graph
from actcc.graph.view import Array

Feeds = Mapping[str, Array]
Outputs = Mapping[str, Any]
_EXACT = 1e-5
_ROUNDINGS = 8.0
_MOST_ROUNDING = 1e-3
_EIGHT_ROUNDINGS: Mapping[int, float] = MappingProxyType(
    {onnx.TensorProto.FLOAT16: 8 * 2.0**-11, onnx.TensorProto.BFLOAT16: 8 * 2.0**-8}
)
_SMALLEST_SCALE = float(np.finfo(np.float32).tiny)


@dataclass(frozen=True)
class OutputComparison:
    """How far one output of a model is from the reference's, the worst of all feeds.

    Two NaN in the same place are equal, and so are two infinities of the same sign; where only one
    of two values is NaN or infinite the difference is infinite. Outputs of another shape or
    element type differ infinitely.

    Attributes:
        largest_difference: max |a - b| over the elements.
        relative: for each feed max |a - b| / max |a|, a being the reference and both maxima being
            taken over the whole output (not element by element: small elements of a large output
            carry its rounding); the worst feed.
        cosine: of the two outputs as vectors, over the elements that are finite in both; 1 where
            both are zero; the worst feed.
    """

    name: str
    largest_difference: float
    relative: float
    cosine: float


@dataclass(frozen=True)
class Comparison:
    """How far a model is from a reference."""

    outputs: tuple[OutputComparison, ...]

    @property
    def worst_relative(self) -> float:
        """The largest relative difference of any output; 0 where all are equal."""
        return max((output.relative for output in self.outputs), default=0.0)

    def agrees(self, tolerance: float = 1e-5) -> bool:
        """Whether no output differs by more than `tolerance`, relative."""
        return self.worst_relative <= tolerance


def compare(
    reference: Graph | Path | onnx.ModelProto,
    other: Graph | Path | onnx.ModelProto,
    feeds: Sequence[Feeds],
    *,
    optimise: bool = True,
) -> Comparison:
    """Run both models on each of `feeds` and compare their outputs, by the reference's names.

    Args:
        optimise: with the runtime's graph optimisations, as deployed, or without them, so that
            only the models differ and not what the runtime makes of them.

    Raises:
        ModelError: there is nothing to feed, a model cannot be run, or an output is missing.
    """
    from actcc.runtime import run, session

    if not feeds:
        raise ModelError("two models cannot be compared without inputs; give at least one sample")
    expected = session(reference, optimise=optimise)
    found = session(other, optimise=optimise)
    return compare_outputs(
        [run(expected, sample) for sample in feeds], [run(found, sample) for sample in feeds]
    )


def exact_tolerance(original: Graph) -> float:
    """How far outputs of an exact rewrite may be from the original's, relative.

    1e-5; eight roundings of the narrowest floating-point type that the network computes in, where
    that is half precision.
    """
    elements = {found.element for found in original.types.values()}
    roundings = [_EIGHT_ROUNDINGS[element] for element in elements & _EIGHT_ROUNDINGS.keys()]
    return max([_EXACT, *roundings])


def rounding_tolerance(plain: Sequence[Outputs], optimised: Sequence[Outputs]) -> float:
    """How far outputs of exact rewrites may differ on these inputs, relative.

    Eight times what the runtime's own optimisations change of the original (of which 1e-3 at most
    counts: int8 models flip whole steps in them): exact rewrites round anew, each for itself.

    Args:
        plain: the original's outputs without the runtime's optimisations.
        optimised: with them.
    """
    return _ROUNDINGS * min(compare_outputs(plain, optimised).worst_relative, _MOST_ROUNDING)


def compare_outputs(reference: Sequence[Outputs], other: Sequence[Outputs]) -> Comparison:
    """Compare the outputs of two models, run by run.

    Raises:
        ModelError: an output of the reference is missing in the other.
    """
    results = []
    for name in reference[0] if reference else ():
        pairs = []
        for expected, found in zip(reference, other, strict=True):
            if name not in found:
                raise ModelError(f"output '{name}' is missing; it has: {', '.join(found)}")
            pairs.append(_compare_values(expected[name], found[name]))
        results.append(
            OutputComparison(
                name,
                largest_difference=max(pair[0] for pair in pairs),
                relative=max(pair[1] for pair in pairs),
                cosine=min(pair[2] for pair in pairs),
            )
        )
    return Comparison(tuple(results))


_EQUAL = (0.0, 0.0, 1.0)
_INCOMPARABLE = (float("inf"), float("inf"), 0.0)


def _compare_values(expected: Any, found: Any) -> tuple[float, float, float]:
    """Largest difference, relative difference and cosine of tensors, sequences or maps."""
    if isinstance(expected, Mapping) and isinstance(found, Mapping):
        if list(expected) != list(found):
            return _INCOMPARABLE
        return _compare_values(list(expected.values()), list(found.values()))
    if isinstance(expected, list) and isinstance(found, list):
        if len(expected) != len(found):
            return _INCOMPARABLE
        pairs = [_compare_values(e, f) for e, f in zip(expected, found, strict=True)] or [_EQUAL]
        return max(p[0] for p in pairs), max(p[1] for p in pairs), min(p[2] for p in pairs)
    if expected is None or found is None:  # an empty optional
        return _EQUAL if expected is found else _INCOMPARABLE
    return _compare_arrays(np.asarray(expected), np.asarray(found))


def _compare_arrays(expected: Array, found: Array) -> tuple[float, float, float]:
    if expected.shape != found.shape or expected.dtype != found.dtype:
        return _INCOMPARABLE
    if expected.size == 0:
        return _EQUAL
    if expected.dtype.kind in "OSU":  # text
        return _EQUAL if np.array_equal(expected, found) else _INCOMPARABLE
    if expected.dtype.kind == "c":
        return _compare_arrays(
            np.stack([expected.real, expected.imag]), np.stack([found.real, found.imag])
        )
    if expected.dtype.kind in "iub" and np.array_equal(expected, found):
        return _EQUAL  # 64-bit integers do not all fit a double
    a, b = expected.astype(np.float64).ravel(), found.astype(np.float64).ravel()
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    finite = np.isfinite(a) & np.isfinite(b)
    comparable = bool(np.all(same | finite))
    a, b = a[finite], b[finite]
    difference = float(np.max(np.abs(a - b), initial=0.0)) if comparable else float("inf")
    scale = float(np.max(np.abs(a), initial=0.0))
    relative = difference / max(scale, _SMALLEST_SCALE)
    return difference, relative, _cosine(a, b)


def _cosine(a: Array, b: Array) -> float:
    norms = float(np.linalg.norm(a)), float(np.linalg.norm(b))
    if 0.0 in norms:
        return 1.0 if norms[0] == norms[1] else 0.0
    return float(np.dot(a / norms[0], b / norms[1]))
