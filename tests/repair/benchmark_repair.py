"""What closed-form repair brings back, what it costs, and what each of its steps adds.

    python tests/repair/benchmark_repair.py                   garment detector
    python tests/repair/benchmark_repair.py --shared FOLDER   yolox_nano too, with COCO images
    python tests/repair/benchmark_repair.py --steps           what each step adds
    python tests/repair/benchmark_repair.py --memory 64MiB    what spilling costs
    python tests/repair/benchmark_repair.py --distill 240     what distillation adds in 240 s

Calibration and evaluation images are disjoint, and no label is used by the repair. mAP50 and
mAP50-95 are relative to the original's; behind a repaired one stands where it lies with 80 %
confidence (paired bootstrap over the evaluation images).
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from actcc.accuracy.bootstrap import drop_interval
from actcc.accuracy.built_in import load_metric
from actcc.accuracy.metric import Judge, Scores
from actcc.budget import parse_size
from actcc.calibration import SampleSet, load_samples
from actcc.calibration.labels import label_samples
from actcc.graph import Graph
from actcc.normalize import normalize
from actcc.pass_api import apply_candidates, find_sites, select_passes
from actcc.repair import Repaired, Steps, repair
from actcc.repair.distill import distill
from actcc.runtime import run, session
from actcc.targets import load_target

EXAMPLE = Path(__file__).parents[2] / "examples" / "garment_detector"
CASES = ("all HardSwish", "all ReLU", "every other site ReLU", "later half ReLU")
METRICS = ("coco-map50", "coco-map")
FORWARD_REPEATS = 3
CONFIDENCE = 0.9
FIRST_STEP = Steps(
    affine=False, gain=False, slopes=False, joined=False, rounds=0, more_at_outputs=False
)
LATER_STEPS: Mapping[str, Mapping[str, object]] = {
    "+ affine fit": {"affine": True},
    "+ start at the inputs' slopes": {"slopes": True},
    "+ gain between layers": {"gain": True},
    "+ fit what comes out, with Adds": {"rounds": Steps().rounds, "joined": True},
    "+ more rows at outputs (all)": {"more_at_outputs": True},
}


@dataclass(frozen=True)
class Network:
    """A detector with its images."""

    name: str
    graph: Graph
    calibration: SampleSet
    evaluation: SampleSet
    _judges: dict[str, Judge] = field(default_factory=dict)

    @classmethod
    def load(cls, name: str, model: Path, data: Path, preprocessing: str) -> Network:
        """A model, and a folder with `calibration`, `evaluation` and `evaluation.json`."""
        graph = normalize(Graph.load(model)).graph
        evaluation = load_samples(data / "evaluation", graph, preprocessing)
        labelled = label_samples(evaluation, data / "evaluation.json")
        return cls(name, graph, load_samples(data / "calibration", graph, preprocessing), labelled)

    def rewritten(self, case: str) -> tuple[Graph, int]:
        """The network with its SiLU replaced, unrepaired, and the number of places."""
        passes = select_passes(None)
        found = find_sites(self.graph, passes, load_target("npu1")).sites
        sites = [s for s in found if s.pass_name == "swap-activation" and s.site.kind == "Silu"]
        if case.startswith("every other"):
            sites = sites[::2]
        elif case.startswith("later half"):
            sites = sites[len(sites) // 2 :]
        function = "HardSwish" if case.endswith("HardSwish") else "Relu"
        chosen = [
            (site, next(c.name for c in site.candidates if c.computes == function))
            for site in sites
        ]
        return apply_candidates(self.graph, passes, chosen), len(chosen)

    def accuracy(self, graph: Graph) -> list[Scores]:
        """mAP50 and mAP50-95 on the evaluation images; of the original first."""
        runner = session(graph)
        outputs = [run(runner, sample.inputs) for sample in self.evaluation]
        scores = []
        for name in METRICS:
            metric = load_metric(name)
            seen = [metric.observe(*pair) for pair in zip(outputs, self.evaluation, strict=True)]
            if name not in self._judges:
                self._judges[name] = metric.judge(seen, self.evaluation)
            scores.append(self._judges[name](seen))
        return scores

    def forward_seconds(self, graph: Graph) -> float:
        """Both networks over the calibration images, one thread; median of a few rounds."""
        feeds = [sample.inputs for sample in self.calibration]
        sessions = [session(self.graph), session(graph)]
        spent = []
        for _ in range(FORWARD_REPEATS):
            begin = time.perf_counter()
            for runner in sessions:
                for feed in feeds:
                    run(runner, feed)
            spent.append(time.perf_counter() - begin)
        return float(np.median(spent))


def main() -> None:
    """Print the tables."""
    arguments = _arguments()
    memory = parse_size(arguments.memory, "--memory")
    for network in _networks(arguments):
        original = network.accuracy(network.graph)
        values = " / ".join(f"{_value(scores):.4f}" for scores in original)
        print(
            f"\n{network.name}: mAP50 / mAP50-95 {values} on "
            f"{len(network.evaluation)} images; repaired on {len(network.calibration)} others"
        )
        for case in arguments.case or CASES:
            if arguments.steps:
                _print_steps(network, case, original, memory)
            else:
                _print_case(network, case, original, memory, arguments.distill)


def _networks(arguments: argparse.Namespace) -> Iterator[Network]:
    if arguments.network in (None, "garment_detector"):
        yield Network.load("garment_detector", EXAMPLE / "garment_detector.onnx", EXAMPLE, "yolo")
    if arguments.shared is not None and arguments.network in (None, "yolox_nano"):
        model = arguments.shared / "models" / "yolox_nano_416.onnx"
        yield Network.load("yolox_nano", model, arguments.shared / "data" / "coco", "yolox")


def _print_case(
    network: Network,
    case: str,
    original: Sequence[Scores],
    memory_bytes: int,
    distill_s: float | None,
) -> None:
    rewritten, places = network.rewritten(case)
    naive = network.accuracy(rewritten)
    found = repair(network.graph, rewritten, network.calibration, memory_bytes=memory_bytes)
    forward = network.forward_seconds(rewritten)
    repaired = network.accuracy(found.graph)
    print(
        f"  {case:22} {places:4} sites  naive {_relative(naive, original)}  "
        f"repaired {_relative(repaired, original)} {_interval(repaired, original)}  "
        f"{found.seconds:5.1f} s, "
        f"{found.seconds / forward:4.1f} × forward passes ({forward:.1f} s), {_memory(found)}",
        flush=True,
    )
    if distill_s is None:
        return
    tuned = distill(network.graph, found.graph, network.calibration, time_limit_s=distill_s)
    after = network.accuracy(tuned.graph)
    steps = sum(span.steps for span in tuned.spans)
    print(
        f"  {case:22} distilled {_relative(after, original)} {_interval(after, original)}  "
        f"{tuned.seconds:5.1f} s, {steps} steps",
        flush=True,
    )


def _print_steps(
    network: Network, case: str, original: Sequence[Scores], memory_bytes: int
) -> None:
    rewritten, _ = network.rewritten(case)
    print(f"  {case:32} {'naive':32} {_relative(network.accuracy(rewritten), original)}")
    for name, steps in _growing_steps():
        found = repair(
            network.graph, rewritten, network.calibration, memory_bytes=memory_bytes, steps=steps
        )
        value = _relative(network.accuracy(found.graph), original)
        print(f"  {case:32} {name:32} {value}  {found.seconds:5.1f} s")


def _growing_steps() -> Iterator[tuple[str, Steps]]:
    """Each with those before it."""
    steps = FIRST_STEP
    yield "ridge alone", steps
    for name, change in LATER_STEPS.items():
        steps = replace(steps, **change)
        yield name, steps


def _value(scores: Scores) -> float:
    return scores.value(np.arange(len(scores)))


def _relative(values: Sequence[Scores], original: Sequence[Scores]) -> str:
    pairs = zip(values, original, strict=True)
    return " / ".join(f"{_value(value) / _value(whole):.3f}" for value, whole in pairs)


def _interval(values: Sequence[Scores], original: Sequence[Scores]) -> str:
    """Of each figure, one in ten below and one in ten above."""
    ranges = []
    for value, whole in zip(values, original, strict=True):
        drop = drop_interval(whole, value, CONFIDENCE, seed=0)
        low, high = (1 - end / _value(whole) for end in (drop.high, drop.low))
        ranges.append(f"{low:.2f}–{high:.2f}")
    return f"({' / '.join(ranges)})"


def _memory(found: Repaired) -> str:
    spilled = f", {found.spilled_bytes >> 20} MiB on disk" if found.spilled_bytes else ""
    return f"{found.memory_bytes >> 20} MiB held{spilled}"


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--shared", type=Path, help="folder with models/ and data/coco/")
    parser.add_argument("--case", choices=CASES, action="append", help="only this one")
    parser.add_argument("--steps", action="store_true", help="what each step adds")
    parser.add_argument("--memory", default="2GiB", help="for activations between layers")
    parser.add_argument("--distill", type=float, metavar="SECONDS", help="behind the closed form")
    parser.add_argument("--network", help="only this one: garment_detector or yolox_nano")
    return parser.parse_args()


if __name__ == "__main__":
    main()
