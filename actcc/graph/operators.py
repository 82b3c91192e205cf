"""Operators by the kind of their work."""

from __future__ import annotations

# Sums of products in floating point.
CONTRACTIONS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
# Operators that other work fuses into.
HEAVY = CONTRACTIONS | {"QLinearConv", "ConvInteger"}
