"""Tie npu1 and npu2 to Vela: fit what no rule says, and compare totals.

    python tests/latency_models/fit_npu_profiles.py --models FOLDER [--write] [--compiled FILE]

Every network is compiled as it is and with all SiLU, HardSwish, ReLU and ReLU6 replaced by one of
SiLU, HardSwish and ReLU. The rates in `FITTED_RATES` of each profile are fitted to Vela's totals on
`FITTED` only (as they are and with ReLU), with a pull towards those of npu_base; --write puts them
into the profile. Then a table for
docs/analytic-npus.md is printed. FOLDER holds the networks that are not in examples/; those
that read text come from rapidocr-onnxruntime. Needs actcc[ethos-u,predict,ocr].
"""

from __future__ import annotations

import argparse
import copy
import importlib.util
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import actcc.latency_models
from actcc.backends.analytic import AnalyticBackend
from actcc.graph import Graph
from actcc.graph.extract import extract
from actcc.latency_models import Profile, load_profile
from actcc.normalize import normalize
from actcc.passes.swap_activation import activation_sites
from actcc.site import Site
from actcc.targets import load_target

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
COMPILED = {"npu1": "ethos-u55-256", "npu2": "ethos-u65-512"}
FITTED = ("garment_detector", "mobilenet_v2", "yolox_nano_416", "FastestDet")
HELD_OUT = (
    "fashion_mnist",
    "mobilenet_v3_small",
    "ultraface_rfb_320",
    "ocr_detector",
    "ocr_direction",
    "ocr_recogniser_plane",
)
# Those of npu_base, read off single operators.
FITTED_RATES = {
    "weights.bytes_per_weight": 0.91,
    "weights.bytes_per_filler": 0.37,
}
SWAPPED = frozenset({"Silu", "HardSwish", "Relu", "Relu6", "Clip"})
VARIANTS = ("as is", "SiLU", "HardSwish", "ReLU")
# The networks of rapidocr-onnxruntime: file, shape of the input, and the last tensor where only a
# part is taken. What follows in the recogniser is a transformer, whose Sqrt has no int8 lowering.
OCR = {
    "ocr_detector": ("*_det_*.onnx", (1, 3, 480, 480), ""),
    "ocr_direction": ("*_cls_*.onnx", (1, 3, 48, 192), ""),
    "ocr_recogniser_plane": ("*_rec_*.onnx", (1, 3, 48, 320), "p2o.AveragePool.1"),
}
PULL = 0.1  # a rate that is off by e counts as much as a network that is off by a tenth of it


@dataclass(frozen=True)
class Case:
    """A variant of a network, and Vela's cycles for it by profile."""

    network: str
    variant: str
    graph: Graph
    vela: Mapping[str, float]


def network(name: str, models: Path) -> Graph:
    """A network of the list, normalized.

    Raises:
        ActccError: it cannot be read.
    """
    if name in OCR:
        pattern, shape, last = OCR[name]
        found = importlib.util.find_spec("rapidocr_onnxruntime")
        assert found is not None
        assert found.origin is not None
        (path,) = (Path(found.origin).parent / "models").glob(pattern)
        whole = normalize(Graph.load(path, {"x": shape})).graph
        return up_to(whole, last) if last else whole
    own = EXAMPLES / name / f"{name}.onnx"
    return normalize(Graph.load(own if own.exists() else models / f"{name}.onnx")).graph


def up_to(graph: Graph, last: str) -> Graph:
    """The nodes in front of a tensor, with the one that writes it."""
    nodes = list(graph.nodes())
    (end,) = (at for at, node in enumerate(nodes) if last in [t.name for t in node.outputs])
    return extract(graph, [node.name for node in nodes[: end + 1]], [last])


def variants(graph: Graph) -> Iterator[tuple[str, Graph]]:
    """The network as it is, and with one activation in place of all that are swapped."""
    sites = [found for found in activation_sites(graph) if isinstance(found, Site)]
    sites = [site for site in sites if site.kind in SWAPPED]
    yield VARIANTS[0], graph
    for name in VARIANTS[1:]:
        changed = graph.copy()
        for site in sites:
            if name == "ReLU":
                changed.replace(site, "Relu", [site.reads])
                continue
            if name == "SiLU":
                gate = changed.insert("Sigmoid", [site.reads])
            else:
                gate = changed.insert("HardSigmoid", [site.reads], alpha=1 / 6, beta=0.5)
            changed.replace(site, "Mul", [site.reads, gate])
        yield name, changed


