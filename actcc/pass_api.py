"""The pass API: what a rewrite is, how it is registered, and how it is run.

A pass is a class with three methods. `@rewrite("name")` checks them when the class is defined, so
that a wrong signature is refused with a sentence and not met in the middle of a run.
"""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, ClassVar, TypeVar

from actcc.errors import ActccError, PassError
from actcc.graph import Graph, Interface, verify
from actcc.site import Candidate, OfferedSite, Refusal, Site
from actcc.targets import Target

if TYPE_CHECKING:  # it loads users' files as passes are loaded
    from actcc.calibration import SampleSet

ENTRY_POINT_GROUP = "actcc.passes"
Group = tuple[tuple[OfferedSite, tuple[str, ...]], ...]
"""Sites, each with the names of candidates of which any one will do: they cost the same there."""
_SIGNATURES = {
    "sites": ("self", "graph"),
    "candidates": ("self", "site", "target"),
    "apply": ("self", "graph", "site", "candidate"),
    "observe": ("self", "graph", "sites", "samples"),
    "neighbours": ("self", "graph", "sites"),
}


class Pass(ABC):
    """A rewrite that finds sites, offers candidates and applies the chosen one.

    Attributes:
        late: applied behind the repair, last of all; its sites are found and observed again then.
        for_size: where it is off by default, whether a budget in which size counts turns it on.
    """

    name: ClassVar[str] = ""
    exact: ClassVar[bool] = False
    default: ClassVar[bool] = True
    late: ClassVar[bool] = False
    for_size: ClassVar[bool] = False

    @abstractmethod
    def sites(self, graph: Graph) -> Iterable[Site | Refusal]:
        """Places that may be rewritten, in topological order; refusals say why one is not."""

    @abstractmethod
    def candidates(self, site: Site, target: Target) -> Iterable[Candidate | Refusal]:
        """Ways to rewrite a site on a target; `keep` need not be offered."""

    @abstractmethod
    def apply(self, graph: Graph, site: Site, candidate: Candidate) -> None:
        """Rewrite the site in place, through the graph's own methods."""

    def observe(self, graph: Graph, sites: Sequence[Site], samples: SampleSet) -> Iterable[Site]:
        """The same sites with facts that calibration samples tell, for `candidates` and `apply`.

        Called between `sites` and `candidates` where there are samples, which have no labels. The
        facts may depend on nothing else: a plan that is applied again learns them again, for the
        passes of which it chose an approximate candidate. Sites that are left out stay as they are.
        """
        return sites

    def neighbours(self, graph: Graph, sites: Sequence[OfferedSite]) -> Iterable[Group]:
        """Candidates that may cost another amount together than apart, in topological order.

        Each group is priced as a whole too, with the first name of each site, so groups should be
        few and small. A candidate of a late pass may be chosen beside one that rewrites the same
        nodes before only where a group names the two.

        Args:
            sites: of all passes.
        """
        return ()

    @property
    def observes(self) -> bool:
        """Whether the samples tell it anything."""
        return type(self).observe is not Pass.observe


class NormalizingPass(ABC):
    """An exact rewrite that offers no choice and always runs, before sites are looked for."""

    name: ClassVar[str] = ""

    @abstractmethod
    def run(self, graph: Graph) -> tuple[Graph, list[str]]:
        """The rewritten graph (the same object or a new one) and, line by line, what was done."""


PassType = TypeVar("PassType", bound=type[Pass])


def rewrite(
    name: str, *, exact: bool = False, default: bool = True
) -> Callable[[PassType], PassType]:
    """Register a pass class under a stable name.

    Args:
        name: lower-case words with hyphens; `--skip name` leaves the pass out.
        exact: its candidates compute the same function up to float rounding unless one says
            otherwise.
        default: whether it runs without being asked for by name.

    Raises:
        PassError: the class is no Pass, lacks a method, or a method has other parameters.
    """
    if not name or name != name.lower() or " " in name:
        raise PassError(f"'{name}' is no pass name; use lower-case words joined by hyphens")

    def register(cls: PassType) -> PassType:
        _check_signatures(cls, name)
        cls.name, cls.exact, cls.default = name, exact, default
        return cls

    return register


