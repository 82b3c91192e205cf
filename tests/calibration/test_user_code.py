"""`file.py:function` as calibration data: what it may give, and one line for what it may not."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from actcc.calibration import Sample, load_samples
from actcc.calibration.spool import SpooledSamples
from actcc.errors import DataError

X = "np.ones((1, 2), np.float32)"


@pytest.fixture
def code(tmp_path: Path):
    def write(body: str) -> str:
        path = tmp_path / "calib.py"
        path.write_text(f"import numpy as np\n{body}\n")
        return f"{path}:samples"

    return write


@pytest.fixture
def graph(model_with):
    return model_with(("x", [1, 2]))


@pytest.mark.parametrize(
    "body",
    [
        f"def samples(): return [{{'x': {X} * i}} for i in range(3)]",
        f"def samples():\n    for i in range(3): yield {{'x': {X} * i}}, {{'label': i}}",
        f"def samples(count=3): return ({X} * i for i in range(count))",
        f"from functools import partial\nsamples = partial(map, lambda i: {X} * i, range(3))",
    ],
)
def test_a_function_gives_dicts_pairs_or_arrays(code, graph, body) -> None:
    data = load_samples(code(body), graph)
    assert [sample.inputs["x"][0, 0] for sample in data] == [0, 1, 2]
    assert data[1].name.endswith("calib.py:samples#1")
    if "label" in body:
        assert data[2].annotations["label"].item() == 2


def test_a_limit_stops_an_endless_function(code, graph) -> None:
    specification = code(f"def samples():\n    while True: yield {X}")
    assert len(load_samples(specification, graph, limit=3)) == 3


def test_a_sequence_in_memory_may_hold_samples(graph) -> None:
    mine = Sample("mine", {"x": np.ones((1, 2), np.float32)}, {"label": np.array(7)})
    data = load_samples([mine, {"x": np.zeros((1, 2), np.float32)}], graph)
    assert [sample.name for sample in data] == ["mine", "samples#1"]
    assert data[0].annotations["label"].item() == 7


def test_a_set_is_taken_as_it_is(graph) -> None:
    data = load_samples(np.zeros((5, 2), np.float32), graph)
    assert load_samples(data, graph) is data
    assert len(load_samples(data, graph, limit=2)) == 2


def test_samples_of_a_function_travel_as_a_path(code, model_with) -> None:
    specification = code("def samples(): return [np.ones((500, 2), np.float32)] * 50")
    sent = pickle.dumps(data := load_samples(specification, model_with(("x", [500, 2]))))
    # Names and places are sent, and the path in a name may be long; the arrays are 200 kB.
    assert len(sent) < 0.1 * sum(sample.inputs["x"].nbytes for sample in data)
    np.testing.assert_array_equal(pickle.loads(sent)[49].inputs["x"], data[49].inputs["x"])


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("def samples(): return open('/no/such')", "raised FileNotFoundError: "),
        (f"def samples():\n    yield {X}\n    raise ValueError('two\\nlines')", "two lines"),
        ("def samples(): return 3", "raised TypeError: 'int' object is not iterable"),
        (f"def samples(): return {{'x': {X}}}", "it returned a dict, which is one sample"),
        ("def samples(): return []", "no samples; it must give at least one"),
        ("def samples(): return [{'x': [1, 2]}]", "samples#0: 'x' is a list; give a numpy array"),
        ("def samples(): return [[1, 2]]", "samples#0: a sample is a list; give a dict"),
        (f"def samples(): return [{{'y': {X}}}]", "#0: 'x' is missing; the model's inputs are 'x'"),
        (f"def samples(): return [{{'x': {X}, 'y': {X}}}]", "#0: 'y' is no input"),
        (f"def samples(): return [({{'x': {X}}}, 3)]", "#0: annotations are a int"),
        (f"def samples(): return [{X}, {X}[0]]", "#1: 'x' is float32 [2], the model expects"),
        (f"def samples(): return [{X} * np.inf]", "#0: 'x' holds NaN or infinity"),
        ("def samples(folder): return []", "cannot be called as samples()"),
        ("def other(): return []", "no function 'samples' for the calibration data; it has: other"),
        ("1 / 0", "the calibration data cannot be imported (ZeroDivisionError"),
    ],
)
def test_what_a_function_does_wrong_is_said_in_one_line(code, graph, body, said) -> None:
    with pytest.raises(DataError) as caught:
        load_samples(code(body), graph)
    assert said in str(caught.value)
    assert "calib.py" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_line_that_raised_is_named(code, graph) -> None:
    with pytest.raises(DataError, match=r"at calib\.py:3; "):
        load_samples(code("def samples():\n    return 1 / 0"), graph)


def test_a_missing_file_is_named(graph) -> None:
    with pytest.raises(DataError, match=r"absent\.py: no such calibration data file"):
        load_samples("absent.py:samples", graph)


def test_samples_without_end_stop_at_a_size() -> None:
    sample = Sample("s", {"x": np.zeros(1000)}, {})
    with pytest.raises(DataError, match="limit their number with --samples"):
        SpooledSamples(iter([sample] * 100), "endless", most_bytes=50_000)
