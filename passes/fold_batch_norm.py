"""A BatchNormalization behind a layer becomes part of the layer's weights and bias.

    γ · (W·x + b − μ) / √(σ² + ε) + β  =  W'·x + b'
    W' = W · s,   b' = (b − μ) · s + β,   s = γ / √(σ² + ε)

How each layer's weights are scaled, and what is required of it, is in `actcc.linear.folding`.
"""

from __future__ import annotations

from collections import Counter

from actcc.graph import Graph
from actcc.linear import Obstacle, fold_batch_norm
from actcc.pass_api import NormalizingPass


class FoldBatchNorm(NormalizingPass):
    """Conv, ConvTranspose or Gemm, then BatchNormalization  →  the layer with other weights."""

    name = "fold-batch-norm"

    def run(self, graph: Graph) -> tuple[Graph, list[str]]:
        """The graph itself, how many were folded, and why the others were not."""
        folded: Counter[str] = Counter()
        kept: dict[str, list[str]] = {}
        for batch_norm in list(graph.nodes("BatchNormalization")):
            outcome = fold_batch_norm(graph, batch_norm)
            if isinstance(outcome, Obstacle):
                kept.setdefault(outcome.reason, []).append(batch_norm.name)
            else:
                folded[outcome.op] += 1
        notes = [f"folded {n} BatchNormalization into {op}" for op, n in sorted(folded.items())]
        for reason, names in kept.items():
            notes.append(f"kept {len(names)} BatchNormalization: {reason} ('{names[0]}')")
        return graph, notes
