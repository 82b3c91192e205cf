"""What a quantizer is given, and what it is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from actcc.accuracy.metric import Metric
from actcc.budget import Amount
from actcc.calibration import SampleSet
from actcc.graph import Graph
from quantizers.runs import Runtime

PER_CHANNEL_OPERATOR_SET = 13


@dataclass(frozen=True)
class Job:
    """What a tool is given.

    Attributes:
        folder: for files in between.
        calibration: images without labels.
        control: other images with labels, that accuracy control measures the metric on; None
            without labels.
        max_drop: that accuracy control may spend.
        runtime: that the model is for.
    """

    model: Path
    folder: Path
    calibration: SampleSet
    control: SampleSet | None
    metric: Metric
    max_drop: Amount
    runtime: Runtime

    @cached_property
    def source(self) -> Path:
        """The model, converted where it is below operator set 13.

        DequantizeLinear has its axis from that set on, and without it no scale per channel.
        """
        graph = Graph.load(self.model)
        if graph.opset >= PER_CHANNEL_OPERATOR_SET:
            return self.model
        graph.raise_opset(PER_CHANNEL_OPERATOR_SET)  # by onnx.version_converter
        path = self.folder / "converted.onnx"
        graph.save(path)
        return path

    def pre_processed(self) -> Path:
        """The source as quantize_static wants it: with shapes, and batch norms folded."""
        from onnxruntime.quantization.shape_inference import quant_pre_process

        path = self.folder / "pre_processed.onnx"
        quant_pre_process(self.source, path)
        return path


@dataclass(frozen=True)
class Quantizer:
    """A tool with its settings.

    Attributes:
        name: tool and settings, for the table.
        suffix: of the file that it writes: ".onnx", or ".xml" of OpenVINO.
        write: puts a model at the path.
    """

    name: str
    suffix: str
    write: Callable[[Job, Path], None]
