"""On a device of int8 a plan is verified in int8: as the very file that is written."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from every_rewrite import Immediately
from networks import Builder

from actcc import pipeline
from actcc.accuracy.built_in import load_metric
from actcc.budget import Budget
from actcc.calibration import load_samples
from actcc.graph import Array, Graph
from actcc.pareto import pareto_front
from actcc.pass_api import select_passes
from actcc.pipeline import optimize
from actcc.result import Result
from actcc.runtime import run, session
from actcc.verify import Verifier

pytestmark = pytest.mark.usefixtures("simplify_here")
Optimize = Callable[..., Result]
# Each candidate and each trial is a run of Vela.
FEW: dict[str, object] = {
    "executor": Immediately(),
    "max_trials": 1,
    "passes": [found for found in select_passes(None) if found.name == "swap-activation"],
}


@pytest.fixture(autouse=True)
def _installed() -> None:
    pytest.importorskip("ethosu", reason="needs the extra 'ethos-u'")
    pytest.importorskip("ai_edge_litert", reason="needs the extra 'ethos-u'")


class Notes:
    """What a run says, and nothing of its stages."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    @contextlib.contextmanager
    def stage(self, title: str, total: int | None = None) -> Iterator[Callable[[], None]]:
        """See `Progress`."""
        yield lambda: None

    def note(self, line: str) -> None:
        """See `Progress`."""
        self.lines.append(line)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """A SiLU of 8 channels of unlike size in front of a depthwise convolution."""
    draw, build = np.random.default_rng(0), Builder()
    sizes = np.float32(200.0 ** np.linspace(0, 1, 8)).reshape(-1, 1, 1, 1)
    weights = draw.standard_normal((8, 3, 3, 3)).astype(np.float32) / 5
    before = build.add("Conv", "images", build.weight(weights * sizes), pads=[1, 1, 1, 1])
    gated = build.add("Mul", before, build.add("Sigmoid", before))
    taps = draw.standard_normal((8, 1, 3, 3)).astype(np.float32) / sizes
    build.add("Conv", gated, build.weight(taps), output="y", group=8, pads=[1, 1, 1, 1])
    path = tmp_path / "net.onnx"
    Graph.load(build.model((1, 3, 12, 12), {"y": (1, 8, 12, 12)})).save(path)
    for name, count in (("calibration", 12), ("evaluation", 10)):
        values = draw.standard_normal((count, 3, 12, 12)).astype(np.float32)
        np.savez(tmp_path / f"{name}.npz", images=values)
    return path


@pytest.fixture
def run_on(model: Path) -> Optimize:
    def run_it(**named: object) -> Result:
        arguments: dict[str, object] = {
            "output": model.with_name("fast.onnx"),
            "budget": Budget.parse(max_drop="30%"),
            "calibration": model.with_name("calibration.npz"),
            "evaluation": model.with_name("evaluation.npz"),
            **FEW,
            **named,
        }
        return optimize(model, "ethos-u55-256", **arguments)  # type: ignore[arg-type]

    return run_it


