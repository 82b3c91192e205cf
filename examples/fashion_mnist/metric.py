"""The metric of this example, for ``--metric examples/fashion_mnist/metric.py:top1``."""

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray


class Sample(Protocol):
    """One row of an ``.npz``: the model's inputs, and the arrays that are not inputs."""

    @property
    def name(self) -> str: ...
    @property
    def inputs(self) -> Mapping[str, NDArray[Any]]: ...
    @property
    def annotations(self) -> Mapping[str, NDArray[Any]]: ...


def top1(outputs: Sequence[Mapping[str, NDArray[Any]]], samples: Sequence[Sample]) -> float:
    """Return the share of samples in [0, 1] whose largest logit is the labelled class.

    Each of ``outputs`` holds ``logits`` of shape [1, 10], in the order of ``samples``; each sample
    has the annotation ``labels``, one integer. Raises ``ValueError`` when there is no sample, when
    the two sequences differ in length, or when a sample has no label.
    """
    if not samples:
        raise ValueError("top1: no samples; pass data with at least one row")
    right = 0
    for output, sample in zip(outputs, samples, strict=True):
        if "labels" not in sample.annotations:
            raise ValueError(
                f"top1: sample {sample.name} has no annotation 'labels'; use evaluation.npz, "
                "calibration.npz is unlabelled"
            )
        right += int(np.argmax(output["logits"]) == sample.annotations["labels"].item())
    return right / len(samples)
