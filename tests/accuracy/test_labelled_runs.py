"""Built-in metrics from end to end: labels reach the workers, and the plan has their figures."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from networks import Builder
from PIL import Image

from actcc.budget import Budget
from actcc.errors import DataError
from actcc.pipeline import optimize

pytestmark = pytest.mark.usefixtures("simplify_here", "unrepaired")


CLASSES = 3


@pytest.fixture
def classifier(tmp_path: Path) -> Path:
    """Says which of red, green and blue an image has most of; with a SiLU on the way."""
    build = Builder()
    kernel = build.weight(4 * np.eye(CLASSES)[:, :, None, None])
    active = build.silu(build.add("Conv", "images", kernel))
    build.add("Flatten", build.add("GlobalAveragePool", active), output="logits")
    path = tmp_path / "colours.onnx"
    onnx.save_model(build.model((1, 3, 16, 16), {"logits": (1, CLASSES)}), path)
    return path


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """Eighteen images; the last of each colour lies in a wrong folder."""
    generator = np.random.default_rng(0)
    for index in range(18):
        colour = index % CLASSES
        pixels = generator.integers(0, 100, (16, 16, 3), dtype=np.uint8)
        pixels[:, :, colour] += 60
        place = "rgb"[(colour + (index >= 15)) % CLASSES]
        folder = tmp_path / "images" / f"{'rgb'.index(place)}-{place}"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / f"{index}.png")
    return tmp_path / "images"


def test_class_folders_give_top1_on_the_samples_of_the_verification(
    classifier: Path, images: Path
) -> None:
    result = optimize(
        classifier,
        "npu1",
        calibration=images,
        evaluation=images,
        preprocessing="unit",
        labels="folders",
        metric="top1",
        budget=Budget.parse(max_drop="0.5abs"),
        workers=1,
    )
    figures = result.plan.accuracy
    assert figures is not None
    assert (figures.metric, figures.samples) == ("top1", 18)
    assert figures.original == pytest.approx(15 / 18)
    assert figures.bound <= 0.5


def test_agreement_needs_no_labels(classifier: Path, images: Path) -> None:
    result = optimize(
        classifier,
        "npu1",
        calibration=images,
        preprocessing="unit",
        metric="agreement",
        workers=1,
    )
    assert result.plan.accuracy is not None
    assert result.plan.accuracy.original == 1.0


def test_missing_labels_end_the_run_with_what_to_give(classifier: Path, images: Path) -> None:
    with pytest.raises(DataError, match=r"top1: .*\.png has no label; give --labels"):
        optimize(classifier, "npu1", calibration=images, preprocessing="unit", metric="top1")
