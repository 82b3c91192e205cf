"""Interleaved timing on a machine whose clock the tests turn."""

from __future__ import annotations

import gc
import random
from collections.abc import Callable

import pytest

from actcc.backends.measure import (
    Clocks,
    Limits,
    interleaved,
    interleaved_anew,
    median_interval,
    sample_blocks,
)


class Machine:
    """A clock that only runs forward when something is run on it."""

    def __init__(self, seed: int = 0) -> None:
        self.now = 0.0
        self.slowness: Callable[[float], float] = lambda now: 1.0
        self.jitter = random.Random(seed)
        self.runs: list[str] = []

    @property
    def clocks(self) -> Clocks:
        return Clocks(self.read, self.read)

    def read(self) -> int:
        return round(self.now)

    def run(self, name: str, latency_ns: float, spread: float = 0.0) -> Callable[[], object]:
        def call() -> None:
            self.runs.append(name)
            share = 1.0 + spread * self.jitter.gauss(0.0, 1.0)
            self.now += latency_ns * max(share, 0.1) * self.slowness(self.now)

        return call


def test_a_known_ratio_is_found_within_its_own_noise() -> None:
    machine = Machine()
    runs = [machine.run("a", 100_000, 0.05), machine.run("b", 130_000, 0.05)]
    first, second = interleaved(runs, Limits(0.2), clocks=machine.clocks)
    assert (first.difference_ns, first.difference_noise_ns) == (0.0, 0.0)
    assert (first.ratio, first.ratio_noise) == (1.0, 0.0)
    assert second.difference_ns == pytest.approx(30_000, abs=second.difference_noise_ns)
    assert second.difference_noise_ns < 3_000
    assert second.ratio == pytest.approx(1.3, abs=second.ratio_noise)
    assert second.latency_ns == pytest.approx(130_000, abs=second.latency_noise_ns)


def test_runs_that_are_equal_do_not_differ_beyond_the_noise() -> None:
    differing = 0
    for seed in range(100):
        machine = Machine(seed)
        runs = [machine.run(name, 100_000, 0.1) for name in "ab"]
        second = interleaved(runs, Limits(0.02), seed=seed, clocks=machine.clocks)[1]
        differing += abs(second.difference_ns) > second.difference_noise_ns
    assert differing <= 3  # 1 expected at 99 %


