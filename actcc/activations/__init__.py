"""Activations: their functions, how they are recognised in a graph, and how they are written."""

from actcc.activations.functions import Activation
from actcc.activations.recognise import (
    Match,
    Recognition,
    explain_activations,
    find_activations,
    recognise,
)
from actcc.activations.rounding import cut_off_by_rounding, with_rounding

__all__ = [
    "Activation",
    "Match",
    "Recognition",
    "cut_off_by_rounding",
    "explain_activations",
    "find_activations",
    "recognise",
    "with_rounding",
]
