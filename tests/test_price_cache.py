"""The price cache: what is kept, under which key, and what happens to a damaged file."""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import pickle
import sqlite3
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Literal

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from actcc.errors import CacheError, ModelError
from actcc.graph import Graph
from actcc.price_cache import PriceCache, cached_price, default_cache_path, query_key
from actcc.prices import LayerTime, Price, PriceQuery, Timing, Unpriced


def part(op: str, seed: int = 0) -> Graph:
    model = onnx.parser.parse_model(f"""
        <ir_version: 8, opset_import: ["": 14]>
        part (float[1, 3, 8, 8] x) => (float[1, 4, 8, 8] y) {{
            z = Conv(x, w)
            y = {op}(z)
        }}
    """)
    weight = np.random.default_rng(seed).standard_normal((4, 3, 1, 1)).astype(np.float32)
    model.graph.initializer.append(numpy_helper.from_array(weight, "w"))
    return Graph.load(model)


class Counting:
    """A backend that counts its queries and cannot price some candidates."""

    source: Literal["measured"] = "measured"

    def __init__(self, tool: str = "tool 1", failing: Sequence[str] = ()) -> None:
        self.tool = tool
        self.failing = failing
        self.cacheable = True
        self.asked: list[list[str]] = []

    def price(self, query: PriceQuery) -> dict[str, Price | Unpriced]:
        self.asked.append([*query.candidates])
        number = len(self.asked)
        return {
            name: Unpriced("no kernel")
            if name in self.failing
            else Price(100.5 + number, -number / 3, 0.1, self.source, self.tool)
            for name in ("keep", *query.candidates)
        }

    def time_models(self, models: Sequence[Graph], feeds: object = None) -> list[Timing]:
        raise ModelError("not asked here; ask for a price")

    def layers(self, model: Graph) -> list[LayerTime]:
        raise ModelError("not asked here; ask for a price")


@pytest.fixture
def cache(tmp_path: Path) -> PriceCache:
    return PriceCache(tmp_path / "prices.sqlite")


@pytest.fixture
def query() -> PriceQuery:
    return PriceQuery(part("Sigmoid"), {"Relu": part("Relu"), "Tanh": part("Tanh")})


def test_a_query_is_priced_once_and_read_back_equal(cache: PriceCache, query: PriceQuery) -> None:
    backend = Counting()
    first = cached_price(cache, backend, query)
    assert cached_price(PriceCache(cache.path), backend, query) == first
    assert backend.asked == [["Relu", "Tanh"]]


def test_equal_structure_with_other_weights_and_order_shares_an_entry(query: PriceQuery) -> None:
    other = PriceQuery(
        part("Sigmoid", seed=1), {"Tanh": part("Tanh", seed=2), "Relu": part("Relu", seed=3)}
    )
    assert query_key(Counting(), other) == query_key(Counting(), query)


def test_the_tool_the_candidates_and_the_structures_are_in_the_key(query: PriceQuery) -> None:
    keys = {
        query_key(Counting(), query),
        query_key(Counting("tool 2"), query),
        query_key(Counting(), PriceQuery(part("Softsign"), query.candidates)),
        query_key(Counting(), PriceQuery(query.baseline, {"Relu": part("Relu")})),
        query_key(Counting(), PriceQuery(query.baseline, {"Tanh": part("Relu")})),
        query_key(Counting(), PriceQuery(query.baseline, {"Relu": part("Elu")})),
    }
    assert len(keys) == 6


def test_a_failure_is_not_kept_and_is_tried_again_alone(
    cache: PriceCache, query: PriceQuery
) -> None:
    backend = Counting(failing=["Tanh"])
    first = cached_price(cache, backend, query)
    assert first["Tanh"] == Unpriced("no kernel")
    assert cached_price(cache, backend, query) == first
    assert backend.asked == [["Relu", "Tanh"], ["Tanh"]]


def test_a_failure_that_is_gone_makes_the_whole_query_be_priced_anew(
    cache: PriceCache, query: PriceQuery
) -> None:
    cached_price(cache, Counting(failing=["Tanh"]), query)
    mended = Counting()
    prices = cached_price(cache, mended, query)
    assert mended.asked == [["Tanh"], ["Relu", "Tanh"]]
    assert prices["keep"] == Price(102.5, -2 / 3, 0.1, "measured", "tool 1")
    assert cached_price(cache, mended, query) == prices
    assert len(mended.asked) == 2


def test_nothing_is_kept_of_a_neighbourhood_that_cannot_be_priced(
    cache: PriceCache, query: PriceQuery
) -> None:
    backend = Counting(failing=["keep", "Relu", "Tanh"])
    for _ in range(2):
        assert set(cached_price(cache, backend, query).values()) == {Unpriced("no kernel")}
    assert backend.asked == [["Relu", "Tanh"]] * 2


