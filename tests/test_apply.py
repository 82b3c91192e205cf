"""`apply_plan()`: the same file again, or a refusal that says what differs and writes nothing."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from every_rewrite import Immediately
from networks import images, residual_network
from onnx import numpy_helper

from actcc.apply import apply_plan
from actcc.budget import Budget
from actcc.errors import PlanError
from actcc.pipeline import optimize
from actcc.plan import Plan
from actcc.repair import RepairMethod

pytestmark = pytest.mark.usefixtures("simplify_here")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("applied")
    onnx.save_model(residual_network(), folder / "network.onnx")
    np.savez(folder / "calib.npz", images=images(20))
    optimize(
        folder / "network.onnx",
        "npu1",
        output=folder / "fast.onnx",
        calibration=folder / "calib.npz",
        budget=Budget.parse(max_drop="30%"),
        skip=["simplify"],
        executor=Immediately(),
        max_trials=2,
    )
    return folder


def test_the_file_is_the_same_bit_for_bit(folder: Path) -> None:
    plan = Plan.load(folder / "fast.onnx.plan.json")
    assert len(plan.rewritten) > 0
    apply_plan(
        folder / "network.onnx",
        folder / "fast.onnx.plan.json",
        folder / "again.onnx",
        calibration=folder / "calib.npz",
    )
    assert (folder / "again.onnx").read_bytes() == (folder / "fast.onnx").read_bytes()


def test_a_plan_that_keeps_everything_copies_the_model(folder: Path) -> None:
    plan = optimize(
        folder / "network.onnx", "npu1", skip=["swap-activation"], executor=Immediately()
    ).plan
    unchanged = not plan.rewritten
    assert unchanged
    apply_plan(folder / "network.onnx", plan, folder / "copy.onnx")
    assert (folder / "copy.onnx").read_bytes() == (folder / "network.onnx").read_bytes()


def test_with_external_weights_the_output_may_have_any_name(folder: Path) -> None:
    model = onnx.load(folder / "network.onnx")
    source = folder / "external.onnx"
    onnx.save_model(model, source, save_as_external_data=True, size_threshold=0, location="w.bin")
    result = optimize(
        source,
        "npu1",
        output=folder / "fast_external.onnx",
        calibration=folder / "calib.npz",
        budget=Budget.parse(max_drop="30%"),
        repair=RepairMethod("none"),
        executor=Immediately(),
        max_trials=1,
    )
    calibration = folder / "calib.npz"
    apply_plan(source, result.plan, folder / "other_name.onnx", calibration=calibration)
    weights = [folder / f"{name}.onnx.data" for name in ("fast_external", "other_name")]
    assert weights[0].read_bytes() == weights[1].read_bytes()


def test_a_plan_of_another_model_is_refused_with_the_first_difference(folder: Path) -> None:
    model = onnx.load(folder / "network.onnx")
    tensor = model.graph.initializer[3]
    values = numpy_helper.to_array(tensor) + 1
    tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    onnx.save_model(model, folder / "retrained.onnx")
    with pytest.raises(PlanError, match=f"weight {tensor.name} is float .* and not float"):
        apply_plan(folder / "retrained.onnx", folder / "fast.onnx.plan.json", folder / "none.onnx")
    assert not (folder / "none.onnx").exists()


def test_another_result_is_refused_with_the_versions_that_differ(folder: Path) -> None:
    plan = Plan.load(folder / "fast.onnx.plan.json")
    other = replace(plan, result_hash="0" * 64, versions={**plan.versions, "onnxsim": "0.1"})
    with pytest.raises(PlanError, match=r"made with onnxsim 0\.1 \(here "):
        apply_plan(
            folder / "network.onnx", other, folder / "none.onnx", calibration=folder / "calib.npz"
        )
    assert not (folder / "none.onnx").exists()
    assert not list(folder.glob(".actcc-*"))


def test_a_site_that_no_pass_finds_is_named(folder: Path) -> None:
    plan = Plan.load(folder / "fast.onnx.plan.json")
    moved = replace(plan.rewritten[0], nodes=("elsewhere",))
    with pytest.raises(PlanError, match=f"the plan rewrites '{moved.id}'"):
        apply_plan(folder / "network.onnx", replace(plan, sites=(moved,)), folder / "none.onnx")


def test_a_late_place_that_is_gone_is_named_too(folder: Path) -> None:
    plan = Plan.load(folder / "fast.onnx.plan.json")
    gone = replace(plan.rewritten[0], id="quantize-layers:gone", pass_name="quantize-layers")
    stale = replace(plan, sites=(*plan.sites, gone))
    with pytest.raises(PlanError, match=r"'quantize-layers:gone' is gone.*another version"):
        apply_plan(
            folder / "network.onnx",
            stale,
            folder / "stale.onnx",
            calibration=folder / "calib.npz",
        )
    assert not (folder / "stale.onnx").exists()


def test_what_is_no_plan_is_refused_with_its_path(folder: Path) -> None:
    for name in ("network.onnx", "absent.json"):
        with pytest.raises(PlanError, match=name):
            apply_plan(folder / "network.onnx", folder / name, folder / "none.onnx")
