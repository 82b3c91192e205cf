"""Prices kept between runs, in one SQLite file.

An entry is a whole query, because prices of one query are only comparable when they were measured
together. Its key is the structure of every graph of the query, the backend's tool with version and
settings, and the version of actcc. Where a compiler prices whole networks, an entry is one network,
and its key has the content of it, weights and names, in place of the structure. A failure is never
kept.
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
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

import platformdirs

from actcc.errors import CacheError, ModelError
from actcc.graph import Graph, structure_hash
from actcc.graph.fingerprint import content_hash
from actcc.prices import (
    Backend,
    NetworkBackend,
    NetworkTimes,
    Price,
    PriceQuery,
    TaskMap,
    Unpriced,
)
from actcc.site import KEEP

_log = logging.getLogger(__name__)
_FILE = "prices.sqlite"
_PRICES = "prices_1"
_NETWORKS = "networks_1"
_TABLES = (_PRICES, _NETWORKS)
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
        entries: queries and networks by the tool that priced them; the most first.
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
        return self._get(_PRICES, key, _decode)

    def put(self, key: str, prices: Mapping[str, Price]) -> None:
        """Keep prices under a key; what was there is replaced."""
        self._put(_PRICES, key, {name: asdict(price) for name, price in prices.items()})

    def get_network(self, key: str) -> NetworkTimes | None:
        """Where the latency of the network goes that is kept under the key; None if none is."""
        return self._get(_NETWORKS, key, _decode_network)

    def put_network(self, key: str, times: NetworkTimes) -> None:
        """Keep where the latency of a network goes; what was there is replaced."""
        self._put(_NETWORKS, key, {**vars(times), "node_ns": dict(times.node_ns)})

    def _get(self, table: str, key: str, decode: Callable[[str], Found]) -> Found | None:
        def read(connection: sqlite3.Connection) -> Found | None:
            row = connection.execute(f"SELECT value FROM {table} WHERE key = ?", (key,)).fetchone()
            return None if row is None else decode(row[0])

        return self._with_connection(read)

    def _put(self, table: str, key: str, value: Mapping[str, Any]) -> None:
        text = json.dumps(value)

        def write(connection: sqlite3.Connection) -> None:
            connection.execute(f"INSERT OR REPLACE INTO {table} VALUES (?, ?)", (key, text))

        self._with_connection(write)

    def usable(self) -> bool:
        """Whether prices can be kept here; if not, or if a damaged file is in the way, that is
        said, so that it is said once and not by every task."""

        def write(connection: sqlite3.Connection) -> bool:
            for table in _TABLES:
                # Nothing has an empty key; a place that is only read refuses all the same.
                connection.execute(f"DELETE FROM {table} WHERE key = ''")
                connection.execute(f"SELECT COUNT(key), MAX(LENGTH(value)) FROM {table}").fetchone()
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
            there = {name for (name,) in connection.execute("SELECT name FROM sqlite_master")}
            values = {
                table: connection.execute(f"SELECT value FROM {table}").fetchall()
                for table in _TABLES
                if table in there
            }
        tools = [_decode(text)[KEEP].tool for (text,) in values.get(_PRICES, ())]
        tools += [_decode_network(text).tool for (text,) in values.get(_NETWORKS, ())]
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
                for table in _TABLES:
                    connection.execute(f"DELETE FROM {table}")
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
            for table in _TABLES:
                connection.execute(
                    f"CREATE TABLE IF NOT EXISTS {table} "
                    "(key TEXT PRIMARY KEY, value TEXT NOT NULL)"
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


def _decode_network(text: str) -> NetworkTimes:
    """Raises ValueError, KeyError or TypeError where the text is not what `put_network` wrote."""
    found = NetworkTimes(**json.loads(text))
    node_ns = {str(name): float(latency) for name, latency in dict(found.node_ns).items()}
    return replace(found, node_ns=node_ns)


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


def network_key(backend: NetworkBackend, graph: Graph) -> str:
    """The key of a whole network: its content, the shapes inside it, tool, version.

    Shapes follow from what the inputs are bound to, and where they cannot be inferred from what the
    file declares, which is no part of the content.
    """
    types = sorted((name, found.element, found.shape) for name, found in graph.types.items())
    parts = [metadata.version("actcc"), backend.tool, content_hash(graph), types]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def cached_network_times(
    cache: PriceCache | None,
    backend: NetworkBackend,
    models: Sequence[Graph],
    run_tasks: TaskMap,
) -> list[NetworkTimes | Unpriced]:
    """`backend.network_times`, from the cache for each network that is in it.

    A network that could not be priced before is tried again.
    """
    if cache is None:
        return backend.network_times(models, run_tasks)
    keys = [network_key(backend, model) for model in models]
    kept = {key: cache.get_network(key) for key in dict.fromkeys(keys)}
    missing = [model for key, model in zip(keys, models, strict=True) if kept[key] is None]
    priced = iter(backend.network_times(missing, run_tasks) if missing else [])
    found: list[NetworkTimes | Unpriced] = []
    for key in keys:
        times = kept[key] or next(priced)
        if kept[key] is None and isinstance(times, NetworkTimes):
            cache.put_network(key, times)
        found.append(times)
    return found
