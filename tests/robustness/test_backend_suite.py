"""The onnx package's backend test suite through `optimize()`; see `run_backend_suite.py`."""

from collections.abc import Sequence

import pytest
from backend_cases import BackendCase, collect_cases
from run_backend_suite import TARGETS, report, run_cases


@pytest.fixture(scope="module")
def cases() -> list[BackendCase]:
    return collect_cases()


def failures(cases: Sequence[BackendCase]) -> list[str]:
    outcomes = list(run_cases(cases, TARGETS, 2))
    report(cases, outcomes)
    return [f"{o.case} on {o.target}: {o.detail}" for o in outcomes if o.kind == "failed"]


def test_twenty_cases_are_rewritten_with_equal_outputs_or_come_back_as_they_are(
    cases: list[BackendCase],
) -> None:
    assert failures([case for case in cases[::101] if not case.name.startswith("real/")]) == []


def test_the_suite_is_as_large_as_it_was_thought_to_be(cases: list[BackendCase]) -> None:
    assert len(cases) > 1000
    assert len({case.name for case in cases}) == len(cases)
    assert all(case.model and (case.feeds or b"input" not in case.model) for case in cases[::40])


@pytest.mark.slow  # two thousand models on two targets: ten minutes
def test_every_case_is_rewritten_with_equal_outputs_or_comes_back_as_it_is(
    cases: list[BackendCase],
) -> None:
    assert failures(cases) == []
