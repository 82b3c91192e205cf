"""The garment detector: what is committed is what its README says."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import onnx
import pytest
from PIL import Image

import actcc
from actcc.accuracy.built_in import load_metric
from actcc.calibration import load_samples
from actcc.calibration.labels import label_samples
from actcc.graph import Graph
from actcc.runtime import run, session

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "garment_detector"
MODEL = FOLDER / "garment_detector.onnx"


@pytest.fixture(scope="module")
def truth() -> dict[str, Any]:
    content: dict[str, Any] = json.loads((FOLDER / "evaluation.json").read_text())
    return content


def test_the_model_has_the_layout_of_an_exported_yolov8() -> None:
    model = onnx.load(MODEL)
    onnx.checker.check_model(model, full_check=True)
    assert [entry.version for entry in model.opset_import] == [17]
    shapes = {
        value.name: [dimension.dim_value for dimension in value.type.tensor_type.shape.dim]
        for value in (*model.graph.input, *model.graph.output)
    }
    assert shapes == {"images": [1, 3, 128, 128], "output0": [1, 14, 320]}
    assert "BatchNormalization" not in {node.op_type for node in model.graph.node}


def test_every_silu_is_recognised_and_the_sigmoid_of_the_scores_is_no_silu() -> None:
    inspection = actcc.inspect_model(MODEL, "npu1")
    found = {row.activation: 0 for row in inspection.sites}
    for row in inspection.sites:
        found[row.activation] += row.count
    assert found == {"Silu": 56, "Sigmoid": 1}


def test_labels_and_images_belong_together(truth: dict[str, Any]) -> None:
    files = sorted(path.name for path in (FOLDER / "evaluation").iterdir())
    assert files == sorted(image["file_name"] for image in truth["images"])
    assert len(files) == 200
    for path in (*(FOLDER / "evaluation").iterdir(), *(FOLDER / "calibration").iterdir()):
        with Image.open(path) as image:
            assert image.size == (128, 128)
    known = {image["id"] for image in truth["images"]}
    assert {note["image_id"] for note in truth["annotations"]} <= known
    assert {note["category_id"] for note in truth["annotations"]} == set(range(1, 11))
    for note in truth["annotations"]:
        left, top, width, height = note["bbox"]
        assert min(left, top) >= 0
        assert max(left + width, top + height) <= 128.01


def test_the_detector_finds_garments_and_two_ways_of_counting_agree() -> None:
    pytest.importorskip("pycocotools", reason="needs pycocotools; pip install 'actcc[test]'")
    overall, coarse = _evaluate_script().mean_average_precision(MODEL)
    assert overall > 0.75
    assert coarse > 0.82

    metric = load_metric("coco-map")
    samples = load_samples(FOLDER / "evaluation", Graph.load(MODEL), "yolo")
    labelled = label_samples(samples, FOLDER / "evaluation.json")
    runner = session(MODEL)
    seen = [metric.observe(run(runner, sample.inputs), sample) for sample in labelled]
    value = metric.judge(seen, labelled)(seen).value(range(len(seen)))
    assert value == pytest.approx(overall, abs=0.003)


def _evaluate_script() -> Any:
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("garment_evaluate", FOLDER / "evaluate.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
