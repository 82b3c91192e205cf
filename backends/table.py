"""Prices from a table: what a probe kit measured on a device, looked up by structure.

A graph that is in the table as a whole costs what was measured. Any other is held against one that
is: the layers in which the two differ are looked up, so that only what changed must be in the
table, and what a toolchain spends between layers stays in the figure. Where nothing of the kind
was measured, a graph is the sum of its layers. What is missing is unpriced, or, where the profile
says `predict = true`, predicted by a regression on the table (`latency_models.probe_regression`).
"""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from actcc.errors import ModelError, PricingError
from actcc.graph import Array, Graph, structure_hash
from actcc.graph.layers import layers
from actcc.latency_models import Profile, checked_settings
from actcc.latency_models.probe_features import graph_features
from actcc.latency_models.probe_regression import (
    CONFIDENCE_99,
    Features,
    LatencyRegression,
)
from actcc.latency_models.probe_table import ProbeTable, load_table
from actcc.memory import MemoryProfile, peak_memory
from actcc.prices import LayerTime, Price, PriceQuery, Source, Timing, Unpriced
from actcc.site import KEEP

_HOW = "make a kit of this model with `actcc probe kit`, run it on the device, use its CSV"


class TableSettings(BaseModel):
    """The section `[settings]` of a profile with `backend = "table"`.

    Attributes:
        table: CSV file, by its path from the profile's folder.
        predict: whether what is not in it is predicted.
        contrib_operators: whether operators of com.microsoft are offered.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    table: str = Field(min_length=1)
    predict: bool = False
    contrib_operators: bool = False


@dataclass(frozen=True)
class _Figure:
    """A latency in ns, with the half width of its interval at 99 %."""

    latency_ns: float
    noise_ns: float


class TableBackend:
    """Prices from the CSV file that a profile names.

    Raises:
        TargetError: the profile's settings or the table do not fit.
    """

    def __init__(self, profile: Profile) -> None:
        self.settings = checked_settings(TableSettings, profile)
        folder = profile.folder or Path()
        path = folder / self.settings.table
        modified = path.stat().st_mtime_ns if path.is_file() else 0
        self.table: ProbeTable = _table(path, modified)

    @property
    def tool(self) -> str:
        """What the table was measured with, and a hash of it."""
        way = ", predicted where it has no entry" if self.settings.predict else ""
        return f"actcc table {self.table.digest}{way} ({self.table.tool})"

    @property
    def source(self) -> Source:
        """Estimated: a whole model's latency is put together; single prices may be measured."""
        return "estimated"

    @property
    def cacheable(self) -> bool:
        """No: the table is the cache."""
        return False

    def price(self, query: PriceQuery) -> dict[str, Price | Unpriced]:
        """A price for `keep` and for each candidate.

        "measured" where the table holds both, and "estimated" where layers were put together.
        """
        try:
            known = self._known(query.baseline)
            keep = known or self._whole(query.baseline)
        except ModelError as error:
            return dict.fromkeys((KEEP, *query.candidates), Unpriced(str(error)))
        source: Source = "estimated" if known is None else "measured"
        prices: dict[str, Price | Unpriced] = {}
        for name, graph in {KEEP: query.baseline, **query.candidates}.items():
            try:
                prices[name] = self._price(query.baseline, keep, source, graph)
            except ModelError as error:
                prices[name] = Unpriced(str(error))
        return prices

    def _price(self, baseline: Graph, keep: _Figure, source: Source, graph: Graph) -> Price:
        if structure_hash(graph) == structure_hash(baseline):
            return Price(keep.latency_ns, 0.0, 0.0, source, self.tool)
        rows = self.table.measured
        found, base = rows.get(structure_hash(graph)), rows.get(structure_hash(baseline))
        if found is not None and base is not None:
            change = _Figure(*self.table.difference(found, base))
        else:
            source = "estimated"
            change = self._change(layers(baseline), layers(graph))
        told = change.latency_ns if abs(change.latency_ns) > change.noise_ns else 0.0
        latency = keep.latency_ns + change.latency_ns
        return Price(latency, told, change.noise_ns, source, self.tool)

    def time_models(
        self, models: Sequence[Graph], feeds: Mapping[str, Array] | None = None
    ) -> list[Timing]:
        """Latency of whole models, put together from the table.

        The first costs what was measured of it as a whole, or else the sum of its layers and one
        call. Every other costs as much more or less as the layers do in which the two differ, or
        what was measured of it as a whole where that is the surer figure.

        Args:
            feeds: of no account; nothing runs.

        Raises:
            PricingError: a layer is not in the table.
            ModelError: a shape is not static.
        """
        del feeds
        first = self._known(models[0]) or self._whole(models[0])
        before = layers(models[0])
        return [
            self._timing(model, first, self._whole_change(models[0], before, model))
            for model in models
        ]

    def _whole_change(self, first: Graph, before: Sequence[Graph], model: Graph) -> _Figure:
        change = self._change(before, layers(model))
        one, other = self._known(first), self._known(model)
        if one is not None and other is not None:
            noise = math.hypot(one.noise_ns, other.noise_ns)
            if noise < change.noise_ns:
                return _Figure(other.latency_ns - one.latency_ns, noise)
        return change

    def _timing(self, model: Graph, first: _Figure, change: _Figure) -> Timing:
        latency = first.latency_ns + change.latency_ns
        if latency <= 0:
            raise PricingError(f"what the table says of its layers adds up to no latency; {_HOW}")
        return Timing(
            latency_ns=latency,
            noise_ns=math.hypot(first.noise_ns, change.noise_ns),
            source=self.source,
            tool=self.tool,
            peak_bytes=self.memory(model).peak_bytes,
            ratio=latency / first.latency_ns,
            ratio_noise=change.noise_ns / first.latency_ns,
        )

    def memory(self, model: Graph) -> MemoryProfile:
        """Live bytes of activations in each tensor's own type.

        Raises:
            PricingError: a shape is not static.
        """
        return peak_memory(model)

    def layers(self, model: Graph) -> list[LayerTime]:
        """Latency by layer; `bound` is "predicted" for those that are not in the table.

        Where the model was measured as a whole, the rows add up to that.

        Raises:
            PricingError: a layer is not in the table.
            ModelError: a shape is not static.
        """
        parts = layers(model)
        found = [self._change([], [part]).latency_ns for part in parts]
        known = self._known(model)
        share = 1.0 if known is None else known.latency_ns / sum(found)
        return [
            self._layer(part, share * latency) for part, latency in zip(parts, found, strict=True)
        ]

    def _layer(self, part: Graph, latency_ns: float) -> LayerTime:
        nodes = list(part.nodes())
        bound = "" if structure_hash(part) in self.table.measured else "predicted"
        return LayerTime(nodes[0].name, "+".join(n.op for n in nodes), latency_ns, bound)

    # ---------------------------------------------------------------- the table

    def _known(self, graph: Graph) -> _Figure | None:
        """What was measured of a graph as a whole, with the call."""
        row = self.table.measured.get(structure_hash(graph))
        return None if row is None else _Figure(row.latency_ns, row.noise_ns)

    def _whole(self, graph: Graph) -> _Figure:
        """The sum of a graph's layers, and one call."""
        found = self._change([], layers(graph))
        return replace(found, latency_ns=found.latency_ns + self.table.call_ns)

    def _change(self, before: Sequence[Graph], after: Sequence[Graph]) -> _Figure:
        """What the layers `after` cost more than those `before`; equal ones cancel out."""
        parts = {structure_hash(part): part for part in (*before, *after)}
        counts = Counter(structure_hash(part) for part in after)
        counts.subtract(structure_hash(part) for part in before)
        latency = variance = 0.0
        predicted: list[tuple[int, Features]] = []
        for key, count in counts.items():
            row = self.table.measured.get(key)
            if count and row is not None:
                latency += count * self.table.work_ns(row)
                variance += (count * row.noise_ns) ** 2
            elif count:
                predicted.append((count, self._features(key, parts[key])))
        if predicted:
            times = np.array([count for count, _ in predicted])
            found = _regression(self.table).predict([features for _, features in predicted])
            latency += float(times @ found.latency_ns)
            variance += CONFIDENCE_99**2 * max(float(times @ found.covariance @ times), 0.0)
        return _Figure(latency, math.sqrt(variance))

    def _features(self, key: str, part: Graph) -> Features:
        """What a layer that was not measured is predicted from.

        Raises:
            PricingError: it may not or cannot be predicted.
        """
        said = "+".join(node.op for node in part.nodes())
        shapes = " ".join("x".join(map(str, part.shape(t) or ())) for t in part.inputs)
        where = f"the layer {said} on {shapes} (probe {key[:12]})"
        failed = self.table.rows.get(key)
        if failed is not None:
            raise PricingError(f"{where} failed on the device: {failed.reason}")
        if not self.settings.predict:
            raise PricingError(
                f"{self.table.path.name} lacks {where}; {_HOW}, or set predict = true"
            )
        features = graph_features(part)
        unknown = _regression(self.table).unknown(features)
        if unknown:
            raise PricingError(
                f"{self.table.path.name} lacks {where}, and no graph in it has '{unknown}' to "
                f"predict it from; {_HOW}"
            )
        return features


# A backend is made for every price; the file is read and the regression fitted once a process.
@functools.lru_cache(maxsize=4)
def _table(path: Path, modified_ns: int) -> ProbeTable:
    return load_table(path)


@functools.lru_cache(maxsize=4)
def _regression(table: ProbeTable) -> LatencyRegression:
    return LatencyRegression.of(table)
