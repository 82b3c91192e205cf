"""Metrics by name: the built-in ones, and `file.py:function`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from actcc.accuracy.agreement import Agreement
from actcc.accuracy.classification import TopK
from actcc.accuracy.detection.coco_map import CocoMap
from actcc.accuracy.detection.matching import COCO_THRESHOLDS
from actcc.accuracy.fidelity import Fidelity
from actcc.accuracy.metric import Metric, load_function_metric
from actcc.accuracy.segmentation import SegmentationIou
from actcc.errors import DataError


def _fidelity(name: str, argument: str | None) -> Metric:
    if argument is not None:
        raise DataError(f"'{name}': fidelity looks at all outputs; leave out ':{argument}'")
    return Fidelity()


# From the whole specification, for reports, and what follows its colon.
_BUILT_IN: Mapping[str, Callable[[str, str | None], Metric]] = MappingProxyType(
    {
        "fidelity": _fidelity,
        "agreement": Agreement,
        "top1": lambda name, argument: TopK.of(name, 1, argument),
        "top5": lambda name, argument: TopK.of(name, 5, argument),
        "coco-map": lambda name, argument: CocoMap(name, COCO_THRESHOLDS, argument),
        "coco-map50": lambda name, argument: CocoMap(name, COCO_THRESHOLDS[:1], argument),
        "segmentation-iou": SegmentationIou,
    }
)
BUILT_IN_METRICS: tuple[str, ...] = tuple(_BUILT_IN)


def load_metric(specification: str) -> Metric:
    """The metric of that name, or of the user's own; a built-in name wins.

    Args:
        specification: a name of `BUILT_IN_METRICS`, and after a colon how the outputs are to be
            read where their shapes do not tell: `coco-map:yolov5` and `agreement:yolov8` a
            decoder, `top1:logits` and `segmentation-iou:mask` an output, `top1:+1` a background
            class before the labelled ones. Or `file.py:function`.

    Raises:
        DataError: no such metric, decoder, file or function.
    """
    name, colon, argument = specification.partition(":")
    if name in _BUILT_IN:
        if colon and not argument:
            raise DataError(f"metric '{specification}' says nothing after the colon; say {name}")
        return _BUILT_IN[name](specification, argument or None)
    if ".py:" not in specification:
        raise DataError(
            f"no metric is named '{specification}'; known: {', '.join(_BUILT_IN)}; or write your "
            "own as file.py:function"
        )
    return load_function_metric(specification)
