"""Initializers that are listed as inputs become constants.

Exporters before ONNX IR 4 (and `keep_initializers_as_inputs=True` since) list every weight as an
input with a default value, which a caller may override. No rewrite may rely on such a weight.

Requires: nobody overrides a weight when running the model. Callers that do skip this pass by name.
"""

from __future__ import annotations

from actcc.graph import Graph
from actcc.pass_api import NormalizingPass


class FreezeInitializers(NormalizingPass):
    """Input with a default value  →  constant."""

    name = "freeze-initializers"

    def run(self, graph: Graph) -> tuple[Graph, list[str]]:
        """The graph itself, and how many initializers were frozen."""
        if not graph.overridable:
            return graph, []
        frozen = graph.freeze_initializers()
        return graph, [f"{len(frozen)} initializers that were listed as inputs are constants now"]
