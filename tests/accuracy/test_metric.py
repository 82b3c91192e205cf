"""Metrics by name, and `--metric file.py:function`: loading, scoring, and what goes wrong."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from actcc.accuracy.built_in import BUILT_IN_METRICS, load_metric
from actcc.accuracy.metric import FunctionMetric, load_function_metric
from actcc.calibration import Sample
from actcc.errors import DataError

OUTPUTS = [{"y": np.array([[0.1, 0.9]])}, {"y": np.array([[0.8, 0.2]])}]
SAMPLES = [Sample(f"#{i}", {}, {"label": np.array(1)}) for i in range(2)]
TOP1 = """
import numpy as np
def top1(outputs, samples):
    pairs = zip(outputs, samples, strict=True)
    return np.mean([o["y"].argmax() == s.annotations["label"] for o, s in pairs])
"""


@pytest.fixture
def code(tmp_path: Path):
    def write(body: str) -> str:
        path = tmp_path / "score.py"
        path.write_text(body)
        return f"{path}:{body.split('def ')[-1].split('(')[0]}"

    return write


def scored(metric: FunctionMetric):
    """Scores of the outputs, by way of what workers observe."""
    found = [
        metric.observe(outputs, sample) for outputs, sample in zip(OUTPUTS, SAMPLES, strict=True)
    ]
    return metric.judge(found, SAMPLES)(found)


def test_a_function_is_named_after_itself_and_called(code) -> None:
    metric = load_function_metric(code(TOP1))
    assert metric.name == "top1"
    scores = scored(metric)
    assert len(scores) == 2
    assert scores.value(np.array([0, 1])) == 0.5
    assert scores.value(np.array([0, 0])) == 1.0


def test_a_loaded_function_travels_to_other_processes(code) -> None:
    received = pickle.loads(pickle.dumps(load_metric(code(TOP1))))
    assert received.call(OUTPUTS, SAMPLES) == 0.5


def test_a_function_can_be_given_in_python() -> None:
    metric = FunctionMetric("count", lambda outputs, samples: len(outputs))
    assert metric.call(OUTPUTS, SAMPLES) == 2.0


def test_a_figure_for_each_sample_is_called_once_and_drawn_from() -> None:
    calls = []

    def hits(outputs, samples):
        calls.append(len(samples))
        return np.array([output["y"].argmax() == 1 for output in outputs])

    scores = scored(FunctionMetric("hits", hits))
    assert scores.value(np.array([0, 1])) == 0.5
    assert scores.value(np.array([1, 1])) == 0.0
    assert calls == [2]
    assert scores.draws > 1000


def test_one_figure_for_all_is_computed_for_every_draw() -> None:
    calls = []
    scores = scored(FunctionMetric("n", lambda outputs, samples: calls.append(0) or len(outputs)))
    assert scores.value(np.array([0, 1, 1])) == 3.0
    assert len(calls) == 2
    assert scores.draws == 100


@pytest.mark.parametrize("name", BUILT_IN_METRICS)
def test_built_in_metrics_have_their_name_and_travel(name: str) -> None:
    metric = pickle.loads(pickle.dumps(load_metric(name)))
    assert metric.name == name


@pytest.mark.parametrize("specification", ["top2", "score.py", "score.txt:top1", "map", ""])
def test_an_unknown_name_lists_the_built_in_metrics(specification: str) -> None:
    with pytest.raises(DataError, match=r"known: fidelity, .*coco-map.*; or write .*file\.py:func"):
        load_metric(specification)


@pytest.mark.parametrize("specification", ["coco-map:", "top1:", "fidelity:"])
def test_nothing_after_the_colon_is_refused(specification: str) -> None:
    with pytest.raises(DataError, match="says nothing after the colon"):
        load_metric(specification)


def test_fidelity_takes_no_argument() -> None:
    with pytest.raises(DataError, match="'fidelity:y': fidelity looks at all outputs"):
        load_metric("fidelity:y")


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("def m(outputs): return 1", "cannot be called as m(outputs, samples)"),
        ("def m(outputs, samples, labels): return 1", "define it as def m(outputs, samples)"),
        ("import nowhere\ndef m(outputs, samples): return 1", "No module named 'nowhere'"),
        ("def m(outputs, samples) return 1", "SyntaxError"),
    ],
)
def test_a_metric_that_cannot_be_called_is_refused_when_it_is_loaded(code, body, said) -> None:
    with pytest.raises(DataError) as caught:
        load_metric(code(body))
    assert said in str(caught.value)
    assert "score.py" in str(caught.value)


@pytest.mark.parametrize(
    ("returned", "said"),
    [
        ("float('nan')", "returned nan; it must return a finite number"),
        ("float('inf')", "returned inf; it must return a finite number"),
        ("None", "returned a NoneType; it must return one number"),
        ("'0.5'", "returned a str; it must return one number"),
        ("[0.5]", "returned a list; it must return one number"),
        ("__import__('numpy').zeros(3)", "an array float64 [3]; it must return one number, or [2]"),
        ("__import__('numpy').array([1, float('nan')])", "returned NaN or infinity"),
        ("outputs[0]['z']", "raised KeyError: 'z', at score.py:1; "),
        ("1 / 0", "raised ZeroDivisionError: division by zero, at score.py:1; "),
    ],
)
def test_what_a_metric_does_wrong_is_said_in_one_line(code, returned, said) -> None:
    metric = load_metric(code(f"def m(outputs, samples): return {returned}"))
    with pytest.raises(DataError) as caught:
        metric.call(OUTPUTS, SAMPLES)
    assert said in str(caught.value)
    assert "score.py:m" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("specification", ["top1", "score.py", "score.txt:top1", "score.py:"])
def test_a_function_is_given_as_file_and_function(specification: str) -> None:
    with pytest.raises(DataError, match=r"write it as file\.py:function"):
        load_function_metric(specification)


def test_a_missing_file_or_function_is_named(code) -> None:
    with pytest.raises(DataError, match=r"absent\.py: no such metric file"):
        load_metric("absent.py:top1")
    with pytest.raises(DataError, match="no function 'top5' for the metric; it has: top1"):
        load_metric(code(TOP1).replace(":top1", ":top5"))
