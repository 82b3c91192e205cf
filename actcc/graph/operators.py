"""Operators by the kind of their work."""

from __future__ import annotations

# How nodes name the domain of ONNX's own operators.
ONNX_DOMAINS = (None, "", "ai.onnx")
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
# One element of the result from one of each operand, which broadcast.
ELEMENTWISE = frozenset(
    {
        "Abs",
        "Add",
        "Cast",
        "Ceil",
        "Celu",
        "Clip",
        "Cos",
        "Div",
        "Elu",
        "Erf",
        "Exp",
        "Floor",
        "Gelu",
        "HardSigmoid",
        "HardSwish",
        "Identity",
        "LeakyRelu",
        "Log",
        "Max",
        "Mean",
        "Min",
        "Mish",
        "Mul",
        "Neg",
        "PRelu",
        "Pow",
        "Reciprocal",
        "Relu",
        "Round",
        "Selu",
        "Sigmoid",
        "Sign",
        "Sin",
        "Softplus",
        "Softsign",
        "Sqrt",
        "Sub",
        "Sum",
        "Swish",
        "Tanh",
        "ThresholdedRelu",
    }
)
REDUCTIONS = frozenset(
    {
        "ReduceL1",
        "ReduceL2",
        "ReduceLogSum",
        "ReduceLogSumExp",
        "ReduceMax",
        "ReduceMean",
        "ReduceMin",
        "ReduceProd",
        "ReduceSum",
        "ReduceSumSquare",
    }
)
