"""The activation behind a layer that is narrower than the layers on both sides removed.

    W₂ ∗ f(W₁ ∗ x + b₁)  →  W₂ ∗ (W₁ ∗ x + b₁)       fewer channels behind W₁ than before and behind

A non-linearity loses information where there are few channels to hold it (linear bottlenecks,
Sandler et al. 2018, section 3.2), so it is missed least there; two linear layers are left, which a
second run may merge. Approximate. `drop-activation` does the same everywhere, when asked for.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import pairwise

from actcc.blocks import Link, find_chains, layer_shape
from actcc.graph import Graph
from actcc.pass_api import rewrite
from actcc.passes.drop_activation import DropActivation
from actcc.site import Refusal, Site


@rewrite("linear-bottleneck")
class LinearBottleneck(DropActivation):
    """Activation behind a layer that is narrower than its neighbours  →  nothing."""

    def sites(self, graph: Graph) -> Iterable[Site | Refusal]:
        """One site for each narrow layer with an activation and a layer behind it."""
        narrow = {
            link.gives
            for chain in find_chains(graph)
            for link, behind in pairwise(chain)
            if not link.gated and _is_narrow(graph, link, behind)
        }
        for entry in super().sites(graph):
            if isinstance(entry, Site) and entry.reads in narrow:
                yield entry


def _is_narrow(graph: Graph, link: Link, behind: Link) -> bool:
    shape, wider = layer_shape(graph, link), layer_shape(graph, behind)
    return (
        shape is not None and wider is not None and shape.outputs < min(shape.inputs, wider.outputs)
    )
