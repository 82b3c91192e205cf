"""Sets of samples: taking, drawing, splitting, remembering."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from actcc.calibration import Sample, SampleSet, load_samples
from actcc.calibration.sample import Remembered
from actcc.errors import DataError


class Counting:
    """A source of 8-byte samples that counts how often each was loaded."""

    def __init__(self, count: int) -> None:
        self.loads = [0] * count

    def __len__(self) -> int:
        return len(self.loads)

    def load(self, index: int) -> Sample:
        self.loads[index] += 1
        return Sample(f"#{index}", {"x": np.full((1, 1), index, np.float64)}, {})


def sample_set(count: int) -> SampleSet:
    return SampleSet("numbers", Counting(count), tuple(range(count)))


@given(st.integers(2, 60), st.floats(0.01, 0.99), st.integers(0, 5))
def test_a_split_is_a_partition_in_order_and_the_same_for_the_same_seed(
    count: int, fraction: float, seed: int
) -> None:
    whole = sample_set(count)
    calibration, held_out = whole.split(fraction, seed)
    assert sorted(calibration.indices + held_out.indices) == list(range(count))
    assert list(calibration.indices) == sorted(calibration.indices)
    assert list(held_out.indices) == sorted(held_out.indices)
    assert len(calibration) >= 1
    assert len(held_out) >= 1
    assert abs(len(held_out) - fraction * count) <= 1
    assert whole.split(fraction, seed)[1].indices == held_out.indices


def test_another_seed_splits_otherwise() -> None:
    whole = sample_set(50)
    assert whole.split(0.5, 0)[0].indices != whole.split(0.5, 1)[0].indices


def test_nothing_may_be_held_out() -> None:
    calibration, held_out = sample_set(5).split(0.0, 0)
    assert (len(calibration), len(held_out)) == (5, 0)


@pytest.mark.parametrize(("count", "fraction"), [(1, 0.5), (5, 1.0), (5, -0.1)])
def test_a_split_that_leaves_a_side_empty_is_refused(count: int, fraction: float) -> None:
    with pytest.raises(DataError):
        sample_set(count).split(fraction, 0)


def test_taking_and_slicing_keep_the_order() -> None:
    whole = sample_set(6)
    assert [s.name for s in whole.take(2)] == ["#0", "#1"]
    assert [s.name for s in whole[4:]] == ["#4", "#5"]
    assert whole[-1].name == "#5"
    assert len(whole.take(100)) == 6
    with pytest.raises(DataError, match="0 samples asked for"):
        whole.take(0)
    with pytest.raises(IndexError):
        whole[6]


def test_a_limit_draws_by_the_seed_from_the_whole_range(model_with) -> None:
    graph = model_with(("x", [1, 1]))
    rows = np.arange(100, dtype=np.float32).reshape(100, 1)
    drawn = load_samples(rows, graph, limit=10, seed=3)
    values = [sample.inputs["x"].item() for sample in drawn]
    assert values == sorted(set(values))
    assert max(values) > 50
    assert drawn.indices == load_samples(rows, graph, limit=10, seed=3).indices
    assert drawn.indices != load_samples(rows, graph, limit=10, seed=4).indices
    with pytest.raises(DataError, match="0 samples asked for"):
        load_samples(rows, graph, limit=0)


def test_samples_are_loaded_when_asked_for_and_remembered_up_to_a_limit() -> None:
    source = Counting(4)
    data = SampleSet("numbers", Remembered(source, limit_bytes=16), (0, 1, 2, 3))
    assert source.loads == [0, 0, 0, 0]
    for _ in range(3):
        assert [s.inputs["x"].item() for s in data] == [0, 1, 2, 3]
    assert source.loads == [1, 1, 3, 3]


def test_remembered_samples_cannot_be_changed_by_a_reader() -> None:
    data = SampleSet("numbers", Remembered(Counting(1), limit_bytes=16), (0,))
    with pytest.raises(ValueError, match="read-only"):
        data[0].inputs["x"][:] = 1
