"""Prices kept between runs, in one SQLite file.

An entry is a whole query, because prices of one query are only comparable when they were measured
together. Its key is the structure of every graph of the query, the backend's tool with version and
settings, and the version of actcc. A failure is never kept.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import os
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

import platformdirs

from actcc.errors import CacheError, ModelError
from actcc.graph import Graph, structure_hash
from actcc.prices import Backend, Price, PriceQuery, Unpriced
from actcc.site import KEEP

_log = logging.getLogger(__name__)
_FILE = "prices.sqlite"
_TABLE = "prices_1"
_LONGEST_WAIT_S = 30.0
_BESIDE = ("-wal", "-shm")
_ASIDE = ".corrupt-"
# But for an OperationalError, which says that the file is locked or cannot be opened.
_DAMAGE = (sqlite3.DatabaseError, ValueError, TypeError, KeyError)

Found = TypeVar("Found")


def default_cache_path() -> Path:
    """The cache file: in `ACTCC_CACHE_DIR` where that is set, else in the user's cache folder."""
    named = os.environ.get("ACTCC_CACHE_DIR")
    return (Path(named) if named else Path(platformdirs.user_cache_dir("actcc"))) / _FILE


@dataclass(frozen=True)
class CacheContents:
    """What a cache holds.

    Attributes:
        size_bytes: of its file, and of what belongs to it.
        entries: queries by the tool that priced them; the most first.
        damaged: files that were moved aside because they could not be read.
    """

    path: Path
    size_bytes: int
    entries: Mapping[str, int]
    damaged: tuple[Path, ...]

    def to_json(self) -> dict[str, Any]:
        """JSON values."""
        damaged = [str(path) for path in self.damaged]
        return {"format": 1, **asdict(self), "path": str(self.path), "damaged": damaged}


class PriceCache:
    """Prices by key; several processes may use one file at the same time.

    A file that cannot be read is moved aside and begun anew; a place that cannot be written is
    done without. Both are said once in a line on the logger `actcc.price_cache`; neither is an
    error, because a price can always be found again. Picklable.

    Args:
        path: None for `default_cache_path()`.
    """

    def __init__(self, path: Path | None = None) -> None:
        self.path = default_cache_path() if path is None else path

    def get(self, key: str) -> dict[str, Price] | None:
        """The prices that are kept under the key, by candidate; None where there are none."""

        def read(connection: sqlite3.Connection) -> dict[str, Price] | None:
            row = connection.execute(f"SELECT value FROM {_TABLE} WHERE key = ?", (key,)).fetchone()
            return None if row is None else _decode(row[0])

        return self._with_connection(read)

    def put(self, key: str, prices: Mapping[str, Price]) -> None:
        """Keep prices under a key; what was there is replaced."""
        value = json.dumps({name: asdict(price) for name, price in prices.items()})

        def write(connection: sqlite3.Connection) -> None:
            connection.execute(f"INSERT OR REPLACE INTO {_TABLE} VALUES (?, ?)", (key, value))

        self._with_connection(write)

    def usable(self) -> bool:
        """Whether prices can be kept here; if not, or if a damaged file is in the way, that is
        said, so that it is said once and not by every task."""

        def write(connection: sqlite3.Connection) -> bool:
            # Nothing has an empty key; a place that is only read refuses all the same.
            connection.execute(f"DELETE FROM {_TABLE} WHERE key = ''")
            connection.execute(f"SELECT COUNT(key), MAX(LENGTH(value)) FROM {_TABLE}").fetchone()
            return True

        return bool(self._with_connection(write))

    def contents(self) -> CacheContents:
        """What is kept; nothing is written, and nothing moved aside.

        Raises:
            CacheError: the file is there, and is damaged, locked or not to be read.
        """
        try:
            entries = self._entries() if self.path.is_file() else {}
        except sqlite3.OperationalError as error:
            raise self._unusable("read", error) from error
        except _DAMAGE as error:
            raise CacheError(
                f"price cache {self.path} is damaged ({error}); `actcc cache clear` removes it"
            ) from error
        return self._contents(entries)

    def _entries(self) -> dict[str, int]:
        with contextlib.closing(sqlite3.connect(self.path, _LONGEST_WAIT_S)) as connection:
            tables = connection.execute("SELECT name FROM sqlite_master").fetchall()
            query = f"SELECT value FROM {_TABLE}"
            rows = connection.execute(query) if (_TABLE,) in tables else []
            tools = [_decode(text)[KEEP].tool for (text,) in rows]
        return dict(Counter(tools).most_common())

    def _contents(self, entries: Mapping[str, int]) -> CacheContents:
        own = [self.path, *self._beside()]
        size = sum(path.stat().st_size for path in own if path.is_file())
        return CacheContents(self.path, size, entries, tuple(self._damaged()))

    def clear(self) -> CacheContents:
        """Remove all prices, and files that were moved aside.

        The file itself stays where other processes may have it open; one that cannot be read goes.

        Returns:
            what was there.

        Raises:
            CacheError: it cannot be written.
        """
        try:
            try:
                before = self._contents(self._entries() if self.path.is_file() else {})
            except sqlite3.OperationalError:
                raise  # locked or not to be read: the file itself is not to blame
            except _DAMAGE:
                found = self._contents({})
                before = replace(found, damaged=(*found.damaged, self.path))
            if self.path.is_file() and self.path not in before.damaged:
                self._empty()
            else:
                for path in self._beside():
                    path.unlink(missing_ok=True)
            for path in before.damaged:
                path.unlink(missing_ok=True)
        except (sqlite3.Error, OSError) as error:
            raise self._unusable("cleared", error) from error
        return before

    def _unusable(self, what: str, error: Exception) -> CacheError:
        return CacheError(
            f"price cache {self.path} cannot be {what} ({error}); "
            "see who may write there, and try again when no other process uses it"
        )

    def _empty(self) -> None:
        with self._connection() as connection:
            with connection:
                connection.execute(f"DELETE FROM {_TABLE}")
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _beside(self) -> list[Path]:
        """SQLite's own files of the database."""
        return [self.path.with_name(self.path.name + suffix) for suffix in _BESIDE]

    def _damaged(self) -> list[Path]:
        return sorted(self.path.parent.glob(f"{self.path.name}{_ASIDE}*"))

    def _with_connection(self, action: Callable[[sqlite3.Connection], Found]) -> Found | None:
        try:
            try:
                return self._attempt(action)
            except sqlite3.OperationalError:
                raise  # locked, read-only, disk full: the file itself is not to blame
            except _DAMAGE as error:
                self._move_aside(error)
                return self._attempt(action)
        except (sqlite3.Error, OSError) as error:
            _log.warning(
                "price cache %s cannot be used (%s); going on without it", self.path, error
            )
            return None

    def _attempt(self, action: Callable[[sqlite3.Connection], Found]) -> Found:
        with self._connection() as connection, connection:
            return action(connection)

    @contextlib.contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        connection = sqlite3.connect(self.path, timeout=_LONGEST_WAIT_S)
        try:
            # Only the first process can switch a new file; in the old mode others work as well.
            with contextlib.suppress(sqlite3.OperationalError):
                connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = NORMAL")
            connection.execute(
                f"CREATE TABLE IF NOT EXISTS {_TABLE} (key TEXT PRIMARY KEY, value TEXT NOT NULL)"
            )
            yield connection
        finally:
            connection.close()

    def _move_aside(self, error: Exception) -> None:
        aside = self.path.with_name(f"{self.path.name}{_ASIDE}{time.time_ns()}")
        # A log left behind would be played into the new file.
        for path in self._beside():
            path.unlink(missing_ok=True)
        with contextlib.suppress(FileNotFoundError):
            os.replace(self.path, aside)
        _log.warning(
            "price cache %s is damaged (%s); it was moved to %s and begun anew",
            self.path,
            error,
            aside.name,
        )


