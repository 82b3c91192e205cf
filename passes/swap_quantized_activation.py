"""Another activation between the QuantizeLinear and DequantizeLinear nodes of a quantized model.

    x → Q → DQ → Sigmoid → Q → DQ → Mul → Q → DQ → y        Q: QuantizeLinear, DQ: DequantizeLinear

    Relu:       x → Q' → DQ' → y
    HardSwish:  x → Q → DQ → HardSwish → Q' → DQ' → y

An activation may be spread over several roundings (`actcc.graph.pairs`); the one that takes its
place has none inside. The range behind it, Q' and DQ', is that of least error of the new function's
values on calibration samples, in the type and, where all of the model is so, the symmetry of the
old. Where that range cuts off what the function would, as it does for ReLU, it stands for the
function, and runtimes compute it inside the kernel of the layer before (ONNX Runtime fuses few of
the Relu nodes that are written out). A function that stays keeps its range.

Exact: another spelling of an activation that is not spread. All else is approximate.
Requires, for another function: one scale behind it, of uint8 or int8, that nothing else reads.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from actcc.activations import Activation, Match, recognise, with_rounding
from actcc.activations.spellings import write
from actcc.calibration import SampleSet
from actcc.graph import Graph, Tensor
from actcc.graph.pairs import DEQUANTIZE, QUANTIZE, Pair, StoredAs, stored_as
from actcc.pass_api import Pass, rewrite
from actcc.passes.swap_activation import function_of, functions_near, site_of, ways, written_as
from actcc.quantization import Range, observed_tensors
from actcc.quantization.rescale import rescale_readers
from actcc.quantization.steps import STORED, is_symmetric, step_for
from actcc.site import Candidate, Refusal, Site
from actcc.targets import Target

_NEW, _NONE = "new", "none"


@rewrite("swap-quantized-activation")
class SwapQuantizedActivation(Pass):
    """Activation inside QDQ  →  another function of its kind, with a range of its own behind it."""

    def sites(self, graph: Graph) -> Iterable[Site | Refusal]:
        """One site an activation that is read or written in integers, or rounded inside."""
        for match in recognise(graph).matches:
            if match.quantized:
                site = site_of(with_rounding(graph, match), graph.opset)
                facts = {**site.facts, "rounds": match.rounds, "range": _range_behind(graph, match)}
                yield replace(site, facts=facts)

    def observe(self, graph: Graph, sites: Sequence[Site], samples: SampleSet) -> Iterator[Site]:
        """The same sites with the range of each function that may stand there."""
        found = observed_tensors(graph, samples, {s.reads for s in sites if _is_new(s)})
        for site in sites:
            values = found.get(site.reads) if _is_new(site) else None
            if values is None:
                yield site
                continue
            ranges = {str(f): values.through(f).best_range() for f in functions_near(site)}
            yield replace(site, facts={**site.facts, "ranges": json.dumps(ranges)})

    def candidates(self, site: Site, target: Target) -> Iterable[Candidate | Refusal]:
        """Legal spellings of the function itself, then of the functions near to it."""
        contrib = bool(target.settings.get("contrib_operators", False))
        own = function_of(site.facts)
        for function in functions_near(site):
            reason = "" if function == own else _obstacle(site)
            if reason:
                yield Refusal(function.name, reason)
            else:
                exact = function == own and not site.facts["rounds"]
                yield from ways(site, function, exact=exact, contrib=contrib)

    def apply(self, graph: Graph, site: Site, candidate: Candidate) -> None:
        """Write the function without roundings inside, and the range behind it."""
        function, way = written_as(site, candidate)
        before, behind = _outer_pairs(graph, site)
        old = None if behind is None else stored_as(graph, behind.quantize)
        new = None if old is None else _range_of(graph, site, function, old)
        source, element = graph.tensor(site.reads), str(site.facts["dtype"])
        cut_off = new is not None and _is_cut_off(function, new)
        if before is not None and not cut_off:
            source = _rounded(graph, source, before)
        if new is None or old is None:
            write(graph, replace(site, reads=source.name), function, way, element)
            return
        gap = source if cut_off else graph.insert("Identity", [source], like=source)
        stored = graph.insert(QUANTIZE, [gap, new.scale, new.zero_point])
        written = graph.replace(site, DEQUANTIZE, [stored, new.scale, new.zero_point])
        if not cut_off:
            write(graph, Site([graph.producer(gap)], source, gap), function, way, element)
        rescale_readers(graph, written, old, new)


def _is_new(site: Site) -> bool:
    return site.facts["range"] == _NEW


def _obstacle(site: Site) -> str:
    """Why no other function may stand at a site; empty where one may."""
    kind = site.facts["range"]
    if kind == _NONE or "ranges" in site.facts:
        return ""
    if kind == _NEW:
        return "its range needs calibration data with finite values; give --calib"
    return str(kind)


def _range_behind(graph: Graph, match: Match) -> str:
    """Whether what a match writes has a range, and whether that may change; else why not."""
    whole = with_rounding(graph, match)
    if whole.writes is match.writes:
        readers = [r for r in graph.consumers(match.writes) if r.op == QUANTIZE]
        if not readers:
            return _NONE
        return (
            f"activation inside QDQ: its range was calibrated for {match.activation}, and "
            f"'{readers[0].name}' is not read by one DequantizeLinear of the same scale alone"
        )
    kind = stored_as(graph, whole.nodes[-1])
    if kind is None or kind.zero_point.dtype.name not in STORED:
        name = "unknown numbers" if kind is None else kind.zero_point.dtype.name
        return f"it is stored in {name}; ranges are known for {' and '.join(sorted(STORED))}"
    return _NEW


def _outer_pairs(graph: Graph, site: Site) -> tuple[Pair | None, Pair | None]:
    nodes = [graph.node(name) for name in site.nodes]
    before = Pair(nodes[0], nodes[1]) if nodes[0].op == QUANTIZE else None
    return before, Pair(nodes[-2], nodes[-1]) if nodes[-1].op == DEQUANTIZE else None


def _range_of(graph: Graph, site: Site, function: Activation, old: StoredAs) -> StoredAs:
    if function == function_of(site.facts):
        return old
    ranges: dict[str, Range] = json.loads(str(site.facts["ranges"]))
    return step_for(ranges[str(function)], old, symmetric=is_symmetric(graph))


def _is_cut_off(function: Activation, kind: StoredAs) -> bool:
    """Whether storing the values alone does what the function does."""
    bounds = {"Relu": {"min": 0.0}, "Relu6": {"min": 0.0, "max": 6.0}}.get(function.name)
    if bounds is None and function.name == "Clip":
        bounds = dict(function.parameters)
    if bounds is None:
        return False
    return kind.cuts_off(bounds.get("min", float("-inf")), bounds.get("max", float("inf")))


def _rounded(graph: Graph, tensor: Tensor, as_before: Pair) -> Tensor:
    kind = stored_as(graph, as_before.quantize)
    assert kind is not None  # or it would be no pair
    operands = [kind.scale, kind.zero_point]  # the type may have been an attribute's
    stored = graph.insert(QUANTIZE, [tensor, *operands])
    return graph.insert(DEQUANTIZE, [stored, *operands], like=tensor)
