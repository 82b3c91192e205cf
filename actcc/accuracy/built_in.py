"""Metrics by name: the built-in ones, and `file.py:function`."""

from __future__ import annotations

from actcc.accuracy.fidelity import Fidelity
from actcc.accuracy.metric import Metric, load_function_metric


def load_metric(specification: str) -> Metric:
    """The metric of that name, or of the user's own.

    Args:
        specification: `fidelity`, or `file.py:function`.

    Raises:
        DataError: no such metric, file or function.
    """
    if specification == "fidelity":
        return Fidelity()
    return load_function_metric(specification)
