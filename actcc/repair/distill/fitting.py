"""The fit of one span: Adam (Kingma & Ba 2015) with a cosine schedule over the time it has.

A held-out loss is taken at the start, a few times on the way and at the end. Where it has not
fallen since the last time, the fit goes back to the best weights and halves its rate; the best are
kept, or those of the start, where nothing is better.

A step's samples are split among workers, threads that compute with one thread of PyTorch each. Its
own threads spin behind every operator until the last has ended: two of them on two busy cores are
several times as slow as one alone.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from actcc.graph import Array
from actcc.repair.distill.augmentation import varied
from actcc.repair.distill.feeding import Batch
from actcc.repair.distill.network import Tensors
from actcc.repair.distill.parameters import Parameter
from actcc.repair.distill.problem import Problem

Feeds = Mapping[str, Array]

LARGEST_BATCH = 8
_HELD_OUT_CHUNK = 4
_STEPS_FOR_A_BATCH = 200
_CHECKS = 8
_AVERAGED_STEPS = 30
_LEAST_GAIN = 1e-4
_WARM_UP = 0.05
_POOL = 24
_STEEPEST = 1.0


@dataclass(frozen=True)
class Settings:
    """How a span is fitted.

    Attributes:
        rate: the largest step, in deviations of a layer's output.
        reuse: how many steps are made for each batch that is run through both networks.
        workers: among which a step's samples are split.
    """

    rate: float
    reuse: int
    seed: int
    workers: int = 1


@dataclass(frozen=True)
class Fit:
    """What a fit came to.

    Attributes:
        weights: of the least held-out loss, by name.
    """

    weights: Tensors
    steps: int
    before: float
    after: float


class _Course:
    """Where the free weights have been: their running average, and the best place so far.

    Single steps are noisy, and their average over the last ones is what is worth a look (Polyak &
    Juditsky 1992).
    """

    def __init__(
        self, parameters: Sequence[Parameter], held_out_loss: Callable[[Tensors], float]
    ) -> None:
        self._parameters, self._held_out_loss = parameters, held_out_loss
        self.free = [parameter.free for parameter in parameters]
        self._average = [free.detach().clone() for free in self.free]
        self._best = [free.detach().clone() for free in self.free]
        self.start = self.least = held_out_loss(self.weights(self._best))
        self._steps = 0

    def weights(self, free: Sequence[torch.Tensor]) -> Tensors:
        """Weights by name at a place."""
        pairs = zip(self._parameters, free, strict=True)
        return {parameter.name: parameter.at(place.detach()) for parameter, place in pairs}

    def best(self) -> Tensors:
        """The weights of the least held-out loss."""
        return self.weights(self._best)

    def stepped(self) -> None:
        """Take the present place into the average."""
        self._steps += 1
        share = 1 / min(self._steps, _AVERAGED_STEPS)
        for average, free in zip(self._average, self.free, strict=True):
            average.lerp_(free.detach(), share)

    def check(self) -> bool:
        """Whether the average is the best place so far; else go back to the one that is."""
        loss = self._held_out_loss(self.weights(self._average))
        if loss < self.least - _LEAST_GAIN:
            self.least = loss
            self._best = [average.clone() for average in self._average]
            return True
        with torch.no_grad():
            for free, best in zip(self.free, self._best, strict=True):
                free.copy_(best)
        self._average = [best.clone() for best in self._best]
        self._steps = 0
        return False


def fit(
    problem: Problem,
    train: Callable[[int], Feeds],
    count: int,
    held_out: Sequence[Feeds],
    deadline: float,
    settings: Settings,
) -> Fit:
    """Fit a span until its deadline.

    Args:
        train: gives training sample `index` below `count`.
        deadline: on the clock of `time.monotonic`.
    """
    # A new thread has all of PyTorch's until it asks how many it may have.
    with ThreadPoolExecutor(settings.workers, initializer=torch.get_num_threads) as pool:
        chunks = [
            problem.feeder.batch(held_out[low : low + _HELD_OUT_CHUNK])
            for low in range(0, len(held_out), _HELD_OUT_CHUNK)
        ]
        parameters = problem.parameters(chunks[0])
        checked = time.monotonic()
        course = _Course(parameters, lambda found: _held_out_loss(problem, chunks, found, pool))
        if problem.losses.is_negligible(course.start):
            return Fit({}, 0, course.start, course.start)
        check_s = time.monotonic() - checked
        source = _Source(problem, train, count, settings, pool)
        end = deadline - 1.5 * check_s
        descent = _Descent(problem, parameters, source, course, pool, settings.rate)
        descent.run(end)
        if descent.steps:
            course.check()
        return Fit(course.best(), descent.steps, course.start, course.least)


class _Source:
    """Batches of varied samples, one for each worker; each serves several steps, among others."""

    def __init__(
        self,
        problem: Problem,
        train: Callable[[int], Feeds],
        count: int,
        settings: Settings,
        pool: ThreadPoolExecutor,
    ) -> None:
        self._problem, self._train, self._count = problem, train, count
        self._random = np.random.default_rng(settings.seed)
        self._reuse, self._workers, self._threads = settings.reuse, settings.workers, pool
        self._pool: list[list[Batch]] = []
        self._size = 1

    def draw(self, step: int) -> list[Batch]:
        """The batches of a step."""
        if step % self._reuse == 0 or not self._pool:
            drawn = self._random.permutation(self._count)[: self._size * self._workers]
            feeds = varied([self._train(int(index)) for index in drawn], self._random)
            parts = [feeds[first :: self._workers] for first in range(self._workers)]
            batches = list(self._threads.map(self._problem.feeder.batch, filter(None, parts)))
            if self._reuse > 1:
                self._pool = [*self._pool[-_POOL + 1 :], batches]
            return batches
        return self._pool[int(self._random.integers(len(self._pool)))]

    def widen(self, steps: float) -> int:
        """More samples a step, where there is time for so many of one; returns how many."""
        most = math.ceil(LARGEST_BATCH / self._workers)
        self._size = int(min(max(steps / _STEPS_FOR_A_BATCH, 1), most))
        return self._size


@dataclass
class _Descent:
    """Steps downhill, until a time; where a check finds no gain, the rate is halved.

    Attributes:
        rate: the largest step from here on.
        steps: made so far.
    """

    problem: Problem
    parameters: Sequence[Parameter]
    source: _Source
    course: _Course
    pool: ThreadPoolExecutor
    rate: float
    steps: int = 0

    def run(self, end: float) -> None:
        """Steps until `end`, on the clock of `time.monotonic`."""
        optimiser = self._optimiser()
        began = time.monotonic()
        longest, checks = 0.0, 1
        while (now := time.monotonic()) + longest < end:
            part = (now - began) / (end - began)
            if part > checks / _CHECKS:
                checks += 1
                if not self.course.check():
                    self.rate /= 2
                    optimiser = self._optimiser()
                continue
            for group in optimiser.param_groups:
                group["lr"] = self.rate * _schedule(part)
            self._step(optimiser)
            taken = time.monotonic() - now
            longest = max(0.7 * longest, taken)
            if self.steps == 2:  # the first one warms up
                longest *= self.source.widen((end - time.monotonic()) / taken)

    def _optimiser(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.course.free, betas=(0.9, 0.99))

    def _step(self, optimiser: torch.optim.Optimizer) -> None:
        free, batches = self.course.free, self.source.draw(self.steps)
        slopes = zip(*self.pool.map(self._slopes, batches), strict=True)
        for tensor, parts in zip(free, slopes, strict=True):
            found = [part for part in parts if part is not None]
            tensor.grad = torch.stack(found).sum(0) / len(batches) if found else None
        if math.isfinite(float(torch.nn.utils.clip_grad_norm_(free, _STEEPEST))):
            optimiser.step()
        self.course.stepped()
        self.steps += 1

    def _slopes(self, batch: Batch) -> tuple[torch.Tensor | None, ...]:
        values = {parameter.name: parameter.value for parameter in self.parameters}
        loss = self.problem.loss(batch, values)
        return torch.autograd.grad(loss, self.course.free, allow_unused=True)


def _schedule(part: float) -> float:
    """Up within the first part, and down to nothing (Loshchilov & Hutter 2017)."""
    warm = min(1.0, 0.1 + part / _WARM_UP)
    return warm * 0.5 * (1 + math.cos(math.pi * min(part, 1.0)))


def _held_out_loss(
    problem: Problem, batches: Sequence[Batch], weights: Tensors, pool: ThreadPoolExecutor
) -> float:
    """The mean over batches; infinite where it is no number."""

    def loss(batch: Batch) -> float:
        with torch.no_grad():  # of this thread
            return float(problem.loss(batch, weights))

    mean = sum(pool.map(loss, batches)) / len(batches)
    return mean if math.isfinite(mean) else math.inf
