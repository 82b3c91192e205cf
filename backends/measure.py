"""Interleaved timing: which of several runs is faster, and by how much, on a noisy machine.

Every round times each run once, in an order that is shuffled anew. What disturbs a machine for
longer than a round (a burst of other work, a change of the clock rate) then falls on all runs
alike and leaves their differences within the round; what is shorter spoils single rounds, which a
median does not see.

The half widths are distribution-free: the interval of a median between two order statistics whose
ranks follow from the binomial distribution (David and Nagaraja, Order Statistics, 2003, §7.1), at
a confidence of 99 %, because a network asks hundreds of such questions.
"""

from __future__ import annotations

import contextlib
import gc
import math
import random
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import repeat
from statistics import median

Run = Callable[[], object]
Clock = Callable[[], int]

# Below this the timer and the loop around it would be a part of the figure.
_SHORTEST_SAMPLE_NS = 20_000
LEAST_ROUNDS = 8
_QUANTILE_99 = 2.5758  # of the standard normal distribution, two-sided
_EXACT_BINOMIAL_UP_TO = 60
_CHECK_GROWTH = 1.25


@dataclass(frozen=True)
class Measurement:
    """One of several runs that were timed interleaved; run 0 is what the others compare with.

    Attributes:
        latency_ns: median of one call.
        latency_noise_ns: half width of the interval in which that median lies.
        difference_ns: median of the differences to run 0, taken round by round.
        difference_noise_ns: half width of the interval in which that difference lies.
        ratio: median of the ratios to run 0, taken round by round.
        ratio_noise: half width of the interval in which that ratio lies.
        rounds: samples of each run.
    """

    latency_ns: float
    latency_noise_ns: float
    difference_ns: float
    difference_noise_ns: float
    ratio: float
    ratio_noise: float
    rounds: int


@dataclass(frozen=True)
class Limits:
    """When sampling ends: see `interleaved`; the deadline is on the clock."""

    deadline_ns: int
    precision: float
    min_rounds: int = LEAST_ROUNDS
    max_rounds: int = 2_000


def interleaved(
    runs: Sequence[Run],
    *,
    time_limit_s: float,
    precision: float = 0.005,
    min_rounds: int = LEAST_ROUNDS,
    max_rounds: int = 2_000,
    seed: int = 0,
    clock: Clock = time.perf_counter_ns,
) -> list[Measurement]:
    """Time runs against each other; one measurement for each run, in their order.

    Args:
        time_limit_s: no round is begun after it, warm-up included, except for `min_rounds`.
        precision: end early once every half width is below this share of the latency of run 0.
        min_rounds: eight is the least for an interval of 99 %.
        seed: of the order within the rounds.
        clock: nanoseconds.
    """
    limits = Limits(clock() + int(time_limit_s * 1e9), precision, min_rounds, max_rounds)
    return summarise(sample_rounds(runs, limits, random.Random(seed), clock))


def interleaved_anew(
    prepare: Callable[[], Sequence[Run]],
    *,
    blocks: int,
    time_limit_s: float,
    precision: float = 0.005,
    min_rounds: int = LEAST_ROUNDS,
    max_rounds: int = 2_000,
    seed: int = 0,
    clock: Clock = time.perf_counter_ns,
) -> list[Measurement]:
    """`interleaved` in several blocks, for each of which `prepare` makes the runs anew.

    What belongs to one making of a run and not to what it runs, such as where its tensors lie in
    memory, changes from block to block and is averaged out with them. The time limit includes
    `prepare`; blocks that do not fit into it are left out.
    """
    deadline = clock() + int(time_limit_s * 1e9)
    shuffled = random.Random(seed)
    samples: list[list[float]] = []
    for block in range(blocks):
        runs = prepare()
        remaining = max(deadline - clock(), 0)
        limits = Limits(
            clock() + remaining // (blocks - block),
            precision * math.sqrt(blocks),
            math.ceil(min_rounds / blocks),
            math.ceil(max_rounds / blocks),
        )
        found = sample_rounds(runs, limits, shuffled, clock)
        samples = samples or [[] for _ in runs]
        for all_blocks, this_block in zip(samples, found, strict=True):
            all_blocks += this_block
        if clock() >= deadline and len(samples[0]) >= min_rounds:
            break
    return summarise(samples)


def sample_rounds(
    runs: Sequence[Run],
    limits: Limits,
    shuffled: random.Random,
    clock: Clock = time.perf_counter_ns,
) -> list[list[float]]:
    """Nanoseconds of one call, samples[run][round]; garbage is not collected meanwhile."""
    samples: list[list[float]] = [[] for _ in runs]
    order = list(range(len(runs)))
    next_check = limits.min_rounds
    with _without_garbage_collection():
        calls = _calls_a_sample(runs, clock)
        for finished in range(limits.max_rounds):
            if finished >= limits.min_rounds and clock() >= limits.deadline_ns:
                break
            if finished >= next_check:
                if _precise(samples, limits.precision):
                    break
                next_check = math.ceil(finished * _CHECK_GROWTH)
            shuffled.shuffle(order)
            for index in order:
                samples[index].append(_sample(runs[index], calls, clock))
    return samples


def summarise(samples: Sequence[Sequence[float]]) -> list[Measurement]:
    """Measurements from samples[run][round] in nanoseconds."""
    reference = samples[0]
    found = []
    for own in samples:
        pairs = list(zip(own, reference, strict=True))
        latency, latency_noise = median_interval(own)
        difference, difference_noise = median_interval([a - b for a, b in pairs])
        ratio, ratio_noise = median_interval([a / b if b else 1.0 for a, b in pairs])
        found.append(
            Measurement(
                latency,
                latency_noise,
                difference,
                difference_noise,
                ratio,
                ratio_noise,
                len(own),
            )
        )
    return found


def median_interval(values: Sequence[float]) -> tuple[float, float]:
    """The median, and the half width of its interval at 99 % confidence.

    With fewer than eight values there is no such interval; it is the whole range then.
    """
    ordered = sorted(values)
    rank = _lower_rank(len(ordered))
    middle = median(ordered)
    return middle, max(middle - ordered[rank], ordered[-1 - rank] - middle)


def _lower_rank(count: int) -> int:
    """Index r from below and above for which P(median outside [x_r, x_-1-r]) is at most 1 %."""
    if count > _EXACT_BINOMIAL_UP_TO:
        return math.floor((count - _QUANTILE_99 * math.sqrt(count)) / 2) - 1
    tail, rank = 0.0, 0
    for successes in range(count // 2):
        tail += math.comb(count, successes) / 2**count
        if tail > 0.005:
            break
        rank = successes
    return rank


def _precise(samples: Sequence[Sequence[float]], precision: float) -> bool:
    measurements = summarise(samples)
    enough = precision * measurements[0].latency_ns
    if len(measurements) == 1:
        return measurements[0].latency_noise_ns <= enough
    return all(found.difference_noise_ns <= enough for found in measurements[1:])


def _calls_a_sample(runs: Sequence[Run], clock: Clock) -> int:
    """Calls in one sample: the same for all runs, so that all meet equally warm caches."""
    shortest = math.inf
    for run in runs:
        run()  # the first calls allocate
        shortest = min(shortest, _sample(run, 1, clock), _sample(run, 1, clock))
    return max(1, math.ceil(_SHORTEST_SAMPLE_NS / max(shortest, 1.0)))


def _sample(run: Run, calls: int, clock: Clock) -> float:
    start = clock()
    for _ in repeat(None, calls):
        run()
    return (clock() - start) / calls


@contextlib.contextmanager
def _without_garbage_collection() -> Iterator[None]:
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
