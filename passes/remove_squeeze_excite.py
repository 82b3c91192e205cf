"""A squeeze-and-excitation removed, its gate standing still.

    x · g(mean(x))   →   x        and, by the repair,   W ∗ (x · ḡ)  =  (W · ḡ) ∗ x

A mean over all positions holds up devices that work tile by tile. What the gate does on average, ḡ
for each channel, scales the inputs of the layer behind it: the repair finds it, as it finds any
scale, in the regression of what that layer read on what it reads now, and folds it into weights.
Approximate. Cheaper gates (HardSigmoid for Sigmoid) are among the swaps.

Requires: a layer behind it, through nothing but changes of layout; otherwise ḡ would be lost.
"""

from __future__ import annotations

from collections.abc import Iterable

from actcc.blocks import find_gates
from actcc.graph import Graph
from actcc.graph.operators import CONTRACTIONS
from actcc.pass_api import Pass, rewrite
from actcc.site import Candidate, Refusal, Site
from actcc.targets import Target

_LAYOUT = frozenset({"Transpose", "Reshape"})
_NO_LAYER = "no layer reads the product alone, into which the mean of the gate could be folded"


@rewrite("remove-squeeze-excite")
class RemoveSqueezeExcite(Pass):
    """Squeeze-and-excitation  →  its mean gate, in the layer behind it."""

    def sites(self, graph: Graph) -> Iterable[Site | Refusal]:
        """One site a squeeze-and-excitation."""
        for gate in find_gates(graph):
            if _feeds_a_layer(graph, gate.writes):
                yield Site(gate.nodes, gate.reads, gate.writes, "squeeze-excite")
            else:
                yield Refusal(gate.writes, _NO_LAYER)

    def candidates(self, site: Site, target: Target) -> Iterable[Candidate | Refusal]:
        """The gate at its mean."""
        yield Candidate("mean gate")

    def apply(self, graph: Graph, site: Site, candidate: Candidate) -> None:
        """Let the readers read what the gate read."""
        graph.bypass(site, site.reads)


def _feeds_a_layer(graph: Graph, name: str) -> bool:
    """Whether a layer alone reads the tensor, with an activation before it or not."""
    readers = graph.consumers(name)
    while len(readers) == 1 and readers[0].op in _LAYOUT and not graph.is_output(name):
        name = readers[0].outputs[0].name
        readers = graph.consumers(name)
    alone = len(readers) == 1 and not graph.is_output(name)
    return alone and readers[0].op in CONTRACTIONS and readers[0].inputs[0].name == name
