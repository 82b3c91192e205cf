"""Tensors within a limit of memory, and on disk beyond it."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from actcc.errors import RepairError
from actcc.repair.execution import TensorStore


def test_the_store_keeps_what_it_was_given_on_either_side_of_its_limit():
    arrays = [
        np.arange(6, dtype=np.float16).reshape(2, 3),
        np.array(3.5),
        np.zeros((0, 4), np.float32),
        np.array(["one", "äöü"], dtype=object),
        np.array([True, False]),
        np.arange(12).reshape(3, 4).T,
    ]
    for limit in (0, 20, 1 << 20):
        with TensorStore(limit) as store:
            kept = [store.keep(values) for values in arrays]
            assert store.bytes <= limit
            for one, values in zip(kept, arrays, strict=True):
                assert one.values.dtype == values.dtype
                np.testing.assert_array_equal(one.values, values)
                store.drop(one)
            assert store.bytes == 0


def test_many_spilled_arrays_hold_no_file_open():
    folder = Path("/proc/self/fd")
    if not folder.is_dir():
        pytest.skip("needs /proc to count open files")
    with TensorStore(0) as store:
        before = len(os.listdir(folder))
        kept = [store.keep(np.ones(3)) for _ in range(50)]
        assert sum(one.values.sum() for one in kept) == 150
        assert len(os.listdir(folder)) <= before + 1


def test_threads_may_fill_a_store_and_its_limit_holds():
    with TensorStore(1000) as store, ThreadPoolExecutor(8) as threads:
        kept = list(threads.map(lambda i: store.keep(np.full(10, i)), range(200)))
        assert store.most_bytes <= 1000
        assert store.bytes + store.spilled_bytes == 200 * 80
        assert [one.values[0] for one in kept] == list(range(200))
        list(threads.map(store.drop, kept))
        assert store.bytes == 0


def test_dropped_files_are_deleted_and_an_error_leaves_none_behind(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    def fail():
        with TensorStore(0) as store:
            first, _ = store.keep(np.ones(3)), store.keep(np.ones(3))
            assert len(list(tmp_path.rglob("*.npy"))) == 2
            store.drop(first)
            assert len(list(tmp_path.rglob("*.npy"))) == 1
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_gone_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    store = TensorStore(0)
    store.close()
    with pytest.raises(RepairError, match="--repair-memory"):
        store.keep(np.ones(3))
