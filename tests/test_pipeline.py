"""`optimize()` from end to end on a small network: what it promises holds for the written file."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import onnx
import pytest
from every_rewrite import Immediately
from networks import Builder

import actcc.search.cpsat
from actcc.budget import Budget
from actcc.errors import BudgetError, InfeasibleError
from actcc.graph import Graph
from actcc.graph.compare import compare
from actcc.pipeline import optimize as run_pipeline
from actcc.plan import Plan
from actcc.repair import RepairMethod
from actcc.result import Result
from actcc.runtime import random_feeds, run, session
from actcc.site import KEEP

pytestmark = pytest.mark.usefixtures("simplify_here")


def optimize(model: object, target: str, **named: object) -> Result:
    """In this process and without a repair, which is most of a run's time."""
    plain = {"executor": Immediately(), "repair": RepairMethod("none")}
    return run_pipeline(model, target, **{**plain, **named})  # type: ignore[arg-type]


@pytest.fixture
def calibration(model: Path) -> Path:
    return model.parent / "calib.npz"


def with_drop(drop: str, **others: str) -> Budget:
    return Budget.parse(max_drop=drop, **others)  # type: ignore[arg-type]


def chosen(result: Result) -> dict[str, str]:
    return {site: name for site, name in result.plan.chosen.items() if name != KEEP}


def test_within_a_wide_budget_the_network_gets_faster(model: Path, calibration: Path) -> None:
    output = model.parent / "fast.onnx"
    result = run_pipeline(
        model, "npu1", output=output, calibration=calibration, budget=with_drop("30%"), workers=1
    )
    assert result.status == "optimized"
    assert result.plan.latency.ratio < 0.95
    figures = result.plan.accuracy
    assert figures is not None
    assert figures.drop <= figures.allowed_drop == pytest.approx(0.3)
    assert figures.samples == 8
    runner = session(output)
    assert set(run(runner, random_feeds(Graph.load(model), 0))) == {"features", "map"}


def test_the_held_out_drop_is_what_a_second_run_measures(model: Path, calibration: Path) -> None:
    from actcc.accuracy.estimate import reference_outputs
    from actcc.accuracy.fidelity import FidelityReference
    from actcc.calibration import load_samples

    result = optimize(model, "npu1", calibration=calibration, budget=with_drop("10%"))
    original = Graph.load(model)
    _, held_out = load_samples(calibration, original).split(0.4, 0)
    reference = FidelityReference(reference_outputs(original, held_out))
    assert result.plan.accuracy is not None
    again = reference.loss(reference_outputs(result.graph, held_out))
    assert result.plan.accuracy.drop == pytest.approx(again, rel=1e-3, abs=1e-7)


def test_without_data_only_exact_candidates_are_chosen(model: Path) -> None:
    result = optimize(model, "npu1")
    for site in result.plan.sites:
        picked = [c for c in site.candidates if c.name == site.chosen]
        assert all(candidate.exact for candidate in picked)
    feeds = [random_feeds(Graph.load(model), seed) for seed in range(3)]
    assert compare(Graph.load(model), result.graph, feeds).worst_relative <= 1e-5


