"""Sites and candidates: what a pass finds and offers."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from actcc.errors import PassError

KEEP = "keep"
Fact = str | int | float | bool


@dataclass(frozen=True, init=False)
class Site:
    """A place in the graph that may be rewritten; every site has the candidate `keep`.

    Nodes and tensors may be given as objects or names; names are kept, so that a site means the
    same place in every copy of the graph and can be written as JSON.

    Attributes:
        nodes: names of the nodes that a candidate rewrites (it *claims* them).
        reads: the tensor that enters; the first, where several do.
        writes: the tensor that leaves; it keeps its name under every candidate.
        kind: what is there, for tables: "Silu", "inverted residual".
        facts: what the pass wants to remember of it; JSON values.
        id: unique in the graph; `<pass>:<writes>`, set when the pass is run. A pass with several
            sites that write one tensor gives each a name of its own to stand for `<writes>`.
    """

    nodes: tuple[str, ...]
    reads: str
    writes: str
    kind: str
    facts: Mapping[str, Fact]
    id: str

    def __init__(
        self,
        nodes: Iterable[Any],
        reads: Any,
        writes: Any,
        kind: str = "",
        facts: Mapping[str, Fact] | None = None,
        id: str = "",
    ) -> None:
        names = tuple(_name(node) for node in nodes)
        if not names:
            raise PassError("a site needs at least one node; yield no site where nothing matches")
        object.__setattr__(self, "nodes", names)
        object.__setattr__(self, "reads", _name(reads))
        object.__setattr__(self, "writes", _name(writes))
        object.__setattr__(self, "kind", kind)
        object.__setattr__(self, "facts", dict(facts or {}))
        object.__setattr__(self, "id", id or _name(writes))

    def __hash__(self) -> int:
        return hash((self.id, self.nodes))


def _name(thing: Any) -> str:
    return thing if isinstance(thing, str) else str(thing.name)


@dataclass(frozen=True)
class Candidate:
    """One way to rewrite a site.

    Attributes:
        name: unique for the site.
        exact: computes the same function up to float rounding; None takes the pass's default.
        computes: candidates of one site with the same `computes` compute the same function (two
            spellings of HardSwish, say), so that one accuracy estimate serves them all.
    """

    name: str
    exact: bool | None = None
    computes: str = ""

    def __post_init__(self) -> None:
        if not self.name or self.name == KEEP:
            raise PassError(f"'{self.name}' is no name for a candidate; every site has '{KEEP}'")
        if not self.computes:
            object.__setattr__(self, "computes", self.name)


@dataclass(frozen=True)
class Refusal:
    """A match or candidate that is not offered, and why: one sentence, for `--explain`.

    Attributes:
        subject: the candidate's name, or the node where a match was refused.
        reason: what stands against it.
    """

    subject: str
    reason: str


@dataclass(frozen=True)
class OfferedSite:
    """A site with its candidates, as found by one pass.

    Attributes:
        pass_name: the pass that found it and can apply its candidates.
        candidates: without `keep`; every one has `exact` set.
        refusals: candidates that the pass does not offer here.
        late: whether it is rewritten behind the repair, last of all.
    """

    site: Site
    pass_name: str
    candidates: tuple[Candidate, ...]
    refusals: tuple[Refusal, ...] = field(default=())
    late: bool = False

    @property
    def id(self) -> str:
        """The site's id."""
        return self.site.id

    def candidate(self, name: str) -> Candidate:
        """The candidate of that name; raises PassError where there is none."""
        for candidate in self.candidates:
            if candidate.name == name:
                return candidate
        raise PassError(f"site '{self.id}' has no candidate '{name}'")
