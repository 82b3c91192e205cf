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
_QUANTILE_99 = 2.5758  # of the standard normal distribution, two-sided
_EXACT_BINOMIAL_UP_TO = 60
_LEAST_TO_JUDGE = 8
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
class Clocks:
    """Two clocks in nanoseconds: one for the samples, one for the limits."""

    samples: Clock = time.perf_counter_ns
    waiting: Clock = time.perf_counter_ns


@dataclass(frozen=True)
class Limits:
    """When sampling ends.

    Attributes:
        time_limit_s: no round is begun after it, warm-up included, except for `min_rounds`.
        precision: end early once every half width is below this share of the latency of run 0.
        min_rounds: eight is the least for an interval of 99 %.
    """

    time_limit_s: float
    precision: float = 0.005
    min_rounds: int = 8
    max_rounds: int = 2_000


def interleaved(
    runs: Sequence[Run], limits: Limits, *, seed: int = 0, clocks: Clocks | None = None
) -> list[Measurement]:
    """Time runs against each other; one measurement for each run, in their order.

    Args:
        seed: of the order within the rounds.
    """
    return interleaved_anew(lambda block: runs, limits, blocks=1, seed=seed, clocks=clocks)


def interleaved_anew(
    prepare: Callable[[int], Sequence[Run]],
    limits: Limits,
    *,
    blocks: int,
    seed: int = 0,
    clocks: Clocks | None = None,
) -> list[Measurement]:
    """`interleaved` in several blocks, for each of which `prepare` makes the runs anew.

    What belongs to one making of a run and not to what it runs, such as where its tensors lie in
    memory, changes from block to block and is averaged out with them. The time limit includes
    `prepare`; blocks that do not fit into it are left out.

    Args:
        prepare: takes the number of the block, from 0.
    """
    return summarise(sample_blocks(prepare, limits, blocks=blocks, seed=seed, clocks=clocks))


def sample_blocks(
    prepare: Callable[[int], Sequence[Run]],
    limits: Limits,
    *,
    blocks: int,
    seed: int = 0,
    clocks: Clocks | None = None,
) -> list[list[float]]:
    """What `interleaved_anew` summarises: nanoseconds of one call, samples[run][round]."""
    clocks = clocks or Clocks()
    deadline = clocks.waiting() + int(limits.time_limit_s * 1e9)
    shuffled = random.Random(seed)
    samples: list[list[float]] = []
    for block in range(blocks):
        runs = prepare(block)
        if not runs:
            return []
        samples = samples or [[] for _ in runs]
        now = clocks.waiting()
        own = Limits(
            max(deadline - now, 0) / (blocks - block) / 1e9,
            limits.precision * math.sqrt(blocks),
            math.ceil(limits.min_rounds / blocks),
            math.ceil(limits.max_rounds / blocks),
        )
        found = _rounds(runs, own, shuffled, clocks)
        del runs  # what they hold is free before the next are made
        for all_blocks, this_block in zip(samples, found, strict=True):
            all_blocks += this_block
        if clocks.waiting() >= deadline and len(samples[0]) >= limits.min_rounds:
            break
    return samples


def _rounds(
    runs: Sequence[Run], limits: Limits, shuffled: random.Random, clocks: Clocks
) -> list[list[float]]:
    deadline = clocks.waiting() + int(limits.time_limit_s * 1e9)
    samples: list[list[float]] = [[] for _ in runs]
    order = list(range(len(runs)))
    next_check = max(limits.min_rounds, _LEAST_TO_JUDGE)
    with _without_garbage_collection():
        calls = _calls_a_sample(runs, clocks.samples)
        for finished in range(limits.max_rounds):
            if finished >= limits.min_rounds and clocks.waiting() >= deadline:
                break
            if finished >= next_check:
                if _precise(samples, limits.precision):
                    break
                next_check = math.ceil(finished * _CHECK_GROWTH)
            shuffled.shuffle(order)
            for index in order:
                samples[index].append(_sample(runs[index], calls, clocks.samples))
    return samples


def summarise(samples: Sequence[Sequence[float]]) -> list[Measurement]:
    """Measurements from samples[run][round] in nanoseconds."""
    found = []
    for own in samples:
        pairs = list(zip(own, samples[0], strict=True))
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
