"""Every kind of model that exporters write is optimized, or comes back as it was with a reason."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from every_kind import KINDS
from every_rewrite import Immediately, every_rewrite_target
from kind_models import Kind, two_layers
from opset_kinds import at_opset

import actcc.targets
from actcc.budget import Budget
from actcc.calibration import load_samples
from actcc.cli import main
from actcc.graph import Graph
from actcc.graph.compare import compare, exact_tolerance
from actcc.pipeline import optimize
from actcc.plan import Plan
from actcc.result import Result
from actcc.runtime import run, session

SAMPLES = 5
UNPRICED_ON_NPU = {
    "branches on an input": "node 'If_3' (If) holds a subgraph",
    "branches on data": "node 'If_6' (If) holds a subgraph",
    "constants only": "constant or free",
    "functions in branches": "holds a subgraph",
    "functions with branches": "holds a subgraph",
    "loop": "node 'Loop_3' (Loop) holds a subgraph",
    "nested control flow": "holds a subgraph",
    "scan": "node 'Scan_3' (Scan) holds a subgraph",
    "sequence inside": "tensor 'parts' has no static shape",
    "sequence output": "tensor 'parts' has no static shape",
    "sizes that depend on data": "tensor 'where' has no static shape",
}
WITHOUT_INPUTS = ("no inputs", "constants only")
RANDOM = ("no inputs",)


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> actcc.targets.Target:
    """A target on which every rewrite pays."""
    monkeypatch.setattr(actcc.targets, "_BACKENDS", actcc.targets._BACKENDS)
    return every_rewrite_target()


def optimized(kind: Kind, folder: Path, target: object, **others: object) -> Result:
    source = folder / "model.onnx"
    if not source.exists():
        onnx.save_model(kind.model, source)
    return optimize(
        source,
        target,  # type: ignore[arg-type]
        output=folder / "optimized.onnx",
        input_shapes=kind.shapes,
        executor=Immediately(),
        cache=False,
        **others,  # type: ignore[arg-type]
    )


def with_data(kind: Kind) -> dict[str, object]:
    """Arguments that let every approximate rewrite be estimated and chosen."""
    graph = Graph.load(kind.model, kind.shapes or None)
    samples = load_samples([kind.sample(seed) for seed in range(SAMPLES)], graph)
    return {
        "calibration": samples,
        "budget": Budget.parse(max_drop="none"),
        "max_trials": 2,
    }


def agrees(kind: Kind, folder: Path) -> None:
    """The written file gives the original's outputs, to the rounding of its precision."""
    original = Graph.load(folder / "model.onnx", kind.shapes or None)
    paths = folder / "model.onnx", folder / "optimized.onnx"
    assert compare(*paths, [kind.sample(9)]).agrees(exact_tolerance(original))


@pytest.mark.parametrize("name", KINDS)
def test_without_data_on_an_estimated_target(name: str, tmp_path: Path) -> None:
    kind = KINDS[name]()
    result = optimized(kind, tmp_path, "npu1")
    assert result.reason
    assert Plan.load(tmp_path / "optimized.onnx.plan.json") == result.plan
    if name in UNPRICED_ON_NPU:
        assert result.reason.startswith("npu1 cannot price the model: ")
        assert UNPRICED_ON_NPU[name] in result.reason
        assert result.plan.latency is None
        assert result.status == "unchanged"
    if result.status == "unchanged":
        copied = (tmp_path / "optimized.onnx").read_bytes()
        assert copied == (tmp_path / "model.onnx").read_bytes()
    elif name not in RANDOM:
        agrees(kind, tmp_path)


@pytest.mark.parametrize("name", [name for name in KINDS if not KINDS[name]().feeds])
def test_all_exact_rewrites_at_once_keep_the_outputs(
    name: str, tmp_path: Path, eager: actcc.targets.Target
) -> None:
    kind = KINDS[name]()
    result = optimized(kind, tmp_path, eager)
    if name in RANDOM:
        return
    assert result.status == "optimized", result.reason
    agrees(kind, tmp_path)


