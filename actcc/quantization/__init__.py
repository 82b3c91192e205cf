"""Layers in int8: which values tensors take, and how a graph says what is computed in int8."""

from actcc.quantization.distribution import Distribution, Range
from actcc.quantization.observe import MOVERS, observed, observed_ranges, observed_tensors

__all__ = ["MOVERS", "Distribution", "Range", "observed", "observed_ranges", "observed_tensors"]
