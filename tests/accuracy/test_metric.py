"""`--metric file.py:function`: loading, evaluating, and one line for what goes wrong."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from actcc.accuracy.metric import Metric, load_metric
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


def test_a_metric_is_named_after_its_function_and_evaluated(code) -> None:
    metric = load_metric(code(TOP1))
    assert metric.name == "top1"
    found = metric.evaluate(OUTPUTS, SAMPLES)
    assert found == 0.5
    assert type(found) is float


def test_a_loaded_metric_travels_to_other_processes(code) -> None:
    received = pickle.loads(pickle.dumps(load_metric(code(TOP1))))
    assert received.evaluate(OUTPUTS, SAMPLES) == 0.5


def test_a_metric_can_be_made_in_python() -> None:
    assert Metric("count", lambda outputs, samples: len(outputs)).evaluate(OUTPUTS, SAMPLES) == 2.0


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
        ("__import__('numpy').zeros(3)", "returned a ndarray; it must return one number"),
        ("outputs[0]['z']", "raised KeyError: 'z', at score.py:1; "),
        ("1 / 0", "raised ZeroDivisionError: division by zero, at score.py:1; "),
    ],
)
def test_what_a_metric_does_wrong_is_said_in_one_line(code, returned, said) -> None:
    metric = load_metric(code(f"def m(outputs, samples): return {returned}"))
    with pytest.raises(DataError) as caught:
        metric.evaluate(OUTPUTS, SAMPLES)
    assert said in str(caught.value)
    assert "score.py:m" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("specification", ["top1", "score.py", "score.txt:top1", "score.py:"])
def test_a_metric_is_given_as_file_and_function(specification: str) -> None:
    with pytest.raises(DataError, match=r"write it as file\.py:function"):
        load_metric(specification)


def test_a_missing_file_or_function_is_named(code) -> None:
    with pytest.raises(DataError, match=r"absent\.py: no such metric file"):
        load_metric("absent.py:top1")
    with pytest.raises(DataError, match="no function 'top5' for the metric; it has: top1"):
        load_metric(code(TOP1).replace(":top1", ":top5"))