@pytest.mark.parametrize("name", [name for name in KINDS if name not in WITHOUT_INPUTS])
def test_with_data_every_site_outside_of_subgraphs_is_estimated(
    name: str, tmp_path: Path, eager: actcc.targets.Target
) -> None:
    kind = KINDS[name]()
    result = optimized(kind, tmp_path, eager, **with_data(kind))
    assert result.status == "optimized", result.reason
    assert result.plan.sites
    figures = [candidate for site in result.plan.sites for candidate in site.candidates]
    assert any(candidate.loss is not None for candidate in figures)
    # ONNX Runtime lacks some kernels of double precision; sizes that depend on data have no price.
    reasons = [candidate.reason for candidate in figures if candidate.loss is None]
    assert all("NOT_IMPLEMENTED" in text or "'found' has no static" in text for text in reasons)
    assert result.plan.accuracy is not None
    found, expected = (
        run(session(tmp_path / file), kind.sample(7)) for file in ("optimized.onnx", "model.onnx")
    )
    assert list(found) == list(expected)
    for key, value in expected.items():
        if isinstance(value, np.ndarray) and name != "sizes that depend on data":
            assert (found[key].dtype, found[key].shape) == (value.dtype, value.shape)


@pytest.mark.parametrize("version", range(7, 27))
def test_every_operator_set(version: int, tmp_path: Path, eager: actcc.targets.Target) -> None:
    kind = Kind(at_opset(version))
    # ONNX Runtime 1.31 has no Swish beyond opset 24, and the eager target would choose it.
    skip = ["swap-activation"] if version > 24 else []
    exact = optimized(kind, tmp_path, eager, skip=skip)
    assert exact.status == "optimized", exact.reason
    assert exact.graph.opset == version
    agrees(kind, tmp_path)


@pytest.mark.parametrize("version", [7, 11, 13, 18, 24, 26])
def test_activations_are_found_as_each_operator_set_spells_them(
    version: int, tmp_path: Path
) -> None:
    kind = Kind(at_opset(version))
    result = optimized(kind, tmp_path, "npu1", **with_data(kind))
    kinds = {site.kind for site in result.plan.sites}
    assert {"Silu", "HardSwish", "Relu6", "LeakyRelu", "Elu"} <= kinds
    assert version < 9 or "Gelu" in kinds
    assert result.status == "optimized", result.reason


def functions_with_sites() -> list[str]:
    left = ("functions with branches", "functions that nothing calls", "functions in branches")
    return [name for name in KINDS if "functions" in name and name not in left]


@pytest.mark.parametrize("name", functions_with_sites())
def test_sites_inside_functions_are_rewritten(
    name: str, tmp_path: Path, eager: actcc.targets.Target
) -> None:
    kind = KINDS[name]()
    result = optimized(kind, tmp_path, eager, **with_data(kind))
    assert len(result.plan.sites) >= 2
    assert result.plan.rewritten
    assert not result.graph.functions


@pytest.mark.parametrize(
    ("name", "count"), [("branches on data", 2), ("loop", 1), ("nested control flow", 3)]
)
def test_sites_inside_subgraphs_are_left_with_a_reason(
    name: str, count: int, tmp_path: Path, eager: actcc.targets.Target
) -> None:
    kind = KINDS[name]()
    result = optimized(kind, tmp_path, eager, **with_data(kind))
    activations = [site for site in result.plan.sites if site.pass_name == "swap-activation"]
    assert len(activations) == 2
    assert result.plan.rewritten
    assert any(
        refusal.reason.startswith(f"{count} activation") and "subgraphs" in refusal.reason
        for _, refusal in result.refusals
    )


# -------------------------------------------------------------------- measured targets


@pytest.fixture
def hasty(tmp_path: Path) -> Path:
    """`cpu` with hardly any time to measure in."""
    path = tmp_path / "hasty.toml"
    path.write_text(
        'extends = "cpu"\nname = "hasty"\n[settings]\n'
        "neighbourhood_seconds = 0.01\nmodel_seconds = 0.05\n"
    )
    return path