def _check_signatures(cls: type, name: str) -> None:
    if not (inspect.isclass(cls) and issubclass(cls, Pass)):
        raise PassError(f"pass '{name}': {cls!r} is no subclass of actcc.Pass; derive from it")
    for method, expected in _SIGNATURES.items():
        function = getattr(cls, method, None)
        if getattr(function, "__isabstractmethod__", False) or not callable(function):
            wanted = f"{method}({', '.join(expected)})"
            raise PassError(f"pass '{name}': {cls.__name__} lacks the method {wanted}; add it")
        found = tuple(inspect.signature(function).parameters)
        if found != expected:
            raise PassError(
                f"pass '{name}': {cls.__name__}.{method} takes ({', '.join(found)}); "
                f"it must take ({', '.join(expected)})"
            )


def discover(plugins: Sequence[Path] = ()) -> list[Pass]:
    """All passes: built in, installed under the entry point group `actcc.passes`, and plug-ins.

    Raises:
        PassError: two passes share a name, or one cannot be loaded.
    """
    from actcc.passes import BUILT_IN

    classes: list[type[Pass]] = list(BUILT_IN)
    for entry in metadata.entry_points(group=ENTRY_POINT_GROUP):
        try:
            loaded = entry.load()
        except Exception as error:  # whatever a third-party module raises at import
            raise PassError(f"installed pass '{entry.name}' cannot be loaded: {error}") from error
        _check_signatures(loaded, entry.name)
        classes.append(loaded)
    for path in plugins:
        classes += _load_plugin(path)
    passes = [cls() for cls in classes]
    names = [found.name for found in passes]
    for name in names:
        if names.count(name) > 1:
            raise PassError(f"two passes are named '{name}'; rename the one of the plug-in")
    return passes


def select_passes(
    passes: Sequence[Pass] | None,
    plugins: Sequence[str | Path] = (),
    skip: Sequence[str] = (),
    also: Sequence[str] = (),
    *,
    for_size: bool = False,
) -> list[Pass]:
    """The passes that run: all defaults, those asked for, without those skipped.

    Args:
        for_size: whether those run too that make files smaller.

    Raises:
        PassError: a name in `skip` or `also` is no pass, or a plug-in cannot be loaded.
    """
    from actcc.passes import NORMALIZING

    found = list(passes) if passes is not None else discover([Path(p) for p in plugins])
    known = {entry.name for entry in found} | {entry.name for entry in NORMALIZING}
    for name in (*skip, *also):
        if name not in known:
            raise PassError(f"no pass is named '{name}'; `actcc passes` lists them")

    def runs(entry: Pass) -> bool:
        asked_for = entry.name in also or (for_size and entry.for_size)
        return passes is not None or entry.default or asked_for

    return [entry for entry in found if entry.name not in skip and runs(entry)]


def _load_plugin(path: Path) -> list[type[Pass]]:
    module = load_module(path, "plug-in")
    found = [
        value
        for value in vars(module).values()
        if inspect.isclass(value)
        and issubclass(value, Pass)
        and value.__module__ == module.__name__
    ]
    unnamed = [cls.__name__ for cls in found if not cls.name]
    if unnamed:
        raise PassError(f"{path}: {unnamed[0]} has no name; put @actcc.rewrite('name') above it")
    if not found:
        raise PassError(f"{path}: no pass in it; derive a class from actcc.Pass")
    return found


def load_module(path: Path, purpose: str) -> ModuleType:
    """Import a user's Python file.

    Raises:
        PassError: the file is missing or raises while it is imported.
    """
    if not path.is_file():
        raise PassError(f"{path}: no such {purpose} file; give the path of a Python file")
    specification = importlib.util.spec_from_file_location(f"actcc_{path.stem}", path)
    if specification is None or specification.loader is None:
        raise PassError(f"{path}: not a Python file; give a {purpose} that ends in .py")
    module = importlib.util.module_from_spec(specification)
    sys.modules[specification.name] = module
    try:
        specification.loader.exec_module(module)
    except ActccError:
        raise
    except Exception as error:  # whatever the user's file raises
        reason = f"{type(error).__name__}: {error}"
        raise PassError(f"{path}: the {purpose} cannot be imported ({reason})") from error
    return module


def apply_pass(found: Pass, graph: Graph, site: Site, candidate: Candidate) -> None:
    """Apply a candidate in place.

    Raises:
        PassError: whatever the pass raises, with its name and the site.
    """
    with _blaming(found, f"apply of '{candidate.name}' at '{site.writes}'"):
        found.apply(graph, site, candidate)


@contextlib.contextmanager
def _blaming(found: Pass, doing: str) -> Iterator[None]:
    """A user's pass may raise anything: say which pass it was, and where."""
    try:
        yield
    except ActccError:
        raise
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())
        raise PassError(
            f"pass '{found.name}': {doing} raised {reason}; fix the pass or --skip {found.name}"
        ) from error


