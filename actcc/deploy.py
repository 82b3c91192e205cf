"""Files that a device loads in place of the ONNX model, written beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol, runtime_checkable

from actcc.calibration import Sample, SampleSet
from actcc.errors import DataError, TargetError
from actcc.graph import Graph, content_hash
from actcc.int8_fit import Steps, fit_to_int8
from actcc.normalize import normalize
from actcc.prices import Backend
from actcc.repair import MOST_SAMPLES, RepairMethod
from actcc.targets import Target
from actcc.tflite import TfliteModel

Range = tuple[float, float]


@runtime_checkable
class TfliteBackend(Backend, Protocol):
    """A backend whose device loads TFLite files."""

    def ready_for_int8(self, model: Graph, samples: Sequence[Sample]) -> Graph:
        """The model, or one that computes the same and loses less in int8.

        Raises:
            ModelError: the model cannot be run on the samples.
            PricingError: a sample leads to a value that no range holds.
        """

    def int8_ranges(self, model: Graph, samples: Sequence[Sample]) -> Mapping[str, Range]:
        """The least and the greatest value that int8 is to stand for, by tensor.

        Raises:
            ModelError: the model cannot be run on the samples.
            PricingError: a sample leads to a value that no range holds.
        """

    def int8_steps(self, model: Graph, ranges: Mapping[str, Range]) -> Steps:
        """Scale and zero point of each tensor that the device stores in int8, by name.

        Raises:
            PricingError: an operator cannot be lowered.
        """

    def tflite_model(self, model: Graph, ranges: Mapping[str, Range]) -> TfliteModel:
        """The model in int8, and the same file as the device's compiler makes it.

        Raises:
            PricingError: an operator cannot be lowered or compiled.
        """


def tflite_paths(output: Path) -> list[Path]:
    """Where the TFLite files of an output go: `net.onnx` → `net.tflite`, `net_vela.tflite`."""
    return [output.with_name(output.stem + ending) for ending in (".tflite", "_vela.tflite")]


@dataclass(frozen=True)
class TfliteFiles:
    """What makes models int8 files for a target; made before anything long begins.

    Attributes:
        samples: for ranges and weights; the first 64 are used.
        skip: names of normalizing passes to leave out.
        fit: how weights are fitted to feature maps in int8; not at all for the method "none".

    Raises:
        TargetError: the target's device loads no TFLite.
        DataError: there are no calibration samples.
    """

    target: Target
    samples: SampleSet | None
    skip: tuple[str, ...] = ()
    fit: RepairMethod = field(default_factory=RepairMethod)
    _made: dict[str, TfliteModel] = field(
        init=False, repr=False, compare=False, default_factory=dict
    )

    def __post_init__(self) -> None:
        if not isinstance(self.target.backend, TfliteBackend):
            raise TargetError(
                f"--emit-tflite: target '{self.target.name}' has no use for TFLite files; "
                "leave the option out, or choose an Ethos-U target"
            )
        if not self.samples:
            raise DataError(
                "--emit-tflite: int8 ranges are taken from calibration samples; give --calib"
            )

    def of(self, model: Graph) -> TfliteModel:
        """The model in int8; the same model always gives the same files, and is made once.

        Raises:
            PricingError: an operator cannot be lowered or compiled, or a sample leads to a value
                that int8 cannot stand for.
        """
        key = content_hash(model)
        if key not in self._made:
            self._made[key] = self._make(model)
        return self._made[key]

    def _make(self, model: Graph) -> TfliteModel:
        backend = self._backend
        graph = backend.ready_for_int8(normalize(model, skip=self.skip).graph, self._samples)
        ranges = backend.int8_ranges(graph, self._samples)
        if self.fit.name != "none":
            steps = backend.int8_steps(graph, ranges)
            graph = fit_to_int8(graph, steps, self._samples, self.fit)
        return backend.tflite_model(graph, ranges)

    def check(self, graph: Graph) -> None:
        """Whether there can be files of a graph that the normalizing passes have seen.

        Raises:
            PricingError: as `of`.
        """
        ranges = self._backend.int8_ranges(graph, self._samples)
        self._backend.tflite_model(graph, ranges)

    @property
    def _backend(self) -> TfliteBackend:
        backend = self.target.backend
        assert isinstance(backend, TfliteBackend)
        return backend

    @property
    def _samples(self) -> SampleSet:
        assert self.samples is not None
        return self.samples.take(MOST_SAMPLES)
