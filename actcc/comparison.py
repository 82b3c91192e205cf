"""Two models side by side: outputs, latency on a target, size, operators."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import onnx

from actcc.calibration import Preprocessing, load_samples
from actcc.errors import DataError, ModelError
from actcc.graph import Graph, static_types
from actcc.graph.compare import OutputComparison, compare_outputs
from actcc.graph.files import side_file
from actcc.graph.macs import count_macs, count_parameters
from actcc.graph.shapes import TensorType
from actcc.prices import Timing
from actcc.runtime import random_feeds
from actcc.targets import Target, load_target

_RANDOM_SAMPLES = 4


@dataclass(frozen=True)
class ModelFigures:
    """One of the two.

    Attributes:
        file_bytes: of the file and of its side file of weights.
        operators: number of nodes by operator.
    """

    model: str
    file_bytes: int
    parameters: int
    macs: int
    operators: Mapping[str, int]
    timing: Timing


@dataclass(frozen=True)
class ModelComparison:
    """What `actcc compare` shows.

    Attributes:
        outputs: how far the second model's outputs are from the first's, the worst sample of each.
        samples: number of samples that were compared.
        fed: what they were: the calibration data's source, or "random values".
    """

    target: str
    first: ModelFigures
    second: ModelFigures
    outputs: tuple[OutputComparison, ...]
    samples: int
    fed: str

    def to_json(self) -> dict[str, Any]:
        """JSON values; what is infinite or not a number is null."""
        return {"format": 1, **_finite(asdict(self))}


def compare_models(
    first: str | Path,
    second: str | Path,
    target: str | Target = "cpu",
    *,
    calibration: str | Path | None = None,
    preprocessing: str | Preprocessing | None = None,
    samples: int | None = None,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    seed: int = 0,
) -> ModelComparison:
    """Run both models on the same samples, in the target's runtime, and time them in turns.

    Args:
        calibration: as for `optimize`; random values if left out.

    Raises:
        ActccError: bad input, or inputs or outputs of the two differ in name, type or shape.
    """
    if calibration is None and (samples is not None or preprocessing is not None):
        given = "--preprocess" if samples is None else "--samples"
        raise DataError(f"{given} without --calib: there are no samples; give --calib")
    device = target if isinstance(target, Target) else load_target(target)
    graphs = [Graph.load(path, input_shapes) for path in (first, second)]
    check_together((Path(first), Path(second)), graphs)
    if calibration is None:
        feeds = [random_feeds(graphs[0], seed + step) for step in range(_RANDOM_SAMPLES)]
        fed = "random values"
    else:
        found = load_samples(calibration, graphs[0], preprocessing, limit=samples, seed=seed)
        feeds, fed = [sample.inputs for sample in found], found.source
    runs = [device.open(graph) for graph in graphs]
    results = [[run(sample) for sample in feeds] for run in runs]
    outputs = compare_outputs(results[0], results[1]).outputs
    timings = device.backend.time_models(graphs)
    figures = [
        _figures(Path(path), graph, timing)
        for path, graph, timing in zip((first, second), graphs, timings, strict=True)
    ]
    return ModelComparison(device.name, figures[0], figures[1], outputs, len(feeds), fed)


def check_together(paths: tuple[Path, Path], graphs: Sequence[Graph]) -> None:
    """Raises ModelError unless both take the same inputs and the second has the first's outputs."""
    taken = [_inputs(graph) for graph in graphs]
    for name in [*taken[0], *taken[1]]:
        for path, other, own in zip(paths, reversed(paths), taken, strict=True):
            if name not in own:
                raise _apart(path, f"no input '{name}', which {other} has")
        one, another = taken[0][name], taken[1][name]
        if one != another:
            raise _apart(paths[1], f"input '{name}' of {another}, which is {one} in {paths[0]}")
    names = [tensor.name for tensor in graphs[1].outputs]
    for tensor in graphs[0].outputs:
        if tensor.name not in names:
            raise _apart(paths[1], f"no output '{tensor.name}', which {paths[0]} has")


def _inputs(graph: Graph) -> dict[str, str]:
    """Type and shape of every input, as they are said: "FLOAT [1, 3]"."""
    types = static_types(graph)
    found = {tensor.name: types.get(tensor.name) for tensor in graph.inputs}
    return {name: "unknown type" if t is None else _said(t) for name, t in found.items()}


def _said(found: TensorType) -> str:
    element = onnx.TensorProto.DataType.Name(found.element).lower()
    return f"{element} {list(found.shape or ())}"


def _apart(path: Path, what: str) -> ModelError:
    return ModelError(
        f"{path}: has {what}; the two do not belong together: compare a model with one made from it"
    )


def _figures(path: Path, graph: Graph, timing: Timing) -> ModelFigures:
    side = side_file(path)
    size = path.stat().st_size + (side.stat().st_size if side.exists() else 0)
    counts = Counter(node.op for node in graph.nodes())
    operators = dict(sorted(counts.items(), key=lambda entry: (-entry[1], entry[0])))
    return ModelFigures(
        path.name, size, count_parameters(graph), count_macs(graph), operators, timing
    )


def _finite(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _finite(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