@dataclass(frozen=True)
class Survey:
    """What the passes found in a graph.

    Attributes:
        sites: with at least one candidate, in topological order.
        refusals: by pass name, matches that were refused and sites without candidates.
    """

    sites: tuple[OfferedSite, ...]
    refusals: tuple[tuple[str, Refusal], ...]

    @property
    def first_candidates(self) -> list[tuple[OfferedSite, str]]:
        """Every site with its first candidate."""
        return [(site, site.candidates[0].name) for site in self.sites]


def find_sites(
    graph: Graph,
    passes: Sequence[Pass],
    target: Target,
    *,
    exact_only: bool = False,
    samples: SampleSet | None = None,
) -> Survey:
    """Run `sites` and `candidates` of each pass.

    Args:
        samples: for calibration; what passes observe on them is part of their sites' facts.
        exact_only: without calibration data only exact candidates are offered (rule 6).
    """
    offered: list[OfferedSite] = []
    refused: list[tuple[str, Refusal]] = []
    position = {node.name: index for index, node in enumerate(graph.nodes())}
    for found in passes:
        for site in sites_of(graph, found, samples):
            if isinstance(site, Refusal):
                refused.append((found.name, site))
                continue
            entry = _offer(found, site, target, exact_only)
            if entry.candidates:
                offered.append(entry)
            refused += [(found.name, refusal) for refusal in entry.refusals]
    offered.sort(key=lambda entry: max(position[name] for name in entry.site.nodes))
    ids = [entry.id for entry in offered]
    repeated = next((identity for identity in ids if ids.count(identity) > 1), None)
    if repeated is not None:
        raise PassError(f"two sites share the id '{repeated}'; a pass may yield a place once")
    return Survey(tuple(offered), tuple(refused))


def sites_of(graph: Graph, found: Pass, samples: SampleSet | None = None) -> list[Site | Refusal]:
    """What one pass finds, with ids; a site without a kind is called after its operators.

    Args:
        samples: for calibration, which the pass may observe.

    Raises:
        PassError: whatever the pass raises, with its name.
    """
    with _blaming(found, "sites"):
        sites = list(found.sites(graph))

    def named(site: Site) -> Site:
        kind = site.kind or "+".join(dict.fromkeys(graph.node(name).op for name in site.nodes))
        return replace(site, kind=kind, id=f"{found.name}:{site.id}")

    named_sites = [named(site) if isinstance(site, Site) else site for site in sites]
    places = [site for site in named_sites if isinstance(site, Site)]
    if samples is None or not places or not found.observes:
        return named_sites
    with _blaming(found, "observe"):
        observed = {site.id: site for site in found.observe(graph, places, samples)}
    return [observed.get(s.id, s) if isinstance(s, Site) else s for s in named_sites]


def _offer(found: Pass, named: Site, target: Target, exact_only: bool) -> OfferedSite:
    candidates: list[Candidate] = []
    refusals: list[Refusal] = []
    with _blaming(found, f"candidates at '{named.writes}'"):
        entries = list(found.candidates(named, target))
    for entry in entries:
        if isinstance(entry, Refusal):
            refusals.append(Refusal(f"{named.writes} → {entry.subject}", entry.reason))
            continue
        exact = found.exact if entry.exact is None else entry.exact
        if exact_only and not exact:
            reason = "approximate, and there is no calibration data to bound it; give --calib"
            refusals.append(Refusal(f"{named.writes} → {entry.name}", reason))
        else:
            candidates.append(Candidate(entry.name, exact, entry.computes))
    return OfferedSite(named, found.name, tuple(candidates), tuple(refusals), found.late)


def apply_candidates(
    graph: Graph,
    passes: Sequence[Pass],
    chosen: Sequence[tuple[OfferedSite, str]],
    *,
    check: bool = True,
) -> Graph:
    """A copy of the graph with the chosen candidates applied.

    Args:
        check: verify after each pass that the interface is kept and the graph is valid.

    Raises:
        PassError: naming the pass that left the graph invalid.
    """
    rewritten = graph.copy()
    interface = Interface.of(graph) if check else None
    by_name = {found.name: found for found in passes}
    ran: list[str] = []
    for name in dict.fromkeys(entry.pass_name for entry, _ in chosen):
        for entry, candidate in chosen:
            if entry.pass_name != name:
                continue
            with rewritten.marking(name, entry.site.writes, candidate):
                apply_pass(by_name[name], rewritten, entry.site, entry.candidate(candidate))
        ran.append(name)
        if interface is not None:
            verify(rewritten, interface, ran)
    return rewritten
