"""What was chosen, as colours: one for each function that took a site's place."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from actcc.plan import SitePlan
from actcc.report.formats import chosen_figures
from actcc.site import KEEP

_COLOURS = 7  # that report.css tells apart: .c1 to .c7
_KEPT, _RESPELLED, _OTHER = "keep", "exact", "other"


@dataclass(frozen=True)
class Entry:
    """One line of the legend.

    Attributes:
        colour: the CSS class.
        label: what was chosen, in words.
        sites: how many.
    """

    colour: str
    label: str
    sites: int


@dataclass(frozen=True)
class Legend:
    """The colour of every site."""

    entries: tuple[Entry, ...]
    colours: tuple[str, ...]

    @classmethod
    def of(cls, sites: Sequence[SitePlan]) -> Legend:
        """Colours by how often something was chosen; the rarest share one."""
        choices = [_choice(site) for site in sites]
        counts = Counter(choices)
        functions = sorted(counts.keys() - {_KEPT, _RESPELLED}, key=lambda f: (-counts[f], f))
        colours = {_KEPT: _KEPT, _RESPELLED: _RESPELLED}
        colours |= {name: f"c{index}" for index, name in enumerate(functions[:_COLOURS], 1)}
        entries = [Entry(colours[name], name, counts[name]) for name in functions[:_COLOURS]]
        rest = functions[_COLOURS:]
        if rest:
            entries.append(Entry(_OTHER, ", ".join(rest), sum(counts[name] for name in rest)))
        if counts[_RESPELLED]:
            label = "the same function, rewritten exactly"
            entries.append(Entry(_RESPELLED, label, counts[_RESPELLED]))
        if counts[_KEPT]:
            entries.append(Entry(_KEPT, "kept as it is", counts[_KEPT]))
        return cls(tuple(entries), tuple(colours.get(choice, _OTHER) for choice in choices))

    def shown_site(self, sites: Sequence[int]) -> int | None:
        """The site that gives a box its colour: one that was rewritten, if there is one."""
        rewritten = (site for site in sites if self.colours[site] != _KEPT)
        return next(rewritten, sites[0] if sites else None)


def _choice(site: SitePlan) -> str:
    if site.chosen == KEEP:
        return _KEPT
    figures = chosen_figures(site)
    if figures is not None and figures.exact:
        return _RESPELLED
    return site.chosen.split(" as ")[0]
