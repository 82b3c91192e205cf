"""An activation removed.

    f(x)  →  x

Approximate, and rarely close: it pays where the activation does little (its input is almost always
on one side), and is the first half of collapsing the layers around it. Runs only when asked for
(`--pass drop-activation`). Inside quantize/dequantize pairs it is not offered: the scale behind the
activation was calibrated for its values.
"""

from __future__ import annotations

from collections.abc import Iterable

from actcc.graph import Graph
from actcc.pass_api import Pass, rewrite
from actcc.passes.swap_activation import activation_sites
from actcc.site import Candidate, Refusal, Site
from actcc.targets import Target


@rewrite("drop-activation", default=False)
class DropActivation(Pass):
    """Activation  →  nothing."""

    def sites(self, graph: Graph) -> Iterable[Site | Refusal]:
        """One site an activation, in topological order."""
        return (entry for entry in activation_sites(graph) if isinstance(entry, Site))

    def candidates(self, site: Site, target: Target) -> Iterable[Candidate | Refusal]:
        """The identity."""
        if site.facts["quantized"]:
            yield Refusal("Identity", "activation inside QDQ: its range was calibrated for it")
        else:
            yield Candidate("Identity")

    def apply(self, graph: Graph, site: Site, candidate: Candidate) -> None:
        """Let the readers read what the activation read."""
        graph.bypass(site, site.reads)
