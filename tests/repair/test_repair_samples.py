"""What networks are repaired on, in how much memory, and that the bytes are the same each time."""

from __future__ import annotations

import tempfile

import numpy as np
import pytest
from network_pairs import (
    CHAIN,
    FITTED,
    chain,
    chain_feeds,
    chain_weights,
    constants,
    error,
    pair,
    serialized,
    with_activation,
)
from networks import residual_network

from actcc.errors import RepairError
from actcc.graph import Graph
from actcc.repair import Steps, repair, sequential

# ---------------------------------------------------------------- samples


def test_half_precision_networks_are_repaired():
    given = {name: values.astype(np.float16) for name, values in chain_weights().items()}
    original, rewritten = pair(CHAIN.replace("float[", "float16["), **given)
    samples, held_out = (
        [{"x": s["x"].astype(np.float16)} for s in chain_feeds(seed=seed)] for seed in (3, 4)
    )
    repaired = repair(original, rewritten, samples)
    assert {values.dtype for values in constants(repaired.graph).values()} == {np.dtype("float16")}
    assert error(original, repaired.graph, held_out) < 0.2 * error(original, rewritten, held_out)


def test_samples_may_differ_in_size_and_hold_several_images():
    original, rewritten = chain()
    shapes = [(1, 6, 8, 8), (3, 6, 5, 9), (2, 6, 12, 4), (1, 6, 1, 1)]
    samples = [chain_feeds(1, shape, seed)[0] for seed in range(4) for shape in shapes]
    repaired = repair(original, rewritten, samples)
    held_out = chain_feeds(4, (2, 6, 7, 7), seed=9)
    assert error(original, repaired.graph, held_out) < 0.1 * error(original, rewritten, held_out)
    assert [t.shape for t in repaired.graph.inputs] == [t.shape for t in rewritten.inputs]


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_in_one_sample_is_ignored(bad):
    original, rewritten = chain()
    samples = chain_feeds()
    samples[3]["x"][0, :, 2:, :] = bad
    repaired = repair(original, rewritten, samples)
    held_out = chain_feeds(4, seed=4)
    assert error(original, repaired.graph, held_out) < 0.1 * error(original, rewritten, held_out)


def test_where_no_sample_is_finite_weights_stay():
    original, rewritten = chain()
    samples = [{"x": np.full((1, 6, 8, 8), np.nan, np.float32)} for _ in range(3)]
    repaired = repair(original, rewritten, samples)
    assert repaired.refused.keys() == {"Conv0", "Conv2", "Conv4"}
    assert all("finite" in reason for reason in repaired.refused.values())
    assert not repaired.layers
    given, found = constants(rewritten), constants(repaired.graph)
    assert {n: v.tobytes() for n, v in found.items()} == {n: v.tobytes() for n, v in given.items()}


def test_without_samples_it_is_refused():
    with pytest.raises(RepairError, match="--calib"):
        repair(*chain(), [])


@pytest.mark.filterwarnings("error::RuntimeWarning")
@pytest.mark.parametrize("scale", [1e-20, 1e12, 1e20, 1e30])
def test_huge_and_tiny_values_never_give_weights_that_are_not_finite(scale):
    original, rewritten = chain()
    samples = [{"x": sample["x"] * np.float32(scale)} for sample in chain_feeds(4)]
    repaired = repair(original, rewritten, samples)
    assert all(np.isfinite(values).all() for values in constants(repaired.graph).values())
    assert len(repaired.layers) + len(repaired.refused) == 3


# ---------------------------------------------------------------- bytes


def network_pair():
    return Graph.load(residual_network()), with_activation(residual_network(), "Relu")


def test_the_same_seed_gives_the_same_bytes_and_so_does_any_number_of_threads():
    original, rewritten = network_pair()
    found = [repair(original, rewritten, FITTED, threads=threads).graph for threads in (1, 1, 2, 3)]
    assert len({serialized(graph) for graph in found}) == 1


def test_a_small_memory_gives_the_same_weights_and_is_kept():
    original, rewritten = chain()
    samples = chain_feeds(32, (8, 6, 16, 16))
    few_rows = Steps(more_at_outputs=False)  # more would have to be cut in the small memory
    large = repair(original, rewritten, samples, memory_bytes=1 << 30, steps=few_rows)
    small = repair(original, rewritten, samples, memory_bytes=5 << 20, steps=few_rows)
    assert serialized(small.graph) == serialized(large.graph)
    assert large.memory_bytes > 5 << 20
    assert small.memory_bytes <= 5 << 20
    assert small.spilled_bytes > 0
    assert large.spilled_bytes == 0


def test_where_rows_have_to_be_cut_it_still_helps():
    original, rewritten = chain()
    repaired = repair(original, rewritten, chain_feeds(8, (8, 6, 12, 12)), memory_bytes=1 << 20)
    held_out = chain_feeds(4, seed=4)
    assert repaired.memory_bytes <= 1 << 20
    assert error(original, repaired.graph, held_out) < 0.1 * error(original, rewritten, held_out)


def test_an_interruption_leaves_no_temporary_folder(monkeypatch, tmp_path):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    original, rewritten = chain()
    seen = []

    def interrupt():
        seen.extend(tmp_path.iterdir())
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        repair(original, rewritten, chain_feeds(4), memory_bytes=1 << 20, advance=interrupt)
    assert seen
    assert not list(tmp_path.iterdir())


def test_progress_is_told_of_every_layer():
    told = []
    repaired = repair(*chain(), chain_feeds(4), advance=lambda: told.append(1))
    assert len(told) == len(repaired.layers) == 3
    assert all(after <= before for before, after in (layer.missed for layer in repaired.layers))
    assert sequential.DEFAULT_MEMORY == 2 << 30
