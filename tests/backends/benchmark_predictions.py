"""How well the sum of site prices predicts the speed-up of the rewritten model.

    python tests/backends/benchmark_predictions.py                   example networks
    python tests/backends/benchmark_predictions.py --shared FOLDER   real networks too
    python tests/backends/benchmark_predictions.py --target openvino-cpu --network garment
    python tests/backends/benchmark_predictions.py --structure       blocks restructured too

Predicted is what a plan says before it is verified: the normalized network's latency with the
differences of the chosen candidates added, against the original's. Measured is the emitted model
against the original, in interleaved runs, as the verification times it. Losses do not matter here,
so that plans may be of any candidates, and int8 networks may change their functions.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import median

import numpy as np
import onnx

from actcc.graph import Graph
from actcc.normalize import normalize
from actcc.pass_api import Pass, apply_candidates, find_sites, rewrite, select_passes
from actcc.passes.swap_activation import SwapActivation
from actcc.prices import Price
from actcc.pricing import SitePrices, price_sites
from actcc.progress import Silent
from actcc.runtime import random_feeds
from actcc.site import KEEP, Candidate, OfferedSite, Refusal, Site
from actcc.targets import Target, load_target
from actcc.tasks import process_pool

EXAMPLES = Path(__file__).parents[2] / "examples"
TOLERANCE = 0.10
ACTIVATIONS = ("move-activation",)  # and the swaps
CALIBRATION_SAMPLES = 4


@rewrite("swap-activation")
class SwapQuantizedToo(SwapActivation):
    """As in actcc, and inside quantize/dequantize pairs as well: accuracy is of no account here."""

    def sites(self, graph: Graph) -> Iterable[Site | Refusal]:
        """One site an activation."""
        for found in super().sites(graph):
            if isinstance(found, Site):
                yield replace(found, facts={**found.facts, "quantized": False})

    def candidates(self, site: Site, target: Target) -> Iterable[Candidate | Refusal]:
        """Every function and spelling."""
        return super().candidates(site, target)


@dataclass(frozen=True)
class Network:
    """A model file, or how it comes from one."""

    name: str
    path: Path
    shapes: Mapping[str, Sequence[int]] | None = None
    quantize: bool = False

    def load(self) -> Graph:
        """The model as it is given to actcc."""
        if not self.quantize:
            return Graph.load(self.path, self.shapes)
        return Graph.load(_quantized(self.path), self.shapes)


@dataclass(frozen=True)
class Case:
    """One plan of one network; speed-ups are original over result."""

    network: str
    plan: str
    rewritten: int
    predicted: float
    measured: float
    noise: float

    @property
    def error(self) -> float:
        """Of the prediction, relative to what was measured."""
        return self.predicted / self.measured - 1


def networks(shared: Path | None) -> list[Network]:
    """Those of the examples, and of a folder with real models."""
    fashion = EXAMPLES / "fashion_mnist" / "fashion_mnist.onnx"
    garment = EXAMPLES / "garment_detector" / "garment_detector.onnx"
    found = [
        Network("fashion", fashion),
        Network("garment", garment),
        Network("fashion int8", fashion, quantize=True),
        Network("garment int8", garment, quantize=True),
    ]
    if shared is not None:
        real = [
            "yolox_nano_416",
            "mobilenet_v2",
            "mobilenet_v3_small",
            "mobilenet_v2_qdq",
            "FastestDet",
        ]
        found += [Network(name, shared / "models" / f"{name}.onnx") for name in real]
        found.append(
            Network("yolox_nano int8", shared / "models" / "yolox_nano_416.onnx", quantize=True)
        )
    found.append(Network("PP-OCR detector", _text_detector(), {"x": (1, 3, 320, 320)}))
    return found


def _text_detector() -> Path:
    import importlib.util

    package = importlib.util.find_spec("rapidocr_onnxruntime")
    if package is None or package.origin is None:
        raise SystemExit("the PP-OCR detector is missing; pip install 'actcc[ocr]'")
    return Path(package.origin).parent / "models" / "ch_PP-OCRv4_det_infer.onnx"


def _quantized(path: Path) -> onnx.ModelProto:
    """The network in int8, QDQ, with its activations in floating point in between."""
    from onnxruntime import quantization

    class Samples(quantization.CalibrationDataReader):  # type: ignore[misc]
        def __init__(self, graph: Graph) -> None:
            self.feeds = iter([random_feeds(graph, seed) for seed in range(CALIBRATION_SAMPLES)])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.feeds, None)

    with tempfile.TemporaryDirectory(prefix="actcc-") as folder:
        source, result = Path(folder) / "opset13.onnx", Path(folder) / "int8.onnx"
        graph = normalize(Graph.load(path)).graph
        graph.save(source)
        quantization.quantize_static(
            source,
            result,
            Samples(graph),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=["Conv", "Gemm", "MatMul", "Add", "Concat", "MaxPool"],
            activation_type=quantization.QuantType.QUInt8,  # as int8 layers run on x86-64
            per_channel=graph.opset >= 13,
        )
        return onnx.load(result)


Chooser = Callable[[OfferedSite, Mapping[str, Price]], str]


def computing(function: str) -> Chooser:
    """The cheapest candidate of that function, or `keep`."""

    def choose(site: OfferedSite, prices: Mapping[str, Price]) -> str:
        names = [c.name for c in site.candidates if c.computes == function and c.name in prices]
        return min(names, key=lambda name: prices[name].difference_ns, default=KEEP)

    return choose


def fastest(site: OfferedSite, prices: Mapping[str, Price]) -> str:
    """The cheapest candidate."""
    return min(prices, key=lambda name: prices[name].difference_ns)


def drawn(seed: int) -> Chooser:
    """`keep` or one of the candidates that save time, each as likely."""
    random = np.random.default_rng(seed)

    def choose(site: OfferedSite, prices: Mapping[str, Price]) -> str:
        names = [name for name in prices if name == KEEP or prices[name].difference_ns < 0]
        return names[random.integers(len(names))]

    return choose


PLANS: Mapping[str, Callable[[], Chooser]] = {
    "ReLU": lambda: computing("Relu"),
    "HardSwish": lambda: computing("HardSwish"),
    "mixed 1": lambda: drawn(1),
    "mixed 2": lambda: drawn(2),
    "fastest": lambda: fastest,
}


@dataclass(frozen=True)
class Priced:
    """A network with the prices of its sites."""

    network: Network
    original: Graph
    graph: Graph
    passes: Sequence[Pass]
    sites: Sequence[OfferedSite]
    prices: Mapping[str, SitePrices]

    def plan(self, choose: Chooser) -> list[tuple[OfferedSite, str]]:
        """Sites with the candidate chosen, without `keep`; a node is claimed once."""
        claimed: set[str] = set()
        found = []
        for site in self.sites:
            priced = {k: p for k, p in self.prices[site.id].items() if isinstance(p, Price)}
            name = choose(site, priced) if priced and claimed.isdisjoint(site.site.nodes) else KEEP
            if name != KEEP:
                claimed.update(site.site.nodes)
                found.append((site, name))
        return found

    def difference_ns(self, plan: Iterable[tuple[OfferedSite, str]]) -> float:
        """What the solver adds to the normalized network's latency."""
        return sum(self.prices[site.id][name].difference_ns for site, name in plan)  # type: ignore[union-attr]

    def rewritten(self, plan: Sequence[tuple[OfferedSite, str]]) -> Graph:
        """The model that is emitted."""
        return apply_candidates(self.graph, self.passes, plan)