@pytest.mark.parametrize("name", ["branches on data", "half precision", "functions", "scan"])
def test_a_measured_target_runs_the_model_as_it_is(name: str, tmp_path: Path, hasty: Path) -> None:
    result = optimized(KINDS[name](), tmp_path, hasty)
    assert result.plan.latency is not None
    assert result.plan.latency.original_ns > 0


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("shape as an input", "hasty cannot price the model: ONNX Runtime cannot run it on the"),
        ("text beside images", "hasty cannot price the model: input 'label' is no tensor of num"),
    ],
)
def test_what_does_not_run_on_random_values_is_left_until_there_is_data(
    name: str, said: str, tmp_path: Path, hasty: Path
) -> None:
    kind = KINDS[name]()
    without = optimized(kind, tmp_path, hasty)
    assert without.status == "unchanged"
    assert without.reason.startswith(said)
    assert "--calib" in without.reason
    given = optimized(kind, tmp_path, hasty, **with_data(kind))
    assert given.plan.latency is not None
    assert given.plan.latency.original_ns > 0


# -------------------------------------------------------------------- files and the command line


def in_folder(
    place: Callable[[onnx.ModelProto], None], folder: Path, **options: object
) -> tuple[Kind, Path]:
    model = two_layers()
    place(model)
    onnx.save_model(
        model, folder / "model.onnx", save_as_external_data=True, size_threshold=0, **options
    )
    return Kind(two_layers()), folder / "model.onnx"


@pytest.mark.parametrize("options", [{"location": "w"}, {"all_tensors_to_one_file": False}])
def test_external_data(
    options: dict[str, object], tmp_path: Path, eager: actcc.targets.Target
) -> None:
    kind, _ = in_folder(lambda model: None, tmp_path, **options)
    result = optimized(kind, tmp_path, eager, **with_data(kind))
    assert result.status == "optimized"
    assert (tmp_path / "optimized.onnx.data").exists()
    optimized(kind, tmp_path, "npu1")
    agrees(kind, tmp_path)


def test_external_data_of_constant_nodes(tmp_path: Path, eager: actcc.targets.Target) -> None:
    model = KINDS["weights in constant nodes"]().model
    onnx.save_model(
        model,
        tmp_path / "model.onnx",
        save_as_external_data=True,
        size_threshold=0,
        convert_attribute=True,
    )
    kind = Kind(two_layers())
    assert optimized(kind, tmp_path, eager).status == "optimized"
    agrees(kind, tmp_path)


def test_node_names_that_occur_twice_are_told_apart(tmp_path: Path) -> None:
    model = two_layers()
    for node in model.graph.node:
        node.name = "same"
    assert optimized(Kind(model), tmp_path, "npu1").status == "unchanged"
    kind = Kind(model)
    assert optimized(kind, tmp_path, "npu1", **with_data(kind)).status == "optimized"
    names = [node.name for node in onnx.load(tmp_path / "optimized.onnx").graph.node]
    assert len(set(names)) == len(names)


def test_symbols_need_a_shape_and_stay_symbols(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.onnx"
    onnx.save_model(KINDS["dynamic image"]().model, path)
    with pytest.raises(SystemExit) as caught:
        main(["optimize", str(path), "--target", "npu1", "--quiet"])
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "input 'images'" in said
    assert "--shape images=1x3x1x1" in said
    main(
        [
            *("optimize", str(path), "--target", "npu1", "--quiet", "--workers", "1"),
            *("--shape", "images=1x3x8x8", "-o", str(tmp_path / "optimized.onnx")),
        ]
    )
    written = onnx.load(tmp_path / "optimized.onnx")
    dimensions = written.graph.input[0].type.tensor_type.shape.dim
    assert [d.dim_param or d.dim_value for d in dimensions] == ["N", 3, "H", "W"]


def test_a_model_that_cannot_be_priced_is_no_error_on_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "model.onnx"
    onnx.save_model(KINDS["loop"]().model, path)
    main(["optimize", str(path), "--target", "npu1", "--workers", "1", "--explain"])
    said = capsys.readouterr().out
    assert "unchanged: npu1 cannot price the model: node 'Loop_3' (Loop) holds a subgraph" in said
    assert "1 activation in its subgraphs" in said
    assert "not known" in said
    copied = (tmp_path / "model.optimized.onnx").read_bytes()
    assert copied == path.read_bytes()


def test_there_is_a_kind_for_everything_that_is_promised() -> None:
    assert len(KINDS) >= 40
