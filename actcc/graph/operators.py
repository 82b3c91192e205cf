"""Operators by the kind of their work."""

from __future__ import annotations

# Sums of products in floating point.
CONTRACTIONS = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})
# Operators that other work fuses into.
HEAVY = CONTRACTIONS | {"QLinearConv", "ConvInteger"}
# Results that differ from run to run.
RANDOM = frozenset(
    {
        "Bernoulli",
        "Dropout",
        "Multinomial",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
    }
)
# What carries the precision of a layer.
PRECISION = frozenset({"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear"})