def priced(network: Network, target: Target, *, structure: bool = False) -> Priced:
    """Every candidate's price, without a cache.

    Args:
        structure: of all passes, not only of those that rewrite activations alone.
    """
    original = network.load()
    graph = normalize(original).graph
    passes: list[Pass] = [
        SwapQuantizedToo(),
        *(
            found
            for found in select_passes(None, ())
            if (structure and found.name != SwapQuantizedToo.name) or found.name in ACTIVATIONS
        ),
    ]
    sites = find_sites(graph, passes, target).sites
    with process_pool(1) as executor:
        prices = price_sites(graph, sites, passes, target, executor, Silent(), None)
    return Priced(network, original, graph, passes, sites, prices)


def cases(found: Priced, target: Target) -> list[Case]:
    """Every plan that rewrites something, predicted and measured."""
    plans: dict[str, list[tuple[OfferedSite, str]]] = {}
    for name, chooser in PLANS.items():
        plan = found.plan(chooser())
        if plan and plan not in plans.values():
            plans[name] = plan
    before, base = target.backend.time_models([found.original, found.graph])
    emitted = [found.rewritten(plan) for plan in plans.values()]
    _, *timings = target.backend.time_models([found.original, *emitted])
    return [
        Case(
            found.network.name,
            name,
            len(plan),
            before.latency_ns / (base.latency_ns + found.difference_ns(plan)),
            1 / timing.ratio,
            timing.ratio_noise / timing.ratio,
        )
        for (name, plan), timing in zip(plans.items(), timings, strict=True)
    ]


def table(found: Sequence[Case]) -> str:
    """One row a case, then the median error and the share within the tolerance."""
    lines = [
        f"{'network':18} {'plan':10} {'sites':>5} {'predicted':>9} {'measured':>9} {'error':>7}"
    ]
    lines += [
        f"{case.network:18} {case.plan:10} {case.rewritten:5} {case.predicted:8.3f}× "
        f"{case.measured:8.3f}× {100 * case.error:+6.1f} %"
        for case in found
    ]
    errors = [abs(case.error) for case in found]
    if errors:
        within = sum(error <= TOLERANCE for error in errors) / len(errors)
        lines.append(
            f"{len(errors)} cases: median error {100 * median(errors):.1f} %, "
            f"{100 * within:.0f} % of them within ±{100 * TOLERANCE:.0f} %"
        )
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shared", type=Path, help="folder with real models")
    parser.add_argument("--target", default="cpu")
    parser.add_argument("--network", action="append", help="only those whose name starts so")
    parser.add_argument("--structure", action="store_true", help="plans of all passes")
    arguments = parser.parse_args()
    target = load_target(arguments.target)
    print(target.backend.tool, flush=True)
    found: list[Case] = []
    for network in networks(arguments.shared):
        if arguments.network and not network.name.startswith(tuple(arguments.network)):
            continue
        one = cases(priced(network, target, structure=arguments.structure), target)
        print(table(one), flush=True)
        found += one
    print(table(found))


if __name__ == "__main__":
    main()