def cases(names: Sequence[str], models: Path, known: Path | None) -> Iterator[Case]:
    """All variants of the networks, compiled, or with the latencies of an earlier run."""
    backends = {name: load_target(target).backend for name, target in COMPILED.items()}
    compiled = json.loads(known.read_text()) if known is not None and known.exists() else {}
    for name in names:
        for variant, graph in variants(network(name, models)):
            key = f"{name}/{variant}"
            if key not in compiled:
                compiled[key] = {
                    profile: backend.time_models([graph])[0].latency_ns
                    for profile, backend in backends.items()
                }
            yield Case(name, variant, graph, compiled[key])
    if known is not None:
        known.write_text(json.dumps(compiled, indent=1))


def latency_ns(profile: Profile, graph: Graph) -> float:
    """The analytic latency."""
    return float(AnalyticBackend(profile).time_models([graph])[0].latency_ns)


def with_rates(profile: Profile, rates: Mapping[str, float]) -> Profile:
    """The profile with other rates."""
    settings: dict[str, Any] = copy.deepcopy(dict(profile.settings))
    for name, value in rates.items():
        section, key = name.split(".")
        settings[section][key] = value
    return profile.model_copy(update={"settings": settings})


def fit(name: str, known: Sequence[Case]) -> dict[str, float]:
    """The rates that agree best with Vela's totals."""
    from scipy.optimize import least_squares

    profile, start = load_profile(name), FITTED_RATES

    def rates(logarithms: Sequence[float]) -> dict[str, float]:
        pairs = zip(start.items(), logarithms, strict=True)
        return {rate: float(value * np.exp(log)) for (rate, value), log in pairs}

    def residuals(logarithms: Sequence[float]) -> np.ndarray:
        changed = with_rates(profile, rates(logarithms))
        errors = [np.log(latency_ns(changed, case.graph) / case.vela[name]) for case in known]
        return np.array([*errors, *(PULL * np.asarray(logarithms))])

    found = least_squares(residuals, np.zeros(len(start)), diff_step=0.05, max_nfev=3)
    return {rate: float(f"{value:.3g}") for rate, value in rates(found.x).items()}


def write(name: str, rates: Mapping[str, float]) -> None:
    """Put the rates into the profile, under the line that says where they come from."""
    folder = Path(actcc.latency_models.__file__).resolve().parent
    path = folder / f"{name}.toml"
    marker = "# Fitted to Vela's totals by tests/latency_models/fit_npu_profiles.py:"
    text = path.read_text().split(marker)[0].rstrip()
    text += f"\n\n{marker}\n# those of npu_base are read off single operators.\n"
    sections: dict[str, list[str]] = {}
    for rate, value in rates.items():
        section, key = rate.split(".")
        sections.setdefault(section, []).append(f"{key} = {value:g}")
    for section, lines in sections.items():
        text += f"\n[settings.{section}]\n# fitted\n" + "\n".join(lines) + "\n"
    path.write_text(re.sub(r"\n{3,}", "\n\n", text))


def table(found: Sequence[Case]) -> str:
    """Analytic against compiled milliseconds, one row a variant."""
    lines = [
        "| network | variant | list | U55-256 ms | npu1 ms | error % | U65-512 ms | npu2 ms "
        "| error % |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    errors: dict[tuple[str, str], list[float]] = {}
    for case in found:
        part = "fitted" if case.network in FITTED else "held out"
        cells = [case.network, case.variant, part]
        for name in COMPILED:
            own, vela = latency_ns(load_profile(name), case.graph), case.vela[name]
            error = 100 * (own / vela - 1)
            errors.setdefault((part, name), []).append(abs(error))
            cells += [f"{vela / 1e6:.3f}", f"{own / 1e6:.3f}", f"{error:+.1f}"]
        lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "| list | profile | mean error % | largest % |", "| --- | --- | --- | --- |"]
    for (part, name), values in errors.items():
        lines.append(f"| {part} | {name} | {np.mean(values):.1f} | {max(values):.1f} |")
    return "\n".join(lines)


def main() -> None:
    """Compile, fit if asked to, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=Path, required=True)
    parser.add_argument("--write", action="store_true", help="fit, and write the profiles")
    parser.add_argument("--compiled", type=Path, help="JSON file that keeps what Vela said")
    options = parser.parse_args()
    found = list(cases([*FITTED, *HELD_OUT], options.models, options.compiled))
    if options.write:
        for name in COMPILED:
            known = [case for case in found if case.network in FITTED]
            rates = fit(name, [case for case in known if case.variant in ("as is", "ReLU")])
            write(name, rates)
    print(table(found))


if __name__ == "__main__":
    main()
