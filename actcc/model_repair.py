"""`repair_model()`: two files of one network, before and after a rewrite by whatever tool."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from actcc.accuracy.built_in import load_metric
from actcc.accuracy.metric import Metric
from actcc.calibration import Preprocessing, SampleSet, load_samples
from actcc.comparison import check_together
from actcc.errors import RepairError
from actcc.graph import Graph
from actcc.graph.files import deliver, staging_folder, writing
from actcc.job import HELD_OUT_SHARE
from actcc.normalize import normalize
from actcc.observation import OnnxFile, observe
from actcc.output import check_output
from actcc.progress import Progress, Silent
from actcc.repair import Repaired, RepairMethod
from actcc.repair.refits import plan_refits
from actcc.repair.stored import with_real_weights
from actcc.tasks import default_workers, process_pool
from actcc.validity import require_valid


@dataclass(frozen=True)
class ModelRepair:
    """What came of a repair.

    Attributes:
        metric: `fidelity`, or another that needs no labels.
        before: the rewritten model's value on held-out samples.
        after: the repaired model's.
        held_out: number of those samples.
        repaired: layers with their figures.
        output: the file that was written.
    """

    metric: str
    before: float
    after: float
    held_out: int
    repaired: Repaired
    output: Path


def repair_model(
    original: str | Path,
    rewritten: str | Path,
    output: str | Path,
    *,
    calibration: str | Path | SampleSet,
    preprocessing: str | Preprocessing | None = None,
    samples: int | None = None,
    metric: str = "fidelity",
    method: RepairMethod | None = None,
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    seed: int = 0,
    workers: int | None = None,
    progress: Progress | None = None,
) -> ModelRepair:
    """Re-fit a rewritten model's weights so that it does what the original does, and write it.

    Layers belong together where they write tensors of the same name. Both models are normalized
    first. Part of the samples is held out: where the repaired model is no closer to the original
    on those, nothing is written.

    Args:
        calibration: samples without labels, as for `optimize`.
        metric: what closeness means; one that needs no labels.
        method: None for the closed form.

    Raises:
        ActccError: bad input, the two models do not belong together, or the repair does not help.
    """
    chosen = (method or RepairMethod()).check()
    paths = Path(original), Path(rewritten)
    target = check_output(output, *paths, calibration, preprocessing, metric)
    told = progress or Silent()
    judge = load_metric(metric)
    graphs = _load(paths, input_shapes)
    data = (
        calibration
        if isinstance(calibration, SampleSet)
        else load_samples(calibration, graphs[0], preprocessing, limit=samples, seed=seed)
    )
    if len(data) < 2:
        raise RepairError(f"{data.source}: 1 sample; at least 2 are needed, one to judge by")
    fitted, held_out = data.split(HELD_OUT_SHARE, seed)
    with process_pool(workers or default_workers()) as executor:
        # First of all, since samples or outputs may not be what the metric needs.
        seen = [observe(OnnxFile(path), held_out, judge, executor, lambda: None) for path in paths]
        with told.stage("Normalizing"):
            before, after = (normalize(graph).graph for graph in graphs)
        real = [with_real_weights(graph)[0] for graph in (before, after)]
        layers = len(plan_refits(*real).refits)
        if not layers:
            raise RepairError(
                f"{rewritten}: no layer of {original} does anything else in it, so there is "
                "nothing to repair; do the two have the same names?"
            )
        with told.stage("Repairing", layers) as advance:
            repaired = chosen.run(before, after, fitted, seed=seed, advance=advance)
        with writing(target), staging_folder(target.parent) as staging:
            staged = staging / target.name
            repaired.graph.save(staged, external=graphs[1].external)
            with told.stage("Verifying"):
                seen.append(observe(OnnxFile(staged), held_out, judge, executor, lambda: None))
                values = _values(seen, held_out, judge)
            if not values[2] > values[1]:
                raise RepairError(
                    f"{rewritten}: {judge.name} is {values[1]:.4f}, repaired {values[2]:.4f}: the "
                    "repair does not help, so nothing was written; more samples may"
                )
            deliver(staged, target)
    return ModelRepair(judge.name, values[1], values[2], len(held_out), repaired, target)


def _load(
    paths: tuple[Path, Path], input_shapes: Mapping[str, Sequence[int]] | None
) -> list[Graph]:
    graphs = [Graph.load(path, input_shapes) for path in paths]
    for path, graph in zip(paths, graphs, strict=True):
        require_valid(path, graph)
    check_together(paths, graphs)
    return graphs


def _values(seen: Sequence[list[Any]], samples: SampleSet, metric: Metric) -> list[float]:
    """The metric of each model; the first is the original."""
    judge = metric.judge(seen[0], samples)
    return [float(judge(found).value(np.arange(len(samples)))) for found in seen]
