"""`--precision int8`: what can run in int8 does, in whatever the solver makes of the network."""

from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from every_rewrite import Immediately, every_rewrite_target
from networks import Builder, images, saved_with_images

from actcc.apply import apply_plan
from actcc.budget import Budget
from actcc.calibration import load_samples
from actcc.errors import BudgetError, DataError, TargetError
from actcc.graph import Graph, Node
from actcc.neighbourhood import neighbourhoods
from actcc.pareto import pareto_front
from actcc.pass_api import find_sites
from actcc.passes.collapse_convolutions import CollapseConvolutions
from actcc.passes.compress_weights import CompressWeights
from actcc.passes.quantize_layers import QuantizeLayers
from actcc.passes.swap_activation import SwapActivation
from actcc.pipeline import optimize
from actcc.plan import Plan
from actcc.repair import RepairMethod
from actcc.result import Result
from actcc.rewriting import rewrite_network
from actcc.targets import Target, load_target
from actcc.whole_int8 import WholeInt8, find_whole_int8

pytestmark = pytest.mark.usefixtures("simplify_here")
QUANTIZE = QuantizeLayers()
WHOLE = WholeInt8(QUANTIZE, load_target("cpu"))
LAYERS = {"Conv", "ConvTranspose", "Gemm", "MatMul"}


def network() -> onnx.ModelProto:
    """Two convolutions with a SiLU between them, one behind, and a layer that int8 has not."""
    build = Builder()
    x = build.silu(build.conv("images", 3, 8))
    x = build.conv(build.add("Relu", build.conv(x, 8, 8)), 8, 8)
    weight = build.weight(build.random.standard_normal((8, 4, 2, 2)) / 4)
    build.add("ConvTranspose", x, weight, strides=[2, 2], output="y")
    return build.model((1, 3, 16, 16), {"y": (1, 4, 32, 32)})


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return saved_with_images(network(), tmp_path)


def target() -> Target:
    """Says of all that is rewritten that it is faster, and that it runs QuantizeLinear."""
    profile = every_rewrite_target().profile
    return Target(profile.model_copy(update={"settings": {"int8_weight_bits": 8}}))


def run(model: Path, drop: str, **named: object) -> Result:
    plain = {
        "output": model.parent / "fast.onnx",
        "calibration": model.parent / "calib.npz",
        "budget": Budget.parse(max_drop=drop),
        "passes": [SwapActivation(), QUANTIZE],
        "precision": "int8",
        "executor": Immediately(),
        "max_trials": 2,
    }
    return optimize(model, target(), **{**plain, **named})  # type: ignore[arg-type]


def in_float(graph: Graph) -> list[str]:
    """Operators of the layers that read weights in floating point."""

    def is_int8(node: Node) -> bool:
        writer = graph.producer(node.inputs[1])
        return writer is not None and writer.op == "DequantizeLinear"

    return [str(n.op) for n in graph.nodes() if n.op in LAYERS and not is_int8(n)]


def test_everything_that_can_is_in_int8_and_the_rest_has_a_reason(model: Path) -> None:
    result = run(model, "50%")
    assert result.status == "optimized"
    assert in_float(Graph.load(model.parent / "fast.onnx")) == ["ConvTranspose"]
    assert ("quantize-layers", "no int8 kernel computes ConvTranspose") in {
        (name, refusal.reason) for name, refusal in result.refusals
    }
    layers = [s for s in result.plan.sites if s.pass_name == "quantize-layers" and s.kind == "Conv"]
    assert [site.chosen for site in layers] == ["int8"] * 3
    assert result.trials[0].changed == len(result.plan.rewritten)


def test_the_plan_says_so_and_is_applied_again_bit_for_bit(model: Path) -> None:
    result = run(model, "50%")
    plan = Plan.load(model.parent / "fast.onnx.plan.json")
    assert plan == result.plan
    assert plan.settings["precision"] == "int8"
    # A swap was chosen beside int8, so that places behind it are those of the rewritten network.
    assert {site.pass_name for site in plan.rewritten} == {"swap-activation", "quantize-layers"}
    again = model.parent / "again.onnx"
    apply_plan(model, plan, again, calibration=model.parent / "calib.npz")
    assert again.read_bytes() == (model.parent / "fast.onnx").read_bytes()


def test_what_breaks_the_budget_is_not_written_and_the_nearest_is_said(model: Path) -> None:
    result = run(model, "0.0000001abs", repair=RepairMethod("none"))
    assert result.status == "unchanged"
    assert (model.parent / "fast.onnx").read_bytes() == model.read_bytes()
    least = min(trial.drop for trial in result.trials)
    assert f"all in int8 loses {least:.4g} of the allowed 1e-07" in result.reason
    assert "--precision mixed" in result.reason


