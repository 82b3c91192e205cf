"""Distillation: a label-free fine-tune of a rewritten network against the original one.

It needs PyTorch, which is imported when it is asked for: `pip install 'actcc[distill]'`.
"""

from __future__ import annotations

import importlib.util

from actcc.calibration import SampleSet
from actcc.errors import RepairError
from actcc.graph import Graph
from actcc.progress import Advance
from actcc.repair.distill.result import Distilled, SpanFigures

__all__ = ["Distilled", "SpanFigures", "distill", "require_torch"]


def require_torch() -> None:
    """Raises RepairError where PyTorch is not installed."""
    if importlib.util.find_spec("torch") is None:
        raise RepairError(
            "distill: PyTorch is not installed; pip install 'actcc[distill]', or repair in closed "
            "form only"
        )


def distill(
    original: Graph,
    rewritten: Graph,
    samples: SampleSet,
    *,
    time_limit_s: float,
    seed: int = 0,
    advance: Advance = lambda: None,
) -> Distilled:
    """Fine-tune the weights of a rewritten network's layers, from those that it has.

    Blocks of the network in topological order, then all of it at once, are fitted to the original's
    activations and outputs on varied samples. A fifth of the samples is held out: new weights are
    kept only where they lower the loss on those, and in the end only where the outputs have come
    closer. On a GPU where PyTorch sees one, else on as many cores as PyTorch is set to. What it
    finds depends on how many steps the time allows, so it differs from run to run.

    Args:
        original: the network before the rewrite.
        rewritten: the same, rewritten; tensors that mean the same have the same names. It is best
            repaired in closed form already.
        samples: without labels; two at least, better a few dozen.
        time_limit_s: wall time in seconds for everything.
        seed: of the split and of every draw.
        advance: called after each span.

    Returns:
        The network with its new weights, and the figures of each span.

    Raises:
        RepairError: PyTorch is not installed, or the time limit is not above 0.
        DataError: fewer than two samples.
        ModelError: a network does not run.
    """
    if not time_limit_s > 0:
        raise RepairError(
            f"distill: a time limit of {time_limit_s} s leaves no time; give seconds above 0"
        )
    require_torch()
    from actcc.repair.distill.distillation import fine_tune, workers_of_one_thread

    with workers_of_one_thread() as workers:
        return fine_tune(
            original,
            rewritten,
            samples,
            time_limit_s=time_limit_s,
            seed=seed,
            workers=workers,
            advance=advance,
        )
