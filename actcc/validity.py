"""Whether a model is one at all, before anything is made of it."""

from __future__ import annotations

from pathlib import Path

import onnx
from onnx import shape_inference

from actcc.errors import ModelError
from actcc.runtime import session

_LONGEST_REASON = 300
_REFUSALS = (onnx.checker.ValidationError, shape_inference.InferenceError, ValueError, RuntimeError)


def require_valid(path: Path, opset: int) -> None:
    """Check a model file against the ONNX specification.

    What the specification forbids and ONNX Runtime loads all the same (a newer format, an operator
    of the runtime's own) is let through: its verified result may still be better, and if not, it
    comes back as it is.

    Args:
        opset: version of the default operator set that the model imports.

    Raises:
        ModelError: the model is not valid, and the runtime cannot load it either.
    """
    try:
        onnx.checker.check_model(str(path))
        _require_known_opset(opset)
    except _REFUSALS as error:
        try:
            session(path)
        except ModelError:
            reason = " ".join(str(error).split())[:_LONGEST_REASON]
            raise ModelError(
                f"{path}: not a valid ONNX model ({reason}); export it again"
            ) from error


def _require_known_opset(opset: int) -> None:
    """The checker knows no operators of an opset to come, and finds nothing wrong with them."""
    newest = onnx.defs.onnx_opset_version()
    if opset > newest:
        raise ValueError(f"opset {opset}; the installed onnx {onnx.__version__} knows {newest}")
