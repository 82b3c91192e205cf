"""The plan: what was chosen at each site, on which grounds; JSON that can be applied again."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from actcc.errors import PlanError
from actcc.graph.files import write_text
from actcc.prices import Source
from actcc.site import KEEP

FORMAT = 2


@dataclass(frozen=True)
class CandidateFigures:
    """What the solver knew of one candidate.

    Attributes:
        difference_ns: latency against `keep` beside the chosen neighbours, so that those of all
            chosen candidates add up to the plan's; None if it could not be priced.
        noise_ns: of the difference.
        loss: of fidelity if only this site changes; 0 for exact candidates, None if unknown.
        reason: why it was not offered to the solver or not chosen; empty for the chosen one.
        size_bytes: of the file against `keep`; None where size does not count.
    """

    name: str
    exact: bool
    difference_ns: float | None
    noise_ns: float | None
    loss: float | None
    reason: str = ""
    size_bytes: int | None = None


@dataclass(frozen=True)
class SitePlan:
    """One site with what was chosen.

    Attributes:
        spelling: how `kind` was written in the model, where the pass says so.
    """

    id: str
    pass_name: str
    kind: str
    spelling: str
    nodes: tuple[str, ...]
    chosen: str
    candidates: tuple[CandidateFigures, ...]

    @property
    def change(self) -> str:
        """What was done, for tables: "Silu → HardSwish"."""
        same_function = self.chosen.split(" as ")[0] == self.kind and bool(self.spelling)
        return f"{self.kind}{f' as {self.spelling}' if same_function else ''} → {self.chosen}"


@dataclass(frozen=True)
class LatencyFigures:
    """Latency of the original and the result in nanoseconds, and their ratio, in one run."""

    original_ns: float
    result_ns: float
    ratio: float
    ratio_noise: float
    source: Source


@dataclass(frozen=True)
class AccuracyFigures:
    """Accuracy on held-out samples.

    Attributes:
        metric: "fidelity" or the name of the user's metric; higher is better.
        original: the original's value; 1 for fidelity.
        result: the result's value.
        allowed_drop: in the metric's units; None is no limit.
        samples: number of held-out samples.
        confidence: of the two bounds below, each one-sided.
        least_drop: what was lost at least, by resampling; None where there is nothing to resample.
        most_drop: what was lost at most; the budget is held against it.
        unrepaired: the value of the same rewrites before the repair; None where there was none.
        original_in_int8: the value of the original as a device of int8 runs it, as which `result`
            was found too; None where both were found in the precision of the ONNX file.
    """

    metric: str
    original: float
    result: float
    allowed_drop: float | None
    samples: int
    confidence: float
    least_drop: float | None = None
    most_drop: float | None = None
    unrepaired: float | None = None
    original_in_int8: float | None = None

    @property
    def bound(self) -> float:
        """The drop that the budget is held against, in the metric's units."""
        return self.drop if self.most_drop is None else max(self.drop, self.most_drop)

    @property
    def drop(self) -> float:
        """What was lost, in the metric's units."""
        return self.original - self.result

    @property
    def lost(self) -> str:
        """The drop for people, with its bound where that alone breaks the budget."""
        said = f"{self.drop:.4g}"
        if self.allowed_drop is not None and self.drop <= self.allowed_drop < self.bound:
            said += f" (up to {self.bound:.4g} with {100 * self.confidence:g} % confidence)"
        return said


@dataclass(frozen=True)
class Plan:
    """The chosen candidate of every site, predicted and measured figures, and provenance.

    Attributes:
        model_parts: the original's parts with their digests; see `actcc.graph.fingerprint`.
        result_hash: content hash of the model that was written.
        input_shapes: concrete shapes that were chosen for symbolic inputs.
        skip: passes that were left out by name.
        predicted_latency_ns: None where the target cannot price the model.
        latency: None where the target cannot time the model, which is left as it is then.
        macs: multiply-accumulates of the normalized network and of the result; None where shapes
            are not known.
        nn_mass: of both; see `actcc.estimators.nn_mass`.
        size_bytes: of the original's file and the result's, weights beside them included.
    """

    format: int
    model_name: str
    model_hash: str
    model_parts: Mapping[str, str]
    result_hash: str
    input_shapes: Mapping[str, tuple[int, ...]]
    skip: tuple[str, ...]
    target: str
    tool: str
    seed: int
    versions: Mapping[str, str]
    settings: Mapping[str, str]
    normalized: tuple[tuple[str, str], ...]
    sites: tuple[SitePlan, ...]
    predicted_latency_ns: float | None
    predicted_loss: float
    latency: LatencyFigures | None
    accuracy: AccuracyFigures | None
    peak_bytes: tuple[int | None, int | None]
    max_relative_difference: float | None
    dram_bytes: tuple[int | None, int | None] = (None, None)
    macs: tuple[int | None, int | None] = (None, None)
    nn_mass: tuple[float, float] = (0.0, 0.0)
    size_bytes: tuple[int | None, int | None] = (None, None)

    @property
    def chosen(self) -> dict[str, str]:
        """Candidate by site id, `keep` included."""
        return {site.id: site.chosen for site in self.sites}

    @property
    def rewritten(self) -> tuple[SitePlan, ...]:
        """The sites that are not kept."""
        return tuple(site for site in self.sites if site.chosen != KEEP)

    def to_json(self) -> str:
        """JSON text; `Plan.from_json` reads it back equal."""
        return str(_adapter().dump_json(self, indent=2).decode()) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """A plan from its JSON text.

        Raises:
            PlanError: not a plan, or one of another format version.
        """
        from pydantic import ValidationError

        try:
            plan: Plan = _adapter().validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "plan"
            raise PlanError(f"not a plan: '{where}': {first['msg']}; write it again") from error
        if plan.format != FORMAT:
            raise PlanError(
                f"plan format {plan.format}, this version reads {FORMAT}; optimise again"
            )
        return plan

    @classmethod
    def load(cls, path: Path) -> Plan:
        """A plan from a file.

        Raises:
            PlanError: no such file, or no plan in it.
        """
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise PlanError(f"{path}: cannot be read as a plan; give a .plan.json") from error
        try:
            return cls.from_json(text)
        except PlanError as error:
            raise PlanError(f"{path}: {error}") from error

    def save(self, path: Path) -> None:
        """Write the plan as JSON, whole or not at all."""
        write_text(path, self.to_json())


@functools.cache
def _adapter() -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(Plan)
