"""The comparison with other quantizers: who sees which images, and what files give and take."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import benchmark_quantizers
import numpy as np
import onnx
import pytest
from networks import Builder
from PIL import Image
from quantizers import with_nncf, with_onnxruntime
from quantizers.job import Job, Quantizer
from quantizers.runs import Runtime, opened, runtime_of, timed

from actcc.accuracy.built_in import load_metric
from actcc.budget import parse_drop
from actcc.calibration import SampleSet, load_samples
from actcc.calibration.labels import label_samples
from actcc.errors import DataError, TargetError
from actcc.graph import Graph
from actcc.job import HELD_OUT_SHARE
from actcc.runtime import run, session
from actcc.targets import Target, load_target

CLASSES, IMAGES, SIZE = 6, 10, 16


def classifier(path: Path, size: int = SIZE, channels: int = 8) -> Path:
    """A network that tells colours apart."""
    build = Builder()
    x = build.add("Relu", build.conv("images", 3, channels))
    x = build.add("Relu", build.conv(x, channels, channels))
    pooled = build.add("Flatten", build.add("GlobalAveragePool", x))
    weight = build.weight(build.random.standard_normal((channels, CLASSES)))
    build.add("MatMul", pooled, weight, output="scores")
    onnx.save(build.model((1, 3, size, size), {"scores": (1, CLASSES)}), path)
    return path


def classes_of(model: Path, samples: SampleSet) -> list[int]:
    runner = session(model)
    return [int(run(runner, sample.inputs)["scores"].argmax()) for sample in samples]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    return classifier(tmp_path / "classifier.onnx")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Images of one colour each."""
    images = tmp_path / "images"
    images.mkdir()
    for number, colour in enumerate(np.random.default_rng(0).integers(0, 256, (IMAGES, 3))):
        Image.new("RGB", (SIZE, SIZE), tuple(colour.tolist())).save(images / f"{number}.png")
    return images


@pytest.fixture
def samples(model: Path, folder: Path) -> SampleSet:
    return load_samples(folder, Graph.load(model), "imagenet")


def labelled(samples: SampleSet, classes: list[int], path: Path) -> SampleSet:
    lines = [f"{name},{known}" for name, known in zip(samples.names, classes, strict=True)]
    path.write_text("\n".join(["file,class", *lines]))
    return label_samples(samples, path)


def short(target: str) -> Runtime:
    """The runtime of a built-in target, measured briefly."""
    profile = load_target(target).profile
    settings = {**profile.settings, "model_seconds": 0.2}
    return runtime_of(Target(profile.model_copy(update={"settings": settings})))


def job(model: Path, samples: SampleSet, control: SampleSet | None = None) -> Job:
    metric, limit = load_metric("top1"), parse_drop("1%")
    return Job(model, model.parent, samples, control, metric, limit, short("cpu"))


def test_no_tool_calibrates_on_the_images_of_accuracy_control(
    model: Path, folder: Path, samples: SampleSet, tmp_path: Path
) -> None:
    labelled(samples, classes_of(model, samples), tmp_path / "labels.csv")
    options = argparse.Namespace(calib=folder, preprocess="imagenet", samples=IMAGES)
    options.calib_labels = tmp_path / "labels.csv"
    graph = Graph.load(model)
    calibration, control = benchmark_quantizers.calibration_images(options, graph)
    assert control is not None
    assert [s.names for s in (calibration, control)] == [
        part.names for part in samples.split(HELD_OUT_SHARE, seed=0)
    ]
    assert all("label" in sample.annotations for sample in control)
    options.calib_labels = None
    calibration, control = benchmark_quantizers.calibration_images(options, graph)
    assert calibration.names == samples.names
    assert control is None


def test_an_image_is_judged_among_all_where_it_makes_no_sense_alone(
    model: Path, samples: SampleSet, tmp_path: Path
) -> None:
    found = classes_of(model, samples)
    wrong = max(number for number, known in enumerate(found) if known > 0)
    classes = [known - (number == wrong) for number, known in enumerate(found)]
    control = labelled(samples, classes, tmp_path / "labels.csv")
    with pytest.raises(DataError, match="class = label"):
        with_nncf.Validation(job(model, samples, control), control[wrong : wrong + 1])
    validate = with_nncf.Validation(job(model, samples, control), control)
    proto = onnx.load(model)
    assert validate(proto, [wrong]) == (0.0, [0.0])
    others = [number for number in range(IMAGES) if number != wrong]
    assert validate(proto, [wrong, *others]) == (0.9, [0.0] + [1.0] * 9)


