"""The journal: what an interrupted run found is there for the next, and nothing else is."""

from pathlib import Path

import numpy as np
import pytest
from networks import images, residual_network

from actcc.calibration import SampleSet, load_samples
from actcc.graph import Graph
from actcc.journal import Journal, run_key


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ACTCC_CACHE_DIR", str(tmp_path))


def samples(values: np.ndarray) -> SampleSet:
    return load_samples({"images": values}, Graph.load(residual_network()))


def labelled(last: int) -> SampleSet:
    """The same images; the last has another label."""
    values = {"images": images(3), "label": np.array([0, 0, last])}
    return load_samples(values, Graph.load(residual_network()))


def test_a_resumed_journal_knows_what_was_recorded() -> None:
    first = Journal.open("key", resume=False)
    first.record("losses a", {"Relu": 0.25})
    first.record("trial b", None)
    again = Journal.open("key", resume=True)
    assert again.known == {"losses a": {"Relu": 0.25}, "trial b": None}


def test_a_new_run_begins_anew() -> None:
    Journal.open("key", resume=False).record("a", 1)
    Journal.open("key", resume=False)
    assert Journal.open("key", resume=True).known == {}


def test_a_run_that_ended_leaves_nothing(tmp_path: Path) -> None:
    journal = Journal.open("key", resume=False)
    journal.record("a", 1)
    journal.discard()
    assert not list(tmp_path.rglob("*.jsonl"))


def test_a_line_that_was_cut_short_is_not_read() -> None:
    journal = Journal.open("key", resume=False)
    journal.record("a", 1)
    assert journal.path is not None
    with journal.path.open("a") as stream:
        stream.write('["b", {"Relu": 0.')
    assert Journal.open("key", resume=True).known == {"a": 1}


def test_where_nothing_can_be_written_the_run_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ACTCC_CACHE_DIR", str(tmp_path / "file"))
    journal = Journal.open("key", resume=True)
    journal.record("a", 1)
    assert journal.path is None


def test_the_key_covers_settings_and_data() -> None:
    data = samples(images(3))
    other = samples(images(3, seed=2))
    keys = {
        run_key({"target": "cpu"}, data, None),
        run_key({"target": "npu1"}, data, None),
        run_key({"target": "cpu"}, other, None),
        run_key({"target": "cpu"}, data[:2], None),
        run_key({"target": "cpu"}, None, data),
        run_key({"target": "cpu"}, labelled(1), None),
        run_key({"target": "cpu"}, labelled(2), None),
    }
    assert len(keys) == 7
    assert run_key({"a": 1, "b": 2}, data) == run_key({"b": 2, "a": 1}, data)