def test_the_plan_that_keeps_the_rest_is_tried_where_others_lose_too_much(model: Path) -> None:
    alone = run(model, "none", passes=[QUANTIZE], repair=RepairMethod("none"))
    drop = alone.plan.accuracy.bound
    result = run(model, f"{drop + 1e-6:.9f}abs", max_trials=8, repair=RepairMethod("none"))
    assert result.status == "optimized"
    assert {site.pass_name for site in result.plan.rewritten} == {"quantize-layers"}


def test_every_point_of_a_front_is_in_int8(model: Path) -> None:
    from actcc.budget import Amount

    front = pareto_front(
        model, target(), drops=[Amount(0.5, True)], calibration=model.parent / "calib.npz",
        passes=[QUANTIZE], precision="int8", executor=Immediately(), max_trials=1,
    )  # fmt: skip
    assert in_float(front.points[1].graph) == ["ConvTranspose"]


def test_layers_that_a_rewrite_makes_are_in_int8_too() -> None:
    build = Builder()
    x = build.conv("images", 3, 8)
    x = build.conv(build.add("Relu", build.conv(x, 8, 16, kernel=1)), 16, 8, kernel=1)
    build.conv(build.add("Relu", x), 8, 4)
    build.nodes[-1].output[0] = "y"
    graph = Graph.load(build.model((1, 3, 16, 16), {"y": (1, 4, 16, 16)}))
    samples = load_samples(images(8), graph)
    rewrite = CollapseConvolutions()
    sites = find_sites(graph, [rewrite], WHOLE.target, samples=samples)
    (first, *_) = sites.first_candidates
    found = rewrite_network(
        graph, [rewrite, QUANTIZE], [first], repair=None, samples=samples,
        everywhere=lambda network: WHOLE.survey(network, samples),
    )  # fmt: skip
    convolutions = [node for node in found.graph.nodes() if node.op == "Conv"]
    assert len(convolutions) < 4
    assert in_float(found.graph) == []
    assert found.behind is not None
    assert not found.exact


def test_what_is_chosen_is_priced_in_int8() -> None:
    graph = Graph.load(network())
    samples = load_samples(images(8), graph)
    swap = SwapActivation()
    sites = find_sites(graph, [swap], WHOLE.target, samples=samples).sites
    (group, *_), failed = neighbourhoods(graph, sites, [swap], WHOLE.for_prices)
    assert not failed
    parts = [group.query.baseline, *group.query.candidates.values()]
    assert all("Conv" in {node.op for node in part.nodes()} for part in parts)
    assert [in_float(part) for part in parts] == [[]] * len(parts)


def test_nothing_is_stored_in_fewer_bits_that_runs_in_int8() -> None:
    graph = Graph.load(network())
    samples = load_samples(images(8), graph)
    survey = find_sites(graph, [QUANTIZE, CompressWeights()], WHOLE.target, samples=samples)
    left = WHOLE.leave_to_choose(survey)
    assert {site.site.kind for site in survey.sites} >= {"Conv"}
    assert [site.site.kind for site in left.sites if site.pass_name == "quantize-layers"] == []
    assert all(site.site.kind == "ConvTranspose" for site in left.sites)
    assert left.refusals == survey.refusals


def test_without_samples_there_is_nothing_to_find_ranges_on(model: Path) -> None:
    with pytest.raises(DataError, match="--precision int8 needs samples"):
        run(model, "50%", calibration=None, budget=None)


def test_it_is_not_asked_for_and_skipped_at_once(model: Path) -> None:
    with pytest.raises(BudgetError, match="'quantize-layers' does, which is left out"):
        run(model, "50%", passes=None, skip=["quantize-layers"])


def test_a_target_that_does_not_run_such_models_is_refused(model: Path) -> None:
    samples = load_samples(images(2), Graph.load(model))
    with pytest.raises(TargetError, match="npu1"):
        find_whole_int8("int8", load_target("npu1"), [QUANTIZE], samples)


def test_on_ethos_u_it_is_what_the_toolchain_does_anyway(model: Path) -> None:
    pytest.importorskip("ethosu", reason="needs the extra 'ethos-u'")
    samples = load_samples(images(2), Graph.load(model))
    assert find_whole_int8("int8", load_target("ethos-u55-256"), [QUANTIZE], samples) is None