def compiled(proto: onnx.ModelProto) -> Any:
    openvino = pytest.importorskip("openvino", reason="needs the extra 'openvino'")
    return openvino.compile_model(openvino.Core().read_model(proto.SerializeToString()), "CPU")


@pytest.mark.parametrize("given", [lambda proto: proto, compiled], ids=["onnx", "openvino"])
def test_accuracy_control_looks_at_the_model_that_it_is_given(
    given: Callable[[onnx.ModelProto], Any], model: Path, samples: SampleSet, tmp_path: Path
) -> None:
    control = labelled(samples, classes_of(model, samples), tmp_path / "labels.csv")
    changed = onnx.load(model)
    weight = changed.graph.initializer[-1]
    weight.CopyFrom(onnx.numpy_helper.from_array(-onnx.numpy_helper.to_array(weight), weight.name))
    validate = with_nncf.Validation(job(model, samples, control), control)
    assert validate(given(onnx.load(model)), range(IMAGES))[0] == 1.0
    assert validate(given(changed), range(IMAGES))[0] == 0.0


def test_openvino_gives_and_times_its_own_files_beside_onnx(
    model: Path, samples: SampleSet, tmp_path: Path
) -> None:
    openvino = pytest.importorskip("openvino", reason="needs the extra 'openvino'")
    slow = classifier(tmp_path / "slow.onnx", channels=64)
    ir = tmp_path / "slow.xml"
    openvino.save_model(openvino.Core().read_model(slow), ir, compress_to_fp16=False)
    runtime, feeds = short("openvino-cpu"), samples[0].inputs
    wanted = opened(str(slow), short("cpu"))(feeds)
    for path in (slow, ir):
        given = opened(str(path), runtime)(feeds)
        assert given.keys() == wanted.keys()
        np.testing.assert_allclose(given["scores"], wanted["scores"], rtol=1e-4, atol=1e-5)
    first, second = timed([model, ir], runtime, feeds)
    assert first.ratio == 1.0
    assert second.ratio > 2


def test_a_target_that_runs_nothing_here_is_refused() -> None:
    with pytest.raises(TargetError, match="choose cpu or openvino-cpu"):
        runtime_of(load_target("npu1"))


def test_a_tool_that_fails_has_a_row_with_the_reason(model: Path, samples: SampleSet) -> None:
    def fails(job: Job, path: Path) -> None:
        raise RuntimeError("no such layer")

    quantizer = Quantizer("a tool", ".onnx", fails)
    row = benchmark_quantizers.written(quantizer, job(model, samples), model.parent / "none.onnx")
    assert row.failure.startswith("RuntimeError: no such layer")
    original = benchmark_quantizers.Row("original", model)
    kept = list(
        benchmark_quantizers.scored(
            [original, row],
            short("cpu"),
            labelled(samples, classes_of(model, samples), model.parent / "labels.csv"),
            load_metric("top1"),
        )
    )
    assert benchmark_quantizers.cells(kept[1], kept[0], {})[1].startswith("failed: RuntimeError")


def test_the_table_has_a_row_for_each_model_and_says_that_nncf_is_missing(
    model: Path,
    folder: Path,
    samples: SampleSet,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    labels = model.parent / "labels.csv"
    labelled(samples, classes_of(model, samples), labels)
    profile = model.parent / "short.toml"
    profile.write_text(
        'name = "short"\ndescription = ""\nextends = "cpu"\n[settings]\nmodel_seconds = 0.1\n'
    )
    monkeypatch.setattr(with_nncf, "installed", lambda: False)
    defaults = with_onnxruntime.quantizers(reduce_range=True)[0]  # the others take seconds each
    monkeypatch.setattr(with_onnxruntime, "quantizers", lambda reduce_range: [defaults])
    options = f"--calib {folder} --eval {folder} --labels {labels} --target {profile}"
    fixed = ["--metric", "top1", "--preprocess", "imagenet", "--also", str(model)]
    monkeypatch.setattr(sys, "argv", ["benchmark", str(model), *options.split(), *fixed])
    benchmark_quantizers.main()
    said = capsys.readouterr().out
    assert "nncf is not installed" in said
    rows = [line.split(" | ") for line in said.splitlines() if line.startswith("| ")][2:]
    assert [row[0].partition(",")[0] for row in rows] == [
        "| original",
        "| quantize_static",
        "| actcc",
    ]
    assert not any("failed" in row[1] for row in rows)
    assert rows[-1][4].startswith("0.0000")
