"""Repair: closed-form, training-free re-fit of weights after approximate rewrites.

Three steps, each in a module with its algebra: `affine`, `ridge` with `asymmetric`, `sequential`.
"""

from actcc.repair.fitting import Steps
from actcc.repair.method import MOST_SAMPLES, RepairMethod
from actcc.repair.sequential import DEFAULT_MEMORY, LayerFigures, Repaired, repair

__all__ = [
    "DEFAULT_MEMORY",
    "MOST_SAMPLES",
    "LayerFigures",
    "RepairMethod",
    "Repaired",
    "Steps",
    "repair",
]
