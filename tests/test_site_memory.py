"""Live memory at sites whose candidates, or whose own parts, cannot all be sized or priced."""

from __future__ import annotations

from typing import cast

import onnx
import pytest

from actcc.accuracy.estimate import Estimates
from actcc.errors import ModelError
from actcc.graph import Graph
from actcc.memory import MemoryProfile
from actcc.pass_api import find_sites
from actcc.passes.swap_activation import SwapActivation
from actcc.prices import Backend, Price, Unpriced
from actcc.program import Evidence, build_problem
from actcc.selection import MemoryStep
from actcc.site import KEEP
from actcc.site_memory import memory_steps
from actcc.targets import load_target

NPU1 = load_target("npu1")
GRAPH = Graph.load(
    onnx.parser.parse_model("""
    <ir_version: 8, opset_import: ["": 14]>
    part (float[1,8,4,4] x) => (float[1,8,4,4] y) { s = Sigmoid(x) y = Mul(x, s) }
    """)
)
(SITE,) = find_sites(GRAPH, [SwapActivation()], NPU1).sites


class SizesWholeNetworksOnly:
    """A backend whose memory profile of any part of the network fails."""

    def memory(self, model: Graph) -> MemoryProfile:
        if model is not GRAPH:
            raise ModelError("this part cannot be sized")
        return NPU1.backend.memory(model)


def test_a_site_that_cannot_be_sized_by_itself_counts_as_it_is() -> None:
    backend = cast(Backend, SizesWholeNetworksOnly())
    _, step = memory_steps(GRAPH, [SITE], [SwapActivation()], backend)
    assert step.terms == ()
    assert step.base_bytes == max(size for _, size in NPU1.backend.memory(GRAPH).steps)


@pytest.mark.parametrize("chosen", ["HardSwish", "Relu"])
def test_a_candidate_without_a_price_has_no_part_in_the_memory_budget(chosen: str) -> None:
    prices = {c.name: Unpriced("no kernel") for c in SITE.candidates}
    keep = Price(10.0, 0.0, 0.0, "estimated", "test")
    priced = {**prices, KEEP: keep, chosen: Price(5.0, -5.0, 0.0, "estimated", "test")}
    losses = {(SITE.id, c.computes): 0.0 for c in SITE.candidates}
    terms = tuple((SITE.id, name, 64) for name in priced)
    steps = (MemoryStep(SITE.id, 0, terms),)
    evidence = Evidence([SITE], {SITE.id: priced}, Estimates(losses, {}), 10.0, 10.0, 64, steps)
    problem = build_problem(evidence)
    assert {name for _, name, _ in problem.memory[0].terms} == {KEEP, chosen}
