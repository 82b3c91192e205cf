"""A network executed segment by segment over all samples, keeping only the tensors of the cut.

A tensor is asked for by name; the nodes that it needs and that have not run yet run then, as one
session, sample by sample. What they write is kept for as long as a node that is still to run reads
it. So each node runs once for each sample, however many tensors are asked for.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from typing import Any, TypeAlias

from actcc.calibration.sample import Sample
from actcc.errors import DataError, RepairError
from actcc.graph import Array, Graph
from actcc.repair.network import Network
from actcc.repair.store import Kept, TensorStore
from actcc.runtime import run, session

Feeds: TypeAlias = "Sequence[Mapping[str, Array]] | Sequence[Sample]"

__all__ = ["Execution", "Feeds", "TensorStore"]


class Execution:
    """One network on its way through all samples.

    Say first what is wanted, all of it: only nodes that something wanted needs will run, and only
    what they read is kept for them. Then reach one tensor after the other, in topological order
    where weights change on the way. All values live in the store; the pool's threads each work on
    one sample at a time.

    Args:
        graph: the network; not edited.
        inputs: what it is fed, sample by sample; each is asked for once by each network.
        store: keeps tensors, of other executions too.
        pool: runs samples side by side.
        shared: an execution of another network, some of whose tensors are the same here.
        same: names of those tensors, which are read from `shared` and never computed.

    Attributes:
        runs: segments that were run.
    """

    def __init__(
        self,
        graph: Graph,
        inputs: Feeds,
        store: TensorStore,
        pool: ThreadPoolExecutor,
        shared: Execution | None = None,
        same: frozenset[str] = frozenset(),
    ) -> None:
        self._network = Network(graph)
        self._inputs = inputs
        self._store = store
        self._pool = pool
        self._shared = shared
        self._same = self._network.whole(same) if shared is not None else frozenset()
        self._held: dict[str, dict[int, Kept]] = {}
        self._wanted: Counter[str] = Counter()
        self._needed: set[int] = set()
        self._done: set[int] = set()
        self._left: Counter[str] = Counter()
        self.runs = 0

    def want(self, names: Iterable[str]) -> None:
        """Keep these tensors, once computed, until `release` was called as often.

        Raises:
            RepairError: one of them needs a tensor that is gone by now.
        """
        for name in names:
            if name in self._same:
                self._lender.want([name])
            else:
                self._need([name])
                self._wanted[name] += 1

    def release(self, name: str) -> None:
        """A tensor that was wanted is not wanted any longer, by one of those who wanted it."""
        if name in self._same:
            self._lender.release(name)
            return
        self._wanted[name] -= 1
        self._drop_unused(name)

    def set_weight(self, name: str, values: Array) -> None:
        """Use other values for an initializer in all nodes that have not run yet."""
        self._network.set_weight(name, values)

    def values(self, name: str, index: int) -> Array:
        """A tensor of a sample, read-only where it lies on the disk.

        Raises:
            RepairError: it has not been reached, or is gone because nothing wanted it.
        """
        if name in self._same:
            return self._lender.values(name, index)
        kept = self._held.get(name, {}).get(index)
        if kept is not None:
            return kept.values
        if name in self._network.weights:
            return self._network.weight(name)
        if name in self._network.inputs:
            return self._fed(index)[name]
        raise RepairError(
            f"tensor '{name}' of sample {index} is not there; want it first, then reach it, and "
            "release it last"
        )

    def reach(self, names: Sequence[str]) -> None:
        """Run what these tensors need and has not run yet.

        One that is not wanted stays until its last reader runs, or to the end where none is left.

        Raises:
            ModelError: the runtime cannot load or run a segment.
            DataError: a sample cannot be loaded, or lacks an input.
            RepairError: they need a tensor that is gone by now, or the disk is full.
        """
        self._need(names)
        nodes = self._network.ancestors(names, self._done, self._same)
        borders = self._network.borders(nodes)
        borrowed = [name for name in (*borders, *names) if name in self._same]
        if borrowed:
            self._lender.reach(borrowed)
        loads = self._loads([*borders, *names])
        if nodes or loads:
            self._run(nodes, borders, loads, frozenset(names))

    # ---------------------------------------------------------------- inside

    @property
    def _lender(self) -> Execution:
        assert self._shared is not None
        return self._shared

    def _need(self, names: Sequence[str]) -> None:
        """Let nodes that these tensors need keep what they read until they have run."""
        added = self._network.ancestors(names, self._done | self._needed, self._same)
        gone = [
            name
            for name in (*names, *self._network.borders(added))
            if self._network.writers.get(name) in self._done and name not in self._held
        ]
        if gone:
            raise RepairError(
                f"tensor '{gone[0]}' was computed and is gone; want it, and all that needs it, "
                "before anything is reached"
            )
        reads = self._network.count_reads(added)
        self._needed.update(added)
        self._left += reads
        for name in sorted(reads.keys() & self._same):
            self._lender.want([name] * reads[name])

    def _loads(self, names: Sequence[str]) -> list[str]:
        """Graph inputs to be taken from the samples: all that are needed, once one of them is."""
        missing = self._network.inputs - self._same - self._held.keys()
        if missing.isdisjoint(names):
            return []
        return sorted(
            name for name in missing if name in names or self._left[name] or self._wanted[name]
        )

    def _run(
        self,
        nodes: Sequence[int],
        borders: Sequence[str],
        loads: Sequence[str],
        reached: frozenset[str],
    ) -> None:
        """Load inputs and run nodes as one session for all samples; keep what is still needed."""
        reads = self._network.count_reads(nodes)
        left = self._left - reads
        kept, spent = [], []
        for name in (*self._network.written(nodes), *borders):
            staying = name in reached or self._wanted[name] or left[name]
            if name not in borders and staying:
                kept.append(name)
            elif name in borders and not staying and name not in self._same:
                spent.append(name)
        for name in (*loads, *kept):
            self._held[name] = {}
        runner = self._session(nodes, borders, kept) if nodes else None

        def work(index: int) -> None:
            feeds = self._fed(index) if loads else {}
            for name in loads:
                self._held[name][index] = self._store.keep(feeds[name])
            if runner is None:
                return
            found = run(runner, {name: self.values(name, index) for name in borders})
            for name in spent:
                self._store.drop(self._held[name].pop(index))
            for name in kept:
                self._held[name][index] = self._store.keep(found[name])

        self._for_all_samples(work)
        for name in spent:
            del self._held[name]
        self._done.update(nodes)
        self._left = left
        self.runs += bool(nodes)
        for name in sorted(reads.keys() & self._same):
            for _ in range(reads[name]):
                self._lender.release(name)

    def _session(self, nodes: Sequence[int], borders: Sequence[str], kept: Sequence[str]) -> Any:
        """A session of these nodes, with weights as they are now."""
        unknown = [name for name in borders if name not in self._network.types]
        elements = {name: self.values(name, 0).dtype for name in unknown}
        return session(self._network.part(nodes, borders, kept, elements))

    def _for_all_samples(self, work: Callable[[int], None]) -> None:
        """Side by side; results go to the store at once, so that none of them queue up."""
        tasks = [self._pool.submit(work, index) for index in range(len(self._inputs))]
        try:
            for task in tasks:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            wait(tasks)

    def _drop_unused(self, name: str) -> None:
        if not self._left[name] and self._wanted[name] <= 0:
            for kept in self._held.pop(name, {}).values():
                self._store.drop(kept)

    def _fed(self, index: int) -> Mapping[str, Array]:
        """All inputs of a sample, loaded anew."""
        sample = self._inputs[index]
        feeds = sample.inputs if isinstance(sample, Sample) else sample
        missing = sorted(self._network.inputs - feeds.keys())
        if missing:
            raise DataError(
                f"sample {index} has no values for input '{missing[0]}'; it has: "
                f"{', '.join(sorted(feeds)) or 'none'}"
            )
        return feeds
