"""Normal forms of element-wise functions of one variable.

Exporters write one activation in many ways. Here an expression becomes a sum of products of atoms
such that equal functions get equal forms:

    HardSwish, however written  →  x·clip01(x/6 + 1/2)
    LeakyRelu, as max(x, x/10)  →  x/10 + 9/10·relu(x)

An atom is `x` or one of few functions of a form. What is left out of that list is rewritten:
σ(p) = 1/2 + 1/2·tanh(p/2), max(p, q) = q + relu(p − q), |p| = 2·relu(p) − p, and so on. Scale and
sign are pulled out of relu, clip01 (which is min(max(p, 0), 1)), tanh and erf.

A form has a `skeleton`, which is what remains of it without its numbers, and its `numbers` in
order. Two expressions are the same function where skeletons are equal and numbers agree.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

_MOST_TERMS = 12
_HIGHEST_DEGREE = 4
_DEEPEST = 2  # Mish is x·tanh(softplus(x))
# Relative size below which a sum of two coefficients counts as cancelled.
_CANCELLED = 1e-7


class TooComplex(Exception):  # noqa: N818  an answer to the caller inside this package, no error
    """An expression is no candidate for an activation; the search stops there."""


@dataclass(frozen=True, order=True)
class Atom:
    """`x`, or a function of a form."""

    skeleton: str
    numbers: tuple[float, ...] = ()
    name: str = field(default="x", compare=False)
    argument: Form | None = field(default=None, compare=False)
    depth: int = field(default=0, compare=False)

    @classmethod
    def of(cls, name: str, argument: Form) -> Atom:
        """The function `name` of a form that is normal for it already."""
        atoms = [atom for monomial, _ in argument.terms for atom in monomial]
        depth = 1 + max((atom.depth for atom in atoms), default=0)
        if depth > _DEEPEST:
            raise TooComplex
        return cls(f"{name}({argument.skeleton})", argument.numbers, name, argument, depth)


Monomial = tuple[Atom, ...]


@dataclass(frozen=True, init=False)
class Form:
    """A sum of products of atoms with non-zero coefficients, in a fixed order."""

    terms: tuple[tuple[Monomial, float], ...]

    def __init__(self, terms: Mapping[Monomial, float]) -> None:
        kept = [item for item in terms.items() if item[1] != 0]
        if len(kept) > 1:
            kept.sort(key=_order)
        if len(kept) > _MOST_TERMS or any(len(monomial) > _HIGHEST_DEGREE for monomial, _ in kept):
            raise TooComplex
        object.__setattr__(self, "terms", tuple(kept))

    @cached_property
    def skeleton(self) -> str:
        """The form without its numbers."""
        return "+".join(
            "·".join(atom.skeleton for atom in monomial) or "1" for monomial, _ in self.terms
        )

    @cached_property
    def numbers(self) -> tuple[float, ...]:
        """All numbers in order: of each term the coefficient, then those of its atoms."""
        found: list[float] = []
        for monomial, coefficient in self.terms:
            found.append(coefficient)
            for atom in monomial:
                found += atom.numbers
        return tuple(found)

    @property
    def constant(self) -> float | None:
        """The value of a form without atoms; None for any other."""
        if not self.terms:
            return 0.0
        return self.terms[0][1] if len(self.terms) == 1 and not self.terms[0][0] else None

    @property
    def is_nonlinear(self) -> bool:
        """Whether a function other than `x` and its powers occurs."""
        return any(atom.argument is not None for monomial, _ in self.terms for atom in monomial)

    def coefficient(self, *atoms: str) -> float:
        """The coefficient of the product of atoms with these names; 0 where there is none."""
        wanted = sorted(atoms)
        for monomial, coefficient in self.terms:
            if sorted(atom.name for atom in monomial) == wanted:
                return coefficient
        return 0.0

    def argument(self, name: str) -> Form:
        """The argument of the first atom of that name; the empty form where there is none."""
        for monomial, _ in self.terms:
            for atom in monomial:
                if atom.name == name and atom.argument is not None:
                    return atom.argument
        return number(0.0)

    @property
    def leading(self) -> float:
        """Coefficient of the first term that is not constant."""
        return next((c for monomial, c in self.terms if monomial), 0.0)

    def __add__(self, other: Form | float) -> Form:
        terms = dict(self.terms)
        for monomial, coefficient in _form(other).terms:
            _accumulate(terms, monomial, coefficient)
        return Form(terms)

    def __mul__(self, other: Form | float) -> Form:
        terms: dict[Monomial, float] = {}
        for left, a in self.terms:
            for right, b in _form(other).terms:
                _accumulate(terms, tuple(sorted((*left, *right))), a * b)
        return Form(terms)

    def __neg__(self) -> Form:
        return self * -1.0

    def __sub__(self, other: Form | float) -> Form:
        return self + -_form(other)

    def __rsub__(self, other: float) -> Form:
        return -self + other

    def __truediv__(self, other: Form | float) -> Form:
        return self * reciprocal(_form(other))

    def __pow__(self, exponent: int) -> Form:
        result = number(1.0)
        for _ in range(exponent):
            result = result * self
        return result

    __radd__ = __add__
    __rmul__ = __mul__


def _order(item: tuple[Monomial, float]) -> tuple[tuple[str, tuple[float, ...]], ...]:
    return tuple((atom.skeleton, atom.numbers) for atom in item[0])


def _accumulate(terms: dict[Monomial, float], monomial: Monomial, value: float) -> None:
    before = terms.get(monomial, 0.0)
    total = before + value
    cancelled = abs(total) <= _CANCELLED * max(abs(before), abs(value))
    terms[monomial] = 0.0 if cancelled else total


def _form(value: Form | float) -> Form:
    return value if isinstance(value, Form) else number(value)


def number(value: float) -> Form:
    """A constant."""
    return Form({(): float(value)})


X = Form({(Atom("x"),): 1.0})
EMPTY = number(0.0)


def _apply(name: str, argument: Form) -> Form:
    return Form({(Atom.of(name, argument),): 1.0})


def _single(form: Form, name: str) -> tuple[float, Form, float] | None:
    """(a, q, b) where the form is a·name(q) + b."""
    scale, offset, argument = 0.0, 0.0, None
    for monomial, coefficient in form.terms:
        if not monomial:
            offset = coefficient
        elif len(monomial) == 1 and monomial[0].name == name and argument is None:
            scale, argument = coefficient, monomial[0].argument
        else:
            return None
    return None if argument is None else (scale, argument, offset)


def _capped(form: Form) -> tuple[Form, float] | None:
    """(q, c) with c > 0 where the form is min(q, c), that is q − a·relu(r) with q = a·r + c."""
    for monomial, coefficient in form.terms:
        if len(monomial) == 1 and monomial[0].name == "relu" and coefficient < 0:
            inner = monomial[0].argument or EMPTY
            q = form - Form({monomial: coefficient})
            bound = (q + inner * coefficient).constant
            if bound is not None and bound > 0:
                return q, bound
    return None


def relu(p: Form) -> Form:
    """max(p, 0)."""
    value = p.constant
    if value is not None:
        return number(max(value, 0.0))
    inner = _single(p, "relu")
    if inner is not None:
        scale, q, offset = inner
        if offset == 0 and scale > 0:
            return p
        if offset > 0 and scale < 0:  # max(b − a·relu(q), 0) = b − b·clip01(a/b·q)
            return offset - offset * clip01(q * (-scale / offset))
    capped = _capped(p)
    if capped is not None:
        q, bound = capped
        return bound * clip01(q * (1 / bound))
    if p.leading < 0:
        return p + relu(-p)
    return p.leading * _apply("relu", p * (1 / p.leading))


def clip01(p: Form) -> Form:
    """min(max(p, 0), 1)."""
    value = p.constant
    if value is not None:
        return number(min(max(value, 0.0), 1.0))
    inner = _single(p, "relu")
    if inner is not None and inner[0] > 0 and inner[2] == 0:
        return clip01(inner[1] * inner[0])
    return 1 - clip01(1 - p) if p.leading < 0 else _apply("clip01", p)


def clip(p: Form, low: float | None, high: float | None) -> Form:
    """min(max(p, low), high), either bound may be left out."""
    if low is not None and high is not None:
        if not low < high:
            raise TooComplex
        return low + (high - low) * clip01((p - low) * (1 / (high - low)))
    if low is not None:
        return maximum(p, number(low))
    return p if high is None else minimum(p, number(high))


def maximum(p: Form, q: Form) -> Form:
    """max(p, q)."""
    return q + relu(p - q) if p.constant is None else p + relu(q - p)


def minimum(p: Form, q: Form) -> Form:
    """min(p, q)."""
    return -maximum(-p, -q)


def absolute(p: Form) -> Form:
    """|p|."""
    return 2 * relu(p) - p


def _odd(name: str, p: Form) -> Form:
    if p.constant is not None:
        raise TooComplex
    return -_apply(name, -p) if p.leading < 0 else _apply(name, p)


def tanh(p: Form) -> Form:
    """tanh(p)."""
    return _odd("tanh", p)


def erf(p: Form) -> Form:
    """The error function of p."""
    return _odd("erf", p)


def sigmoid(p: Form) -> Form:
    """1/(1 + exp(−p))."""
    return 0.5 + 0.5 * tanh(p * 0.5)


def softplus(p: Form) -> Form:
    """log(1 + exp(p))."""
    if p.constant is not None:
        raise TooComplex
    return p + softplus(-p) if p.leading < 0 else _apply("softplus", p)


def exponential(p: Form) -> Form:
    """exp(p)."""
    if p.constant is not None:
        raise TooComplex
    return _apply("exp", p)


def logarithm(p: Form) -> Form:
    """log(p), known for 1 + exp(q)."""
    inner = _single(p, "exp")
    if inner is None or inner[0] != 1 or inner[2] != 1:
        raise TooComplex
    return softplus(inner[1])


def reciprocal(p: Form) -> Form:
    """1/p."""
    value = p.constant
    if value is not None:
        if value == 0:
            raise TooComplex
        return number(1 / value)
    inner = _single(p, "exp")
    if inner is not None and inner[0] == inner[2]:
        return sigmoid(-inner[1]) * (1 / inner[0])
    scale = p.terms[0][1]
    return _apply("reciprocal", p * (1 / scale)) * (1 / scale)


def step(p: Form) -> Form:
    """1 where p > 0, else 0."""
    if p.constant is not None or p.leading <= 0:
        raise TooComplex
    return _apply("step", p * (1 / p.leading))


def elu(p: Form, alpha: float) -> Form:
    """p where p ≥ 0, else alpha·(exp(p) − 1)."""
    return relu(p) + alpha * (exponential(minimum(p, EMPTY)) - 1)


def total(forms: Iterable[Form]) -> Form:
    """The sum of forms."""
    result = EMPTY
    for form in forms:
        result = result + form
    return result
