"""One case of the backend test suite through `optimize()`, and what came of it."""

from __future__ import annotations

import tempfile
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from backend_cases import BackendCase
from every_rewrite import Immediately, every_rewrite_target

from actcc.errors import ActccError
from actcc.graph.compare import compare_outputs
from actcc.graph.operators import RANDOM
from actcc.pipeline import optimize
from actcc.result import Result
from actcc.runtime import session

TOLERANCE = 1e-5
EVERY_REWRITE = "every-rewrite"


@dataclass(frozen=True)
class CaseOutcome:
    """What came of one case on one target.

    Attributes:
        kind: "rewritten" (with equal outputs), "unchanged" (with a reason), or "failed".
        runs: whether ONNX Runtime runs the model as it is; one that it cannot run may be refused
            ("refused"), but nothing may crash.
        detail: the reason, or what went wrong.
        sites: places with a candidate.
    """

    case: str
    target: str
    kind: str
    detail: str
    runs: bool
    sites: int
    seconds: float


def run_case(case: BackendCase, target: str) -> CaseOutcome:
    """Optimize the case's model with exact candidates alone; compare on the case's own inputs."""
    started = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="actcc-suite-") as folder:
        source = Path(folder) / "model.onnx"
        source.write_bytes(case.model)
        expected = run_model(source, case.feeds)
        runs = not isinstance(expected, str)
        kind, detail, sites = _outcome(case, target, source, expected)
    return CaseOutcome(case.name, target, kind, detail, runs, sites, time.monotonic() - started)


def _outcome(
    case: BackendCase, target: str, source: Path, expected: dict[str, Any] | str
) -> tuple[str, str, int]:
    folder, output = source.parent, source.with_name("optimized.onnx")
    model = onnx.ModelProto.FromString(case.model)
    try:
        result = optimize(
            source,
            every_rewrite_target() if target == EVERY_REWRITE else target,
            output=output,
            input_shapes=_shapes(model, case.feeds),
            executor=Immediately(),
            cache=False,
        )
    except ActccError as error:
        left = [path.name for path in folder.iterdir() if path != source]
        if left or not isinstance(expected, str):
            return "failed", f"refused though it runs: {error} {left}", 0
        return "refused", str(error), 0
    except BaseException:
        return "failed", traceback.format_exc(), 0
    return _judged(result, source, output, expected, case, model)


def _judged(
    result: Result,
    source: Path,
    output: Path,
    expected: dict[str, Any] | str,
    case: BackendCase,
    model: onnx.ModelProto,
) -> tuple[str, str, int]:
    sites = len(result.plan.sites)
    if not result.reason:
        return "failed", "no reason is given", sites
    if result.status == "unchanged":
        if output.read_bytes() != source.read_bytes():
            return "failed", "unchanged, but the output has other bytes", sites
        return "unchanged", result.reason, sites
    if isinstance(expected, str):
        return "failed", f"rewritten, though it cannot be run: {expected}", sites
    found = run_model(output, case.feeds)
    if isinstance(found, str):
        return "failed", f"the result cannot be run: {found}", sites
    difference = _difference(expected, found, random=bool(_operators(model) & RANDOM))
    if difference > TOLERANCE:
        return "failed", f"outputs differ by {difference:.1e}", sites
    return "rewritten", result.reason, sites


def run_model(path: Path, feeds: Any) -> dict[str, Any] | str:
    """Outputs by name, or why ONNX Runtime has none."""
    import onnxruntime as ort

    try:
        runner = session(path)
        types = {value.name: value.type for value in onnx.load(path).graph.input}
        values = {
            name: _narrow(value, types[name].tensor_type.elem_type)
            for name, value in feeds.items()
            if name in types and value is not None
        }
        names = [output.name for output in runner.get_outputs()]
        if any(isinstance(value, ort.OrtValue) for value in values.values()):
            given = {
                name: v if isinstance(v, ort.OrtValue) else ort.OrtValue.ortvalue_from_numpy(v)
                for name, v in values.items()
            }
            found = runner.run_with_ort_values(names, given)
            return {name: value.numpy() for name, value in zip(names, found, strict=True)}
        return dict(zip(names, runner.run(names, values), strict=True))
    except Exception as error:  # the runtime raises a dozen unrelated types
        return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def _narrow(value: Any, element: int) -> Any:
    """Types that numpy does not have are handed over as values of the runtime's own."""
    import onnxruntime as ort

    if getattr(getattr(value, "dtype", None), "kind", "") == "V":
        return ort.OrtValue.ortvalue_from_numpy_with_onnx_type(value, element)
    return value


def _difference(expected: dict[str, Any], found: dict[str, Any], *, random: bool) -> float:
    if not random:
        return compare_outputs([expected], [found]).worst_relative
    described = [
        {name: (getattr(v, "shape", None), getattr(v, "dtype", None)) for name, v in run.items()}
        for run in (expected, found)
    ]
    return 0.0 if described[0] == described[1] else float("inf")


def _operators(model: onnx.ModelProto) -> set[str]:
    found: set[str] = set()

    def walk(nodes: Any) -> None:
        for node in nodes:
            found.add(node.op_type)
            for attribute in node.attribute:
                for graph in (attribute.g, *attribute.graphs):
                    walk(graph.node)

    walk(model.graph.node)
    for function in model.functions:
        walk(function.node)
    return found


def _shapes(model: onnx.ModelProto, feeds: Any) -> dict[str, tuple[int, ...]]:
    """Shapes for inputs that declare symbols: those of the case's own inputs."""
    shapes = {}
    for value in model.graph.input:
        declared = value.type.tensor_type
        fixed = all(d.HasField("dim_value") for d in declared.shape.dim)
        open_shape = not (declared.HasField("shape") and fixed)
        if open_shape and value.type.HasField("tensor_type") and value.name in feeds:
            shapes[value.name] = tuple(feeds[value.name].shape)
    return shapes
