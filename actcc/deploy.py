"""Files that a device loads in place of the ONNX model, written beside it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from actcc.calibration import Sample, SampleSet
from actcc.errors import DataError, TargetError
from actcc.graph import Graph
from actcc.normalize import normalize
from actcc.prices import Backend
from actcc.targets import Target


@runtime_checkable
class TfliteBackend(Backend, Protocol):
    """A backend whose device loads TFLite files."""

    def tflite_files(self, model: Graph, samples: Sequence[Sample]) -> tuple[bytes, bytes]:
        """The model in int8, and the same file as the device's compiler makes it.

        Args:
            samples: values of the inputs; the ranges that int8 stands for are taken from them.

        Raises:
            PricingError: an operator cannot be lowered or compiled, or there is no such range.
        """


def tflite_paths(output: Path) -> list[Path]:
    """Where the TFLite files of an output go: `net.onnx` → `net.tflite`, `net_vela.tflite`."""
    return [output.with_name(output.stem + ending) for ending in (".tflite", "_vela.tflite")]


@dataclass(frozen=True)
class TfliteFiles:
    """What writes the TFLite files of a model; made before anything long begins.

    Attributes:
        skip: names of normalizing passes to leave out.

    Raises:
        TargetError: the target's device loads no TFLite.
        DataError: there are no calibration samples.
    """

    target: Target
    samples: SampleSet | None
    skip: tuple[str, ...] = ()

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

    def of(self, model: Graph) -> tuple[bytes, bytes]:
        """Contents of the files, in the order of `tflite_paths`.

        Raises:
            PricingError: an operator cannot be lowered or compiled, or a sample leads to a value
                that int8 cannot stand for.
        """
        return self.of_normalized(normalize(model, skip=self.skip).graph)

    def of_normalized(self, graph: Graph) -> tuple[bytes, bytes]:
        """`of` a graph that the normalizing passes have seen."""
        backend = self.target.backend
        assert isinstance(backend, TfliteBackend)
        assert self.samples is not None
        return backend.tflite_files(graph, self.samples)
