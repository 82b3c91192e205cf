"""The error function in numpy, to double precision.

W. J. Cody, "Rational Chebyshev approximations for the error function", Mathematics of Computation
23 (1969): one rational approximation for |x| ≤ 0.46875, one for |x| ≤ 4, one beyond.
"""

from __future__ import annotations

from typing import Any

import numpy as np

_Array = np.ndarray[Any, Any]

_NEAR_NUMERATOR = (
    1.85777706184603153e-1,
    3.16112374387056560e0,
    1.13864154151050156e2,
    3.77485237685302021e2,
    3.20937758913846947e3,
)
_NEAR_DENOMINATOR = (
    1.0,
    2.36012909523441209e1,
    2.44024637934444173e2,
    1.28261652607737228e3,
    2.84423683343917062e3,
)
_MIDDLE_NUMERATOR = (
    2.15311535474403846e-8,
    5.64188496988670089e-1,
    8.88314979438837594e0,
    6.61191906371416295e1,
    2.98635138197400131e2,
    8.81952221241769090e2,
    1.71204761263407058e3,
    2.05107837782607147e3,
    1.23033935479799725e3,
)
_MIDDLE_DENOMINATOR = (
    1.0,
    1.57449261107098347e1,
    1.17693950891312499e2,
    5.37181101862009858e2,
    1.62138957456669019e3,
    3.29079923573345963e3,
    4.36261909014324716e3,
    3.43936767414372164e3,
    1.23033935480374942e3,
)
_FAR_NUMERATOR = (
    1.63153871373020978e-2,
    3.05326634961232344e-1,
    3.60344899949804439e-1,
    1.25781726111229246e-1,
    1.60837851487422766e-2,
    6.58749161529837803e-4,
)
_FAR_DENOMINATOR = (
    1.0,
    2.56852019228982242e0,
    1.87295284992346725e0,
    5.27905102951428412e-1,
    6.05183413124413191e-2,
    2.33520497626869185e-3,
)
_NEAR, _FAR, _SATURATED = 0.46875, 4.0, 6.0


def erf(x: _Array) -> _Array:
    """erf(x) in the shape and precision of `x`; the error is below 2⁻⁵² in double precision."""
    values = np.asarray(x, np.float64)
    size = np.minimum(np.abs(values), _SATURATED)
    result = np.empty_like(size)
    near = size <= _NEAR
    square = np.square(size[near])
    quotient = np.polyval(_NEAR_NUMERATOR, square) / np.polyval(_NEAR_DENOMINATOR, square)
    result[near] = size[near] * quotient
    middle = ~near & (size <= _FAR)
    part = size[middle]
    quotient = np.polyval(_MIDDLE_NUMERATOR, part) / np.polyval(_MIDDLE_DENOMINATOR, part)
    result[middle] = 1 - np.exp(-part * part) * quotient
    far = ~near & ~middle
    part = size[far]
    inverse = 1 / np.square(part)
    quotient = np.polyval(_FAR_NUMERATOR, inverse) / np.polyval(_FAR_DENOMINATOR, inverse)
    tail = np.exp(-part * part) / part * (1 / np.sqrt(np.pi) - inverse * quotient)
    result[far] = 1 - tail
    return np.copysign(result, values).astype(np.asarray(x).dtype)
