"""actcc makes an exported ONNX model faster on a device, without training."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from actcc.graph import Graph as Graph
    from actcc.pass_api import NormalizingPass as NormalizingPass
    from actcc.pass_api import Pass as Pass
    from actcc.pass_api import rewrite as rewrite
    from actcc.site import Candidate as Candidate
    from actcc.site import Refusal as Refusal
    from actcc.site import Site as Site

# Loaded on first use, so that `import actcc` and `actcc --help` stay fast.
_EXPORTS = {
    "Candidate": "actcc.site",
    "Graph": "actcc.graph",
    "NormalizingPass": "actcc.pass_api",
    "Pass": "actcc.pass_api",
    "Refusal": "actcc.site",
    "Site": "actcc.site",
    "rewrite": "actcc.pass_api",
}
__all__ = sorted(_EXPORTS)


def __getattr__(name: str) -> Any:
    if name not in _EXPORTS:
        raise AttributeError(f"module 'actcc' has no attribute '{name}'")
    return getattr(importlib.import_module(_EXPORTS[name]), name)


def __dir__() -> list[str]:
    return __all__
