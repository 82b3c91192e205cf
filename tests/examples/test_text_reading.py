"""The text models of rapidocr-onnxruntime: HardSwish spelled out, dynamic axes, real weights."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

import actcc
from actcc.graph.compare import compare

FOLDER = Path(__file__).resolve().parents[2] / "examples" / "text_reading"

pytest.importorskip("rapidocr_onnxruntime", reason="needs the extra 'ocr': pip install actcc[ocr]")


@pytest.fixture(scope="module")
def script() -> Iterator[Any]:
    """The walk-through as a module; `script.samples` is the data."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(FOLDER))
        module = importlib.import_module("optimize_text_models")
        yield module


@dataclass(frozen=True)
class Read:
    """A sample whose truth is `text`."""

    annotations: dict[str, Any]

    @classmethod
    def of(cls, text: str) -> Read:
        return cls({"text": np.array([ord(letter) for letter in text])})


def test_hard_swish_spelled_out_is_found_in_the_detector(script: Any) -> None:
    shapes = {"x": script.INPUT_SHAPES["det"]}
    inspection = actcc.inspect_model(script.samples.model_file("det"), "npu1", input_shapes=shapes)
    spelled = [row for row in inspection.sites if row.activation == "HardSwish"]
    assert sum(row.count for row in spelled) == 24
    assert {row.spelling for row in spelled} == {"Add+Clip+Mul+Div"}
    assert inspection.parameters > 1_000_000  # Constant nodes hold them


def test_the_recogniser_gets_faster_and_keeps_its_symbolic_axes(
    script: Any, tmp_path: Path
) -> None:
    result = script.optimize("rec", "npu1", tmp_path, "1%", exact=True, count=None)
    assert result.status == "optimized"
    assert result.plan.latency.ratio < 0.95
    before = onnx.load(script.samples.model_file("rec"))
    after = onnx.load(tmp_path / "recogniser.onnx")
    assert list(after.graph.input) == list(before.graph.input)
    assert list(after.graph.output) == list(before.graph.output)
    assert list(before.metadata_props) == list(after.metadata_props)[: len(before.metadata_props)]
    wider = np.random.default_rng(0).uniform(-1, 1, (2, 3, 48, 480)).astype(np.float32)
    assert compare(before, after, [{"x": wider}]).worst_relative < 1e-4


def test_calibration_and_held_out_text_share_no_word(script: Any) -> None:
    data = script.samples
    assert not set(data.CALIBRATION_WORDS.split()) & set(data.HELD_OUT_WORDS.split())


def test_character_accuracy_counts_what_is_missing_and_what_is_too_much(script: Any) -> None:
    data = script.samples
    columns = [data.alphabet().index(letter) if letter else 0 for letter in ("a", "a", "", "a")]
    read_aa = np.eye(len(data.alphabet()), dtype=np.float32)[columns][None]
    for truth, share in (("aa", 1.0), ("aab", 2 / 3), ("a", 0.5)):
        assert data.character_accuracy([{"y": read_aa}], [Read.of(truth)]) == pytest.approx(share)
