"""actcc makes an exported ONNX model faster on a device, without training."""

from __future__ import annotations

import importlib
import os
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from actcc.apply import apply_plan as apply_plan
    from actcc.budget import Budget as Budget
    from actcc.calibration import Preprocessing as Preprocessing
    from actcc.calibration import load_samples as load_samples
    from actcc.comparison import compare_models as compare_models
    from actcc.errors import ActccError as ActccError
    from actcc.errors import InfeasibleError as InfeasibleError
    from actcc.front import Front as Front
    from actcc.graph import Graph as Graph
    from actcc.inspection import inspect_model as inspect_model
    from actcc.pareto import pareto_front as pareto_front
    from actcc.pass_api import NormalizingPass as NormalizingPass
    from actcc.pass_api import Pass as Pass
    from actcc.pass_api import rewrite as rewrite
    from actcc.pipeline import optimize as optimize
    from actcc.plan import Plan as Plan
    from actcc.rank import rank_model as rank_model
    from actcc.result import Result as Result
    from actcc.site import Candidate as Candidate
    from actcc.site import Refusal as Refusal
    from actcc.site import Site as Site
    from actcc.targets import list_targets as list_targets
    from actcc.targets import load_target as load_target

# In a checkout `passes`, `backends` and `latency_models` lie beside this folder, and Python started
# there finds this folder before the installed package.
_checkout = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
if not os.path.isdir(os.path.join(__path__[0], "passes")) and os.path.isfile(
    os.path.join(_checkout, "pyproject.toml")
):
    __path__.append(_checkout)

# Loaded on first use, so that `import actcc` and `actcc --help` stay fast.
_EXPORTS = {
    "ActccError": "actcc.errors",
    "Budget": "actcc.budget",
    "Candidate": "actcc.site",
    "Front": "actcc.front",
    "Graph": "actcc.graph",
    "InfeasibleError": "actcc.errors",
    "NormalizingPass": "actcc.pass_api",
    "Pass": "actcc.pass_api",
    "Plan": "actcc.plan",
    "Preprocessing": "actcc.calibration",
    "Refusal": "actcc.site",
    "Result": "actcc.result",
    "Site": "actcc.site",
    "apply_plan": "actcc.apply",
    "compare_models": "actcc.comparison",
    "inspect_model": "actcc.inspection",
    "list_targets": "actcc.targets",
    "load_samples": "actcc.calibration",
    "load_target": "actcc.targets",
    "optimize": "actcc.pipeline",
    "pareto_front": "actcc.pareto",
    "rank_model": "actcc.rank",
    "rewrite": "actcc.pass_api",
}
__all__ = sorted(_EXPORTS)


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'actcc' has no attribute '{name}'")
    return getattr(importlib.import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return __all__
