"""Whether a model is one at all, before anything is made of it.

ONNX's shape inference and ONNX Runtime can end the whole process on a model without sense: their
standard library checks its arguments and aborts. What could do so runs in a process of its own
first, under a time limit.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import onnx
from onnx import shape_inference

from actcc.errors import ModelError
from actcc.graph import Graph

_LONGEST_REASON = 300
_TIME_LIMIT_S = 120.0
_REFUSALS = (onnx.checker.ValidationError, shape_inference.InferenceError, ValueError, RuntimeError)
_DONE, _RAISED = 0, 1  # exit codes of Python; whatever else is met, the process did not end itself
_INFERENCE = """
import json, sys, onnx
from actcc.graph.shapes import infer_types
model = onnx.ModelProto.FromString(sys.stdin.buffer.read())
infer_types(model, json.loads(sys.argv[1]), {})
"""
_LOADING = """
import sys
from pathlib import Path
from actcc.runtime import session
session(Path(sys.argv[1]))
"""


def require_valid(path: Path, graph: Graph) -> None:
    """Check a model file against the ONNX specification.

    What the specification forbids and ONNX Runtime loads all the same (a newer format, an operator
    of the runtime's own) is let through: its verified result may still be better, and if not, it
    comes back as it is.

    Args:
        graph: the file's, with its input shapes bound.

    Raises:
        ModelError: the model is not valid, and the runtime cannot load it either; or its shapes
            cannot be inferred without harm to the process.
    """
    shapes = json.dumps({name: list(shape) for name, shape in graph.input_shapes.items()})
    ending = _ending(_INFERENCE, shapes, graph.frame().SerializeToString())
    if ending not in (_DONE, _RAISED):  # what it raises is raised again, and said, where it is used
        raise ModelError(
            f"{path}: not a valid ONNX model (ONNX's shape inference {_described(ending)} on it); "
            "check the shapes that its nodes are fed, and export it again"
        )
    try:
        onnx.checker.check_model(str(path))
        _require_known_opset(graph.opset)
    except _REFUSALS as error:
        if _ending(_LOADING, str(path.absolute())) != _DONE:
            reason = " ".join(str(error).split())[:_LONGEST_REASON]
            raise ModelError(
                f"{path}: not a valid ONNX model ({reason}); export it again"
            ) from error


def _ending(script: str, argument: str, given: bytes = b"") -> int | None:
    """Exit code of a Python process, negative for a signal; None where it took too long."""
    with tempfile.TemporaryDirectory(prefix="actcc-validity-") as folder:  # for core dumps
        try:
            return subprocess.run(
                [sys.executable, "-c", script, argument],
                cwd=folder,
                input=given,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                timeout=_TIME_LIMIT_S,
                check=False,
            ).returncode
        except subprocess.TimeoutExpired:
            return None
        except OSError:  # no process can be started: nothing is known
            return _RAISED


def _described(ending: int | None) -> str:
    if ending is None:
        return f"takes longer than {_TIME_LIMIT_S:g} s"
    known = -ending in {number.value for number in signal.Signals}
    return f"crashes ({signal.Signals(-ending).name if known else f'exit code {ending}'})"


def _require_known_opset(opset: int) -> None:
    """The checker knows no operators of an opset to come, and finds nothing wrong with them."""
    newest = onnx.defs.onnx_opset_version()
    if opset > newest:
        raise ValueError(f"opset {opset}; the installed onnx {onnx.__version__} knows {newest}")
