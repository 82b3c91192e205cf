"""Confidence intervals of a drop: as wide as the standard error says, in pairs, and repeatable."""

from dataclasses import dataclass

import numpy as np
import pytest

from actcc.accuracy.bootstrap import drop_interval
from actcc.accuracy.metric import MeanScores
from actcc.errors import DataError

# One-sided 80 % and 95 % points of the normal distribution.
POINTS = {0.8: 0.8416, 0.95: 1.6449}


def hard_and_easy(count: int = 400, noise: float = 0.1) -> tuple[MeanScores, MeanScores]:
    """Samples that differ a lot, on which the second model loses a little, about evenly."""
    generator = np.random.default_rng(0)
    original = generator.normal(0.7, 1.0, count)
    return MeanScores(original), MeanScores(original - generator.normal(0.05, noise, count))


@pytest.mark.parametrize("confidence", POINTS)
def test_the_interval_is_as_wide_as_the_standard_error_says(confidence: float) -> None:
    original, result = hard_and_easy()
    drops = original.of_samples - result.of_samples
    error = drops.std(ddof=1) / 20
    found = drop_interval(original, result, confidence, seed=1)
    reach = POINTS[confidence] * error
    assert found.low == pytest.approx(drops.mean() - reach, abs=0.12 * error)
    assert found.high == pytest.approx(drops.mean() + reach, abs=0.12 * error)


def test_the_bound_holds_as_often_as_it_says() -> None:
    generator = np.random.default_rng(3)
    held = 0
    for trial in range(150):
        drops = generator.normal(0.05, 0.2, 60)
        zero = MeanScores(np.zeros(60), draws=150)
        held += drop_interval(zero, MeanScores(-drops, draws=150), 0.8, seed=trial).high >= 0.05
    assert 0.72 <= held / 150 <= 0.88


def test_what_is_hard_for_both_cancels() -> None:
    original, result = hard_and_easy()
    paired = drop_interval(original, result, 0.8, seed=1)
    unrelated = MeanScores(np.random.default_rng(9).permutation(result.of_samples))
    alone = drop_interval(original, unrelated, 0.8, seed=1)
    assert paired.high - paired.low < 0.1 * (alone.high - alone.low)


def test_what_samples_do_not_show_may_still_be_lost() -> None:
    original, _ = hard_and_easy()
    found = drop_interval(original, original, 0.8, seed=0)
    assert found.low == 0.0
    assert found.high == pytest.approx(
        1 - 0.2 ** (1 / 400)
    )  # missed by 400 samples in 20 % of cases
    assert (1 - found.high) ** 400 == pytest.approx(0.2)


@pytest.mark.parametrize(("count", "rate"), [(12, 0.05), (40, 0.02), (100, 0.01), (1000, 0.01)])
def test_the_bound_holds_where_few_samples_differ(count: int, rate: float) -> None:
    generator = np.random.default_rng(1)
    all_right = MeanScores(np.ones(count), draws=200)
    held = 0
    for trial in range(100):
        wrong = generator.random(count) < rate
        found = drop_interval(all_right, MeanScores(1.0 - wrong, draws=200), 0.8, seed=trial)
        held += found.high >= rate
    assert held / 100 >= 0.7


@dataclass(frozen=True)
class Lopsided:
    """A drop that every draw misses on the same side."""

    whole: float
    drawn: float
    draws: int = 50

    def __len__(self) -> int:
        return 10

    def value(self, indices: np.ndarray) -> float:
        return self.whole if list(indices) == list(range(10)) else self.drawn + 0.001 * indices[0]


@pytest.mark.parametrize("drawn", [0.1, 0.5])
def test_the_interval_always_holds_the_measured_drop(drawn: float) -> None:
    zero = MeanScores(np.zeros(10), draws=50)
    found = drop_interval(zero, Lopsided(-0.3, -drawn), 0.8, seed=0)
    assert found.low <= 0.3 <= found.high
    assert found.low < found.high


def test_the_same_seed_gives_the_same_interval() -> None:
    original, result = hard_and_easy()
    assert drop_interval(original, result, 0.8, 5) == drop_interval(original, result, 0.8, 5)
    assert drop_interval(original, result, 0.8, 5) != drop_interval(original, result, 0.8, 6)


@dataclass(frozen=True)
class Sometimes:
    """Scores that are no number where the first sample was not drawn."""

    figure: float
    draws: int = 50
    count: int = 4

    def __len__(self) -> int:
        return self.count

    def value(self, indices: np.ndarray) -> float:
        return self.figure if (indices < self.count // 2).any() else float("nan")


def test_draws_without_a_figure_are_left_out() -> None:
    found = drop_interval(Sometimes(0.9), Sometimes(0.7), 0.8, seed=0)
    assert found.low == found.high == pytest.approx(0.2)


def test_no_figure_at_all_is_an_error() -> None:
    nowhere = MeanScores(np.full(4, np.nan))
    with pytest.raises(DataError, match="not defined on resampled data; give more samples"):
        drop_interval(nowhere, nowhere, 0.8, seed=0)


@pytest.mark.parametrize("counts", [(1, 1), (4, 5)])
def test_one_sample_or_other_samples_give_no_interval(counts: tuple[int, int]) -> None:
    first, second = (MeanScores(np.zeros(count)) for count in counts)
    with pytest.raises(DataError, match=rf"{counts[0]} and {counts[1]} samples give no interval"):
        drop_interval(first, second, 0.8, seed=0)
