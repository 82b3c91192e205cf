"""Another spelling of an activation, or another function in its place.

Exact: all spellings of the same function, HardSwish(x) = x·HardSigmoid(x) = x·clip(x + 3, 0, 6)/6.
Approximate: functions of the same kind that are cheaper on many targets; the ones for each function
are listed in `_NEAR`, closest first.

A candidate's name is the function ("Relu"), followed by how it is written where that is no single
operator of the same name ("HardSwish as HardSigmoid+Mul"). Requires a floating-point tensor whose
type is known. Activations inside quantize/dequantize pairs are for `swap-quantized-activation`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from types import MappingProxyType

from actcc.activations import Activation, Match, recognise
from actcc.activations.spellings import WRITABLE, Spelling, spellings_of, write
from actcc.errors import PassError
from actcc.graph import Graph
from actcc.pass_api import Pass, rewrite
from actcc.site import Candidate, Fact, Refusal, Site
from actcc.targets import Target

_RELU, _RELU6 = Activation("Relu"), Activation("Relu6")
_LEAKY = Activation.of("LeakyRelu", alpha=0.1)
_HARD_SWISH, _SILU, _GELU = Activation("HardSwish"), Activation("Silu"), Activation("Gelu")
_HARD_SIGMOID = Activation.of("HardSigmoid", alpha=1 / 6, beta=0.5)
_HARD_TANH = Activation.of("Clip", min=-1.0, max=1.0)
_SMOOTH = (_HARD_SWISH, _SILU, _GELU, _LEAKY, _RELU, _RELU6)
_NEAR: Mapping[str, tuple[Activation, ...]] = MappingProxyType(
    {
        "Silu": _SMOOTH,
        "HardSwish": _SMOOTH,
        "Gelu": (Activation("GeluTanh"), *_SMOOTH),
        "GeluTanh": (_GELU, _HARD_SWISH, _SILU, _LEAKY, _RELU, _RELU6),
        "QuickGelu": (_GELU, _HARD_SWISH, _SILU, _LEAKY, _RELU, _RELU6),
        "Mish": _SMOOTH,
        "Softplus": (_SILU, _HARD_SWISH, _GELU, _LEAKY, _RELU, _RELU6),
        "Elu": _SMOOTH,
        "Celu": _SMOOTH,
        "Selu": _SMOOTH,
        "LeakyRelu": (_RELU,),
        "PRelu": (_LEAKY, _RELU),
        "ThresholdedRelu": (_RELU,),
        "Relu6": (_RELU,),
        "Sigmoid": (_HARD_SIGMOID,),
        "Tanh": (_HARD_TANH,),
    }
)
_ELEMENT_NAMES = {number: name for name, number in WRITABLE.items()}
# The rest are parameters.
_FACTS = ("activation", "spelling", "opset", "dtype", "quantized", "rounds", "range", "ranges")


@rewrite("swap-activation")
class SwapActivation(Pass):
    """Activation  →  another function of its kind, or another spelling of the same one."""

    def sites(self, graph: Graph) -> Iterable[Site | Refusal]:
        """One site an activation in floating point, in topological order."""
        for entry in activation_sites(graph):
            if isinstance(entry, Refusal) or not entry.facts["quantized"]:
                yield entry

    def candidates(self, site: Site, target: Target) -> Iterable[Candidate | Refusal]:
        """Legal spellings of the function itself, then of the functions near to it."""
        contrib = bool(target.settings.get("contrib_operators", False))
        own = function_of(site.facts)
        for function in functions_near(site):
            yield from ways(site, function, exact=function == own, contrib=contrib)

    def apply(self, graph: Graph, site: Site, candidate: Candidate) -> None:
        """Write the candidate's function in the candidate's spelling."""
        function, way = written_as(site, candidate)
        write(graph, site, function, way, str(site.facts["dtype"]))


def functions_near(site: Site) -> Iterator[Activation]:
    """The site's own function, then those that may stand in for it."""
    own = function_of(site.facts)
    if own is not None:
        yield own
    yield from (near for near in _NEAR.get(site.kind, ()) if near != own)


def written_as(site: Site, candidate: Candidate) -> tuple[Activation, Spelling]:
    """The function and the spelling that a candidate's name means.

    Raises:
        PassError: there is none of that name.
    """
    for function in functions_near(site):
        for way in spellings_of(function):
            if spelled(function, way) == candidate.name:
                return function, way
    raise PassError(
        f"site '{site.id}' has no candidate '{candidate.name}'; was the plan made with "
        "another version of actcc?"
    )


def activation_sites(graph: Graph) -> Iterator[Site | Refusal]:
    """One site an activation, in topological order, then what was not recognised and why."""
    recognition = recognise(graph)
    yield from (site_of(match, graph.opset) for match in recognition.matches)
    yield from recognition.refusals


def site_of(match: Match, opset: int) -> Site:
    """The site of one activation, with what is known of it as facts."""
    facts: dict[str, Fact] = {
        "activation": match.activation.name,
        "spelling": match.spelling,
        "opset": opset,
        "dtype": _ELEMENT_NAMES.get(match.element, "bfloat16"),
        "quantized": match.quantized,
    }
    if match.activation.name != "PRelu":  # its slopes are many, and it is spelled in one way
        facts |= dict(match.activation.parameters)
    return Site(match.nodes, match.reads, match.writes, match.activation.name, facts)


def function_of(facts: Mapping[str, Fact]) -> Activation | None:
    """The function of a site by its facts; None for PRelu, whose slopes a site does not keep."""
    name = str(facts["activation"])
    if name == "PRelu":
        return None
    parameters = {key: float(value) for key, value in facts.items() if key not in _FACTS}
    return Activation.of(name, **parameters)


def ways(
    site: Site, function: Activation, *, exact: bool, contrib: bool
) -> Iterator[Candidate | Refusal]:
    """The spellings of a function that can be written at a site, and why others cannot."""
    element, opset = str(site.facts["dtype"]), int(site.facts["opset"])
    ways = [way for way in spellings_of(function) if not (exact and _is_there(site, way))]
    obstacles = {way.name: way.obstacle(function, opset, element, contrib) for way in ways}
    legal = next((name for name, obstacle in obstacles.items() if not obstacle), None)
    for way in ways:
        name, obstacle = spelled(function, way), obstacles[way.name]
        if obstacle:
            yield Refusal(name, obstacle + (f"; {legal} is offered instead" if legal else ""))
        else:
            yield Candidate(name, exact, computes=str(function))


def _is_there(site: Site, way: Spelling) -> bool:
    """Whether the site is spelled that way already, in whatever order."""
    function = function_of(site.facts)
    found = sorted(str(site.facts["spelling"]).split("+"))
    return function is not None and found == sorted(way.operators(function))


def spelled(function: Activation, way: Spelling) -> str:
    """The function, followed by how it is written where that is no operator of its name."""
    title = "HardTanh" if function == _HARD_TANH else function.name
    if way.name == function.name or len(spellings_of(function)) == 1:
        return title
    return f"{title} as {way.name}"