def test_bursts_that_slow_every_third_stretch_down_do_not_hide_the_ratio() -> None:
    machine = Machine()
    machine.slowness = lambda now: 8.0 if int(now // 3_000_000) % 3 == 0 else 1.0
    runs = [machine.run("a", 100_000, 0.02), machine.run("b", 130_000, 0.02)]
    second = interleaved(runs, Limits(0.3), clocks=machine.clocks)[1]
    assert second.ratio == pytest.approx(1.3, abs=0.02)
    assert second.ratio_noise < 0.03


def test_a_short_run_is_repeated_until_a_sample_is_long_enough_for_the_timer() -> None:
    machine = Machine()
    runs = [machine.run("a", 1_000), machine.run("b", 2_000)]
    limits = Limits(1.0, max_rounds=8)
    first, second = interleaved(runs, limits, clocks=machine.clocks)
    warm_up = 3
    assert machine.runs.count("a") == machine.runs.count("b") == warm_up + 8 * 20
    assert (first.latency_ns, second.latency_ns) == (1_000, 2_000)


def test_sampling_ends_once_the_noise_is_small_enough() -> None:
    machine = Machine()
    steady = interleaved([machine.run("a", 50_000)] * 2, Limits(1.0), clocks=machine.clocks)
    assert steady[0].rounds == 8
    noisy_runs = [machine.run(name, 50_000, 0.1) for name in "ab"]
    noisy = interleaved(noisy_runs, Limits(5.0, precision=0.02), clocks=machine.clocks)
    assert 100 < noisy[0].rounds < 2_000
    assert noisy[1].difference_noise_ns <= 0.02 * noisy[0].latency_ns


def test_no_round_begins_after_the_time_limit_but_the_least_number_is_kept() -> None:
    machine = Machine()
    runs = [machine.run(name, 1e6, 0.2) for name in "abc"]
    measured = interleaved(runs, Limits(0.1, precision=0.0), clocks=machine.clocks)
    assert machine.now < 0.1e9 + 3 * 2e6
    assert 20 < measured[0].rounds < 40
    slow = [machine.run(name, 1e9, 0.2) for name in "ab"]
    assert interleaved(slow, Limits(0.1), clocks=machine.clocks)[0].rounds == 8


def test_the_order_is_shuffled_in_every_round_and_the_seed_decides_it() -> None:
    def order(seed: int) -> str:
        machine = Machine()
        runs = [machine.run(name, 30_000) for name in "abc"]
        interleaved(runs, Limits(1.0, 0.0, max_rounds=20), seed=seed, clocks=machine.clocks)
        return "".join(machine.runs[9:])

    rounds = [order(1)[start : start + 3] for start in range(0, 24, 3)]
    assert all(sorted(one) == ["a", "b", "c"] for one in rounds)
    assert {one[0] for one in rounds} == {"a", "b", "c"}
    assert order(1) == order(1) != order(2)


def test_what_belongs_to_one_making_of_a_run_is_averaged_out_over_the_blocks() -> None:
    machine = Machine()
    made: list[int] = []

    def prepare(block: int) -> list[Callable[[], object]]:
        made.append(block)
        placement = 1.03 if block % 2 else 0.97
        return [machine.run("a", 1e5, 0.01), machine.run("b", 1e5 * placement, 0.01)]

    second = interleaved_anew(prepare, Limits(0.2), blocks=4, clocks=machine.clocks)[1]
    assert made == [0, 1, 2, 3]
    assert abs(second.difference_ns) <= second.difference_noise_ns
    once = interleaved([*prepare(1)], Limits(0.2), clocks=machine.clocks)[1]
    assert once.difference_ns > once.difference_noise_ns


def test_blocks_that_do_not_fit_into_the_time_limit_are_left_out() -> None:
    machine = Machine()
    made: list[int] = []

    def prepare(block: int) -> list[Callable[[], object]]:
        made.append(block)
        machine.now += 0.4e9
        return [machine.run(name, 1e6, 0.1) for name in "ab"]

    samples = sample_blocks(prepare, Limits(1.0, 0.0), blocks=4, clocks=machine.clocks)
    assert made == [0, 1, 2]
    assert len(samples[0]) == len(samples[1]) >= 8


def test_garbage_is_not_collected_while_samples_are_taken() -> None:
    states: list[bool] = []
    interleaved([lambda: states.append(gc.isenabled())], Limits(0.0))
    assert not any(states)
    assert gc.isenabled()


def test_garbage_collection_comes_back_when_a_run_fails() -> None:
    def fail() -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        interleaved([fail], Limits(0.0))
    assert gc.isenabled()


def test_nothing_to_time_gives_no_measurements() -> None:
    assert interleaved([], Limits(1.0)) == []


def test_with_eight_values_or_fewer_the_interval_is_the_whole_range() -> None:
    assert median_interval([1, 2, 3, 4, 5, 6, 7, 20]) == (4.5, 15.5)
    assert median_interval([3.0, 1.0]) == (2.0, 1.0)


@pytest.mark.parametrize("count", [8, 15, 40, 60, 61, 200])
def test_the_interval_holds_the_median_of_a_skewed_distribution_in_99_per_cent(count: int) -> None:
    numbers = random.Random(count)
    held = 0
    trials = 1_500
    for _ in range(trials):
        middle, half_width = median_interval([numbers.expovariate(1.0) for _ in range(count)])
        held += abs(middle - 0.693147) <= half_width
    assert held / trials > 0.985