def litert(path: Path, values: Array) -> Array:
    """An output in the layout of ONNX, by LiteRT and nothing of the compiler."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    resolver = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
    interpreter = Interpreter(model_path=str(path), experimental_op_resolver_type=resolver)
    interpreter.allocate_tensors()
    ((source,), (result,)) = interpreter.get_input_details(), interpreter.get_output_details()
    scale, zero_point = source["quantization"]
    stored = np.clip(np.round(np.moveaxis(values, 1, -1) / scale) + zero_point, -128, 127)
    interpreter.set_tensor(source["index"], stored.astype(np.int8))
    interpreter.invoke()
    scale, zero_point = result["quantization"]
    found = (interpreter.get_tensor(result["index"]).astype(np.float32) - zero_point) * scale
    return np.moveaxis(found.astype(np.float32), -1, 1)


def test_the_promise_is_what_the_written_file_has(model: Path, run_on: Optimize) -> None:
    result = run_on(emit_tflite=True)
    assert result.status == "optimized"
    graph = Graph.load(model)
    evaluation = load_samples(model.with_name("evaluation.npz"), graph)
    original, metric = session(model), load_metric("fidelity")
    exact = [metric.observe(run(original, s.inputs), s) for s in evaluation]
    written = model.with_name("fast.tflite")
    found = [metric.observe({"y": litert(written, s.inputs["images"])}, s) for s in evaluation]
    value = metric.judge(exact, evaluation)(found).value(np.arange(len(evaluation)))
    accuracy = result.plan.accuracy
    assert accuracy is not None
    assert accuracy.result == pytest.approx(value, abs=1e-7)
    assert accuracy.original == 1.0
    assert accuracy.original_in_int8 is not None
    assert accuracy.original_in_int8 < 1.0
    assert result.plan.settings["verified_in"] == "int8"


def test_the_same_run_writes_the_same_bytes(model: Path, run_on: Optimize) -> None:
    written = [model.with_name(name) for name in ("fast.tflite", "fast_vela.tflite")]
    run_on(emit_tflite=True)
    before = [path.read_bytes() for path in written]
    run_on(emit_tflite=True)
    assert [path.read_bytes() for path in written] == before


def test_latency_is_that_of_the_file(run_on: Optimize, monkeypatch: pytest.MonkeyPatch) -> None:
    verifiers: list[Verifier] = []
    prepare = Verifier.prepare

    def remembered(self: Verifier, advance: Callable[[], None]) -> None:
        verifiers.append(self)
        prepare(self, advance)

    monkeypatch.setattr(Verifier, "prepare", remembered)
    result = run_on(output=None)
    (verifier,) = verifiers
    assert verifier.tflite is not None
    assert result.plan.latency is not None
    assert result.plan.latency.result_ns == verifier.tflite.of(result.graph).timing.latency_ns


def test_an_unchanged_model_promises_what_it_has_in_int8(run_on: Optimize) -> None:
    result = run_on(budget=Budget.parse(max_drop="0.000001%"))
    assert result.status == "unchanged"
    accuracy = result.plan.accuracy
    assert accuracy is not None
    assert accuracy.result == accuracy.original_in_int8


def test_where_int8_alone_breaks_the_budget_it_says_so(run_on: Optimize) -> None:
    notes = Notes()
    result = run_on(budget=Budget.parse(max_drop="0.000001%"), progress=notes)
    said = "int8 alone loses 0.0"
    assert any(said in line and "--precision float" in line for line in notes.lines)
    assert said in result.reason


def test_in_float_precision_is_left_out_of_the_budget(run_on: Optimize) -> None:
    notes = Notes()
    result = run_on(precision="float", progress=notes)
    accuracy = result.plan.accuracy
    assert accuracy is not None
    assert accuracy.original_in_int8 is None
    assert result.plan.settings["verified_in"] == "the precision of the file"
    assert notes.lines == []


def test_without_litert_it_says_what_to_install(
    run_on: Optimize, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "runs_here", lambda: False)
    notes = Notes()
    result = run_on(progress=notes)
    assert any("pip install 'actcc[ethos-u]'" in line for line in notes.lines)
    assert result.plan.accuracy is not None
    assert result.plan.accuracy.original_in_int8 is None


def test_every_point_of_a_front_is_verified_in_int8(model: Path) -> None:
    front = pareto_front(
        model,
        "ethos-u55-256",
        drops=[Budget.parse(max_drop="30%").drop_limit],
        calibration=model.with_name("calibration.npz"),
        evaluation=model.with_name("evaluation.npz"),
        **FEW,  # type: ignore[arg-type]
    )
    assert len(front.points) > 1
    for point in front.points:
        assert point.plan.accuracy is not None
        assert point.plan.accuracy.original_in_int8 is not None
