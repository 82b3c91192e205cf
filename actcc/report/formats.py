"""Quantities as the report writes them, with a real minus sign and a unit."""

from __future__ import annotations

from collections.abc import Sequence

from actcc.plan import CandidateFigures, SitePlan
from actcc.site import KEEP

_LONGEST_NAME = 96


def latency(nanoseconds: float) -> str:
    """A latency with the unit that suits it: "1.770 ms", "22.6 µs", "850 ns"."""
    size = abs(nanoseconds)
    if size >= 1e6:
        return minus(f"{nanoseconds / 1e6:.3f} ms")
    return minus(f"{nanoseconds / 1e3:.1f} µs" if size >= 1e3 else f"{nanoseconds:.0f} ns")


def difference(candidate: CandidateFigures) -> str:
    """What a candidate costs against `keep`: "−22.6 µs ± 0.3"; empty if it has no price."""
    if candidate.difference_ns is None:
        return ""
    sign = "+" if candidate.difference_ns > 0 else ""
    said = f"{sign}{latency(candidate.difference_ns)}"
    if not candidate.noise_ns:
        return said
    if abs(candidate.difference_ns) < 1e3 or abs(candidate.difference_ns) >= 1e6:
        return f"{said} ± {latency(candidate.noise_ns)}"
    return f"{said} ± {candidate.noise_ns / 1e3:.1f}"


def loss(value: float | None) -> str:
    """A loss of fidelity in per cent; all of it is the most there is."""
    if value is None:
        return ""
    if value >= 1.0:
        return "all"
    return minus(f"{100 * value:.3g} %") if value else "0"


def bytes_of(size: int | None) -> str:
    """A size: "3.50 MiB", "1,474 KiB"."""
    if size is None:
        return "depends on data"
    return f"{size / 2**20:,.2f} MiB" if size >= 10 * 2**20 else f"{size / 2**10:,.0f} KiB"


def change_of(before: float | None, after: float | None) -> str:
    """What is left of the original, in per cent."""
    if not before or after is None:
        return ""
    return "the same" if before == after else f"{100 * after / before:.1f} %"


def signed(value: float, digits: int = 4) -> str:
    """A number with its sign; one that would be written as zero without being it, in full."""
    if 0 < abs(value) < 0.5 * 10**-digits:
        return minus(f"{value:+.1e}")
    return minus(f"{value + 0.0:+.{digits}f}")


def minus(text: str) -> str:
    """The typographic minus in place of the hyphen of a formatted number."""
    return text.replace("-", "−")


def shape(dimensions: Sequence[int | str | None] | None) -> str:
    """A shape: "1×64×52×52"."""
    if dimensions is None:
        return ""
    return "×".join("?" if side is None else str(side) for side in dimensions) or "scalar"


def clip(text: str, longest: int = _LONGEST_NAME) -> str:
    """A long name without its middle."""
    if len(text) <= longest:
        return text
    half = (longest - 1) // 2
    return f"{text[:half]}…{text[-half:]}"


def described(site: SitePlan) -> str:
    """What is at a site and what became of it: "Silu", "Silu → Relu"."""
    return site.kind if site.chosen == KEEP else site.change


def described_briefly(site: SitePlan) -> str:
    """The same for a small box, with the new spelling only where the function stays."""
    if site.chosen == KEEP:
        return site.kind
    function, _, spelling = site.chosen.partition(" as ")
    return f"{site.kind} → {spelling or function if function == site.kind else function}"


def chosen_figures(site: SitePlan) -> CandidateFigures | None:
    """The figures of the chosen candidate; None where the site is kept."""
    return next((c for c in site.candidates if c.name == site.chosen), None)
