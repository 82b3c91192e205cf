"""Budgets are written by people: each spelling means one thing, anything else is refused."""

import pytest

from actcc.budget import (
    Amount,
    Budget,
    parse_drop,
    parse_latency,
    parse_max_size,
    parse_memory,
)
from actcc.errors import BudgetError


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1%", Amount(0.01, True)),
        ("0.5abs", Amount(0.5, False)),
        (" 2.5 % ", Amount(0.025, True)),
        ("0%", Amount(0.0, True)),
    ],
)
def test_a_drop_is_relative_or_absolute(text: str, expected: Amount) -> None:
    found = parse_drop(text)
    assert found.relative is expected.relative
    assert found.value == pytest.approx(expected.value)


@pytest.mark.parametrize(
    ("text", "nanoseconds"), [("8ms", 8e6), ("500us", 5e5), ("500µs", 5e5), ("1.5s", 1.5e9)]
)
def test_a_latency_has_a_unit(text: str, nanoseconds: float) -> None:
    assert parse_latency(text) == Amount(nanoseconds, False)


def test_a_latency_in_per_cent_is_relative_to_the_original() -> None:
    assert parse_latency("70%").against(10e6) == pytest.approx(7e6)


@pytest.mark.parametrize(("text", "size"), [("4MiB", 4 * 2**20), ("512KiB", 2**19), ("10B", 10)])
def test_a_memory_has_a_unit(text: str, size: int) -> None:
    assert parse_memory(text) == Amount(size, False)


@pytest.mark.parametrize("text", ["1", "one%", "", "-1%", "5 abs rel", "nan%", "1e3%"])
def test_an_unclear_drop_is_refused_with_examples(text: str) -> None:
    with pytest.raises(BudgetError, match="write it as"):
        parse_drop(text)


def test_the_accuracy_objective_needs_a_latency() -> None:
    with pytest.raises(BudgetError, match="--max-latency"):
        Budget.parse(objective="accuracy")
    assert Budget.parse(max_latency="70%", objective="accuracy").objective == "accuracy"


@pytest.mark.parametrize(
    ("text", "expected"),
    [("2MiB", Amount(2 * 2**20, False)), ("500KiB", Amount(500 * 2**10, False)),
     ("50%", Amount(0.5, True))],
)  # fmt: skip
def test_a_size_is_in_bytes_or_relative_to_the_original(text: str, expected: Amount) -> None:
    assert parse_max_size(text) == expected


def test_size_counts_where_it_is_limited_or_made_small() -> None:
    assert not Budget.parse(max_memory="1MiB").size_counts
    assert Budget.parse(max_size="50%").size_counts
    assert Budget.parse(objective="size").size_counts


def test_a_small_file_loses_no_more_than_a_fast_one_by_default() -> None:
    assert Budget.parse(objective="size").drop_limit == Budget().drop_limit