def _decode(text: str) -> dict[str, Price]:
    """Raises ValueError or TypeError where the text is not what `put` wrote."""
    entries = json.loads(text)
    if not isinstance(entries, dict):
        raise ValueError("an entry is no table of prices")
    return {name: Price(**fields) for name, fields in entries.items()}


def query_key(backend: Backend, query: PriceQuery) -> str:
    """The key of a query: structures in the order of the candidates' names, tool, version."""
    structures = [(name, _structure(query.candidates[name])) for name in sorted(query.candidates)]
    parts = [metadata.version("actcc"), backend.tool, _structure(query.baseline), structures]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _structure(graph: Graph) -> str:
    try:
        return structure_hash(graph)
    except ModelError:
        return "invalid"  # it cannot be priced, and what cannot be priced is not kept


def cached_price(
    cache: PriceCache | None, backend: Backend, query: PriceQuery
) -> dict[str, Price | Unpriced]:
    """A price for `keep` and each candidate, from the cache where the whole query is in it.

    A candidate that could not be priced before is tried again; if it can be now, the whole query
    is priced anew.
    """
    if cache is None or not backend.cacheable:
        return backend.price(query)
    key = query_key(backend, query)
    kept = cache.get(key) or {}
    names = [KEEP, *query.candidates]
    if KEEP in kept:
        missing: dict[str, Graph] = {n: g for n, g in query.candidates.items() if n not in kept}
        again = backend.price(PriceQuery(query.baseline, missing)) if missing else {}
        if not any(isinstance(again.get(name), Price) for name in missing):
            return {name: kept[name] if name in kept else again[name] for name in names}
    prices = backend.price(query)
    found = {name: price for name, price in prices.items() if isinstance(price, Price)}
    if KEEP in found:
        cache.put(key, found)
    return prices