def test_what_is_not_worth_keeping_leaves_no_file(cache: PriceCache, query: PriceQuery) -> None:
    backend = Counting()
    backend.cacheable = False
    cached_price(cache, backend, query)
    cached_price(None, Counting(), query)
    assert not cache.path.exists()


def damage_with_garbage(path: Path) -> None:
    path.write_bytes(b"this is no database" * 500)


def damage_an_entry(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute('UPDATE prices_1 SET value = \'{"keep": {"cost": 1}}\'')
    connection.close()


def cut_in_half(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


@pytest.mark.parametrize("damage", [damage_with_garbage, damage_an_entry, cut_in_half])
def test_a_damaged_file_is_moved_aside_with_one_line_and_begun_anew(
    cache: PriceCache,
    query: PriceQuery,
    damage: object,
    caplog: pytest.LogCaptureFixture,
) -> None:
    cached_price(cache, Counting(), query)
    assert callable(damage)
    damage(cache.path)
    backend = Counting()
    with caplog.at_level(logging.WARNING):
        again = cached_price(cache, backend, query)
    assert cached_price(cache, backend, query) == again
    assert len(backend.asked) == 1
    (message,) = (record.getMessage() for record in caplog.records)
    assert "is damaged" in message
    assert "\n" not in message
    (aside,) = cache.path.parent.glob("*.corrupt-*")
    assert aside.name in message


def test_a_place_that_cannot_be_written_is_done_without(
    tmp_path: Path, query: PriceQuery, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("no folder")
    cache = PriceCache(tmp_path / "file" / "prices.sqlite")
    with caplog.at_level(logging.WARNING):
        prices = cached_price(cache, Counting(), query)
    assert isinstance(prices["Relu"], Price)
    assert "going on without it" in caplog.records[0].getMessage()


def test_whether_a_cache_can_be_used_is_asked_once_for_all_tasks(
    tmp_path: Path, cache: PriceCache, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("no folder")
    with caplog.at_level(logging.WARNING):
        assert cache.usable()
        assert not caplog.records
        assert not PriceCache(tmp_path / "file" / "prices.sqlite").usable()
    (message,) = (record.getMessage() for record in caplog.records)
    assert "going on without it" in message


def test_a_file_that_can_only_be_read_is_not_used(
    cache: PriceCache, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cache.put("key", {})
    opened = sqlite3.connect

    def read_only(path: Path, **options: float) -> sqlite3.Connection:
        return opened(f"file:{path}?mode=ro", uri=True, **options)

    monkeypatch.setattr(sqlite3, "connect", read_only)
    with caplog.at_level(logging.WARNING):
        assert not cache.usable()
    assert "readonly" in caplog.records[0].getMessage()


def test_a_cache_in_use_is_neither_removed_nor_taken_for_damaged(
    cache: PriceCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.put("key", {"keep": Price(1.0, 0.0, 0.0, "measured", "tool")})
    monkeypatch.setattr("actcc.price_cache._LONGEST_WAIT_S", 0.01)
    with contextlib.closing(sqlite3.connect(cache.path)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("PRAGMA journal_mode = DELETE")
        other.execute("BEGIN EXCLUSIVE")
        for refused in (cache.contents, cache.clear):
            with pytest.raises(CacheError, match=r"locked.*when no other process uses it"):
                refused()
        other.rollback()
    assert cache.contents().entries == {"tool": 1}


def put_some(task: tuple[PriceCache, int]) -> None:
    cache, worker = task
    for number in range(25):
        price = Price(float(worker), float(number), 0.0, "measured", "tool")
        cache.put(f"{worker}/{number}", {"keep": price})
        cache.put("shared", {"keep": price})


def test_several_processes_write_one_new_file_and_lose_nothing(cache: PriceCache) -> None:
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(4, mp_context=spawn) as pool:
        list(pool.map(put_some, [(cache, worker) for worker in range(4)]))
    for worker in range(4):
        for number in range(25):
            kept = cache.get(f"{worker}/{number}")
            assert kept == {"keep": Price(worker, number, 0.0, "measured", "tool")}
    assert cache.get("shared") is not None
    assert not list(cache.path.parent.glob("*.corrupt-*"))


def test_a_cache_travels_to_another_process(cache: PriceCache) -> None:
    assert pickle.loads(pickle.dumps(cache)).path == cache.path


def test_the_environment_names_the_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACTCC_CACHE_DIR", str(tmp_path / "here"))
    assert default_cache_path() == tmp_path / "here" / "prices.sqlite"
    assert PriceCache().path == default_cache_path()
    PriceCache().put("key", {})
    assert default_cache_path().is_file()
    monkeypatch.delenv("ACTCC_CACHE_DIR")
    assert "actcc" in default_cache_path().parts