def test_an_output_that_cannot_be_faster_is_the_original_byte_for_byte(tmp_path: Path) -> None:
    source, output = tmp_path / "relu.onnx", tmp_path / "same.onnx"
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    network (float[1, 8] x) => (float[1, 8] y) { y = Relu(x) }
    """
    onnx.save_model(onnx.parser.parse_model(text), source)
    result = optimize(source, "npu1", output=output)
    assert result.status == "unchanged"
    assert "no site" in result.reason
    assert output.read_bytes() == source.read_bytes()
    assert Plan.from_json(Path(f"{output}.plan.json").read_text()) == result.plan


def test_the_same_input_and_seed_give_the_same_plan(model: Path, calibration: Path) -> None:
    arguments = {"calibration": calibration, "budget": with_drop("10%"), "max_trials": 2}
    results = [
        run_pipeline(model, "npu1", **arguments, workers=workers)  # type: ignore[arg-type]
        for workers in (1, 2)
    ]
    assert results[0].plan == results[1].plan


def test_two_devices_get_different_plans(model: Path, calibration: Path) -> None:
    plans = [
        chosen(optimize(model, target, calibration=calibration, budget=with_drop("20%")))
        for target in ("cpu", "npu1")
    ]
    assert plans[0] != plans[1]


def test_nothing_but_output_plan_and_report_is_left_behind(model: Path, calibration: Path) -> None:
    before = set(model.parent.iterdir())
    output = model.parent / "fast.onnx"
    optimize(model, "npu1", output=output, calibration=calibration)
    added = {path.name for path in set(model.parent.iterdir()) - before}
    assert added == {"fast.onnx", "fast.onnx.plan.json", "fast.onnx.report.html"}


def test_the_most_accurate_network_of_a_latency(model: Path, calibration: Path) -> None:
    budget = Budget.parse(max_drop=None, max_latency="85%", objective="accuracy")
    accurate = optimize(model, "npu1", calibration=calibration, budget=budget)
    fast = optimize(model, "npu1", calibration=calibration, budget=with_drop("100%"))
    assert accurate.plan.latency.ratio <= 0.85
    assert accurate.plan.accuracy is not None
    assert fast.plan.accuracy is not None
    assert accurate.plan.accuracy.drop < fast.plan.accuracy.drop


def test_a_memory_budget_is_kept(calibration: Path) -> None:
    """A spelled-out SiLU holds two wide tensors, an activation that fuses holds one."""
    build = Builder()
    wide = build.silu(build.conv(build.conv("images", 3, 16), 16, 64, kernel=1))
    build.conv(wide, 64, 4, kernel=1)
    build.nodes[-1].output[0] = "map"
    network = build.model((1, 3, 16, 16), {"map": (1, 4, 16, 16)})
    budget = with_drop("90%", max_memory="80%")
    result = optimize(network, "npu1", calibration=calibration, budget=budget)
    before, after = result.plan.peak_bytes
    assert after <= 0.8 * before
    assert result.status == "optimized"


def test_a_memory_out_of_reach_names_the_nearest(model: Path, calibration: Path) -> None:
    budget = with_drop("90%", max_memory="10%")
    with pytest.raises(InfeasibleError, match="peak memory") as caught:
        optimize(model, "npu1", calibration=calibration, budget=budget)
    assert caught.value.nearest["max_peak_bytes"] > 0


def test_a_budget_out_of_reach_names_the_nearest(model: Path, calibration: Path) -> None:
    budget = with_drop("1%", max_latency="5%")
    with pytest.raises(InfeasibleError, match="nearest") as caught:
        optimize(model, "npu1", calibration=calibration, budget=budget)
    assert caught.value.nearest["max_cost_ns"] > 0


@pytest.fixture
def interrupted_after_two(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[int]]:
    """Ctrl-C arrives when the third plan is solved."""
    solve = actcc.search.cpsat.solve
    calls: list[int] = []

    def counting(*arguments: object, **named: object) -> object:
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return solve(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(actcc.search.cpsat, "solve", counting)
    return calls


def test_the_best_plan_survives_an_interruption(
    model: Path, calibration: Path, interrupted_after_two: list[int]
) -> None:
    output = model.parent / "fast.onnx"
    result = optimize(
        model, "npu1", output=output, calibration=calibration, budget=with_drop("30%")
    )
    assert len(interrupted_after_two) == 3
    assert result.status == "optimized"
    assert output.exists()


def test_a_metric_of_the_users_own_is_what_the_budget_binds(model: Path, calibration: Path) -> None:
    (model.parent / "metric.py").write_text(
        "def mean(outputs, samples):\n"
        "    assert len(outputs) == len(samples)\n"
        "    return 10.0 - sum(abs(o['map']).mean() for o in outputs) / len(outputs)\n"
    )
    result = optimize(
        model,
        "npu1",
        calibration=calibration,
        metric=f"{model.parent / 'metric.py'}:mean",
        budget=with_drop("0.05abs"),
    )
    figures = result.plan.accuracy
    assert figures is not None
    assert figures.metric == "mean"
    assert figures.allowed_drop == pytest.approx(0.05)
    assert figures.drop <= 0.05


def test_a_pass_can_be_skipped_by_name(model: Path) -> None:
    result = optimize(model, "npu1", skip=["swap-activation"])
    assert result.plan.sites == ()


@pytest.fixture
def failing_from_the_second_site(tmp_path: Path) -> Path:
    """A pass that breaks as soon as it rewrites two sites of one graph."""
    path = tmp_path / "breaking.py"
    path.write_text(
        "import actcc\n"
        "from actcc.passes.swap_activation import SwapActivation\n"
        "@actcc.rewrite('breaking')\n"
        "class Breaking(SwapActivation):\n"
        "    def apply(self, graph, site, candidate):\n"
        "        if any(graph.nodes('Relu')):\n"
        "            raise KeyError('oops')\n"
        "        super().apply(graph, site, candidate)\n"
    )
    return path


def test_a_plan_that_cannot_be_applied_ends_no_other(
    model: Path, calibration: Path, failing_from_the_second_site: Path
) -> None:
    output = model.parent / "fast.onnx"
    result = optimize(
        model,
        "npu1",
        output=output,
        calibration=calibration,
        budget=with_drop("60%"),
        plugins=[failing_from_the_second_site],
        skip=["swap-activation"],
    )
    assert output.exists()
    if result.status == "unchanged":
        assert "pass 'breaking'" in result.reason
        assert "KeyError: 'oops'" in result.reason


def test_a_model_with_weights_beside_it_keeps_them_beside_it(
    model: Path, calibration: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "external"
    folder.mkdir()
    source = folder / "net.onnx"
    onnx.save_model(
        onnx.load(model), source, save_as_external_data=True, location="w", size_threshold=0
    )
    output = tmp_path / "fast.onnx"
    result = optimize(
        source, "npu1", output=output, calibration=calibration, budget=with_drop("30%")
    )
    assert result.status == "optimized"
    assert (tmp_path / "fast.onnx.data").exists()
    assert Graph.load(output).external
    assert run(session(output), random_feeds(Graph.load(source), 0)).keys() == {"features", "map"}


def test_a_plan_without_an_accuracy_limit_survives_json(model: Path, calibration: Path) -> None:
    result = optimize(
        model, "npu1", calibration=calibration, budget=with_drop("none"), max_trials=2
    )
    assert result.plan.accuracy is not None
    assert result.plan.accuracy.allowed_drop is None
    assert Plan.from_json(result.plan.to_json()) == result.plan


def test_the_accuracy_objective_works_without_data(model: Path) -> None:
    budget = Budget.parse(max_latency="100%", objective="accuracy")
    result = optimize(model, "npu1", budget=budget)
    assert result.plan.latency.ratio <= 1.0


def test_no_time_at_all_still_makes_one_trial(model: Path, calibration: Path) -> None:
    result = optimize(model, "npu1", calibration=calibration, time_limit_s=1e-9)
    assert len(result.trials) == 1


def test_a_graph_keeps_the_input_shapes_it_was_loaded_with(tmp_path: Path) -> None:
    text = """
    <ir_version: 8, opset_import: ["" : 17]>
    network (float[batch, 8] x) => (float[batch, 8] y) { s = Sigmoid(x) y = Mul(x, s) }
    """
    graph = Graph.load(onnx.parser.parse_model(text), {"x": (4, 8)})
    result = optimize(graph, "npu1")
    declared = result.graph.to_proto().graph.input[0].type.tensor_type.shape.dim[0]
    assert declared.dim_param == "batch"


class StopsAfter:
    """Progress that interrupts when a number of steps of one stage are done."""

    def __init__(self, title: str, steps: int) -> None:
        self.title, self.steps = title, steps
        self.notes: list[str] = []
        self.done: dict[str, int] = {}

    @contextlib.contextmanager
    def stage(self, title: str, total: int | None = None) -> Iterator[Callable[[], None]]:
        def advance() -> None:
            self.done[title] = self.done.get(title, 0) + 1
            if title == self.title and self.done[title] > self.steps:
                raise KeyboardInterrupt

        yield advance

    def note(self, line: str) -> None:
        self.notes.append(line)


@pytest.mark.parametrize(
    ("stage", "steps"), [("Estimating accuracy", 0), ("Solving and verifying", 0)]
)
def test_an_interrupted_run_is_resumed_and_comes_to_the_same_plan(
    model: Path, calibration: Path, stage: str, steps: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ACTCC_CACHE_DIR", str(model.parent / "cache"))
    arguments = {"calibration": calibration, "budget": with_drop("30%")}
    whole = optimize(model, "npu1", **arguments, max_trials=3)  # type: ignore[arg-type]
    assert not list(model.parent.rglob("*.jsonl"))
    stopped = StopsAfter(stage, steps)
    with pytest.raises(KeyboardInterrupt):
        optimize(model, "npu1", **arguments, max_trials=3, progress=stopped)  # type: ignore[arg-type]
    assert "--resume" in stopped.notes[-1]
    told = StopsAfter("", 0)
    resumed = optimize(model, "npu1", **arguments, max_trials=3, resume=True, progress=told)  # type: ignore[arg-type]
    assert "findings" in told.notes[0]
    assert resumed.plan.chosen == whole.plan.chosen
    assert resumed.plan.result_hash == whole.plan.result_hash
    assert not list(model.parent.rglob("*.jsonl"))


def test_a_preset_sets_the_effort_and_explicit_limits_win(model: Path, calibration: Path) -> None:
    arguments = {"calibration": calibration, "budget": with_drop("5%")}
    quick = optimize(model, "npu1", **arguments, preset="quick")  # type: ignore[arg-type]
    assert 1 <= len(quick.trials) <= 3
    one = optimize(model, "npu1", **arguments, preset="quick", max_trials=1)  # type: ignore[arg-type]
    assert len(one.trials) == 1
    with pytest.raises(BudgetError, match="there are: quick, default, thorough"):
        optimize(model, "npu1", preset="slow")


@pytest.mark.parametrize("names", ["", "same"])
def test_nodes_without_a_name_of_their_own_are_no_obstacle(
    model: Path, calibration: Path, names: str
) -> None:
    proto = onnx.load(model)
    for node in proto.graph.node:
        node.name = names
    onnx.save_model(proto, model)
    result = optimize(model, "npu1", calibration=calibration, budget=with_drop("30%"), max_trials=2)
    assert result.status == "optimized"
