"""`--precision int8`: all that can run in int8 does, behind whatever else is rewritten.

Int8 is no choice of the solver then. What it may still choose, activations and structure, is priced
in parts of the network that run in int8 themselves; losses are estimated in floating point, and the
budget is held against the whole as it is verified.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from actcc.calibration import SampleSet, load_samples
from actcc.deploy import TfliteBackend
from actcc.effort import INT8, PRECISIONS
from actcc.errors import BudgetError, DataError, TargetError
from actcc.graph import Graph
from actcc.pass_api import Pass, Survey, apply_candidates, find_sites
from actcc.prices import NetworkBackend
from actcc.runtime import random_feeds
from actcc.targets import Target

_SEED = 0


@dataclass(frozen=True)
class WholeInt8:
    """A late pass that is applied wherever it can be."""

    rewrite: Pass
    target: Target

    def survey(self, graph: Graph, samples: SampleSet) -> Survey:
        """What of a network can run in int8, and why the rest cannot."""
        return find_sites(graph, [self.rewrite], self.target, samples=samples)

    def of(self, graph: Graph, samples: SampleSet) -> Graph:
        """The network in int8."""
        found = self.survey(graph, samples)
        return apply_candidates(graph, [self.rewrite], found.first_candidates)

    def for_prices(self, part: Graph) -> Graph:
        """A part of a network in int8; its ranges, which cost no time, are of random values.

        Raises:
            ActccError: the part cannot be run.
        """
        return self.of(part, load_samples([random_feeds(part, _SEED)], part))

    def leave_to_choose(self, survey: Survey) -> Survey:
        """The sites of other passes, without what would come behind the repair where int8 does."""
        own = {name for s in survey.sites if self._is_own(s.pass_name) for name in s.site.nodes}
        left = [s for s in survey.sites if not self._is_own(s.pass_name)]
        return replace(
            survey,
            sites=tuple(s for s in left if not (s.late and own.intersection(s.site.nodes))),
        )

    def _is_own(self, pass_name: str) -> bool:
        return pass_name == self.rewrite.name


def find_whole_int8(
    precision: str, target: Target, passes: Sequence[Pass], samples: SampleSet | None
) -> WholeInt8 | None:
    """What puts all into int8; None where that is not asked for, or the target's toolchain does it
    with every network.

    Raises:
        BudgetError: the pass that does it was left out.
        DataError: there are no samples to find ranges on.
        TargetError: the target does not run such models.
    """
    if precision != INT8 or isinstance(target.backend, TfliteBackend):
        return None
    found = next((entry for entry in passes if entry.name in PRECISIONS[INT8]), None)
    if found is None:
        raise BudgetError(
            f"--precision int8 is what the pass '{PRECISIONS[INT8][0]}' does, which is left out; "
            "do not skip it"
        )
    if samples is None:
        raise DataError("--precision int8 needs samples to find ranges on; give --calib")
    if target.int8_weight_bits is None or isinstance(target.backend, NetworkBackend):
        raise TargetError(
            f"--precision int8: target '{target.name}' does not price QuantizeLinear in its "
            "kernels; leave the option out, or give a target that does, such as cpu"
        )
    return WholeInt8(found, target)
