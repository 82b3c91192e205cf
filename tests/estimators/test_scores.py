"""Scores of single estimators, against figures worked out by hand."""

import numpy as np
import onnx
import pytest

from actcc.accuracy.estimate import Key
from actcc.errors import ModelError
from actcc.estimators.estimator import TYPICAL_LOSS, as_losses
from actcc.estimators.nn_mass import nn_mass
from actcc.estimators.nwot import HammingScore, pre_activations
from actcc.estimators.zen import PushScore, feature_maps
from actcc.graph import Graph


def graph(body: str) -> Graph:
    text = f'<ir_version: 8, opset_import: ["" : 17]>\n{body}'
    return Graph.load(onnx.parser.parse_model(text))


CHAIN = """
network (
    float[1, 2, 4, 4] x, float[4, 2, 1, 1] a, float[4, 4, 1, 1] b, float[4, 4, 1, 1] c,
    float[4, 3] d, float[3] e
) => (float[1, 3] y) {
    p = Conv(x, a)
    p1 = Relu(p)
    q = Conv(p1, b)
    q1 = Relu(q)
    r = Conv(q1, c)
    s = SECOND
    pooled = GlobalAveragePool(s)
    flat = Flatten(pooled)
    y = Gemm(flat, d, e)
}
"""
PLAIN = CHAIN.replace("SECOND", "Relu(r)")
SKIPPING = CHAIN.replace("s = SECOND", "t = Add(r, p1)\n s = Relu(t)")


def test_the_kernel_counts_the_units_on_which_two_codes_agree() -> None:
    tally = HammingScore().tally()
    codes = np.array([[1.0, -1.0, 2.0], [1.0, 1.0, 2.0], [-1.0, 1.0, -3.0]])
    for index, code in enumerate(codes):
        tally.add(index, {"z": code})
    np.testing.assert_allclose(tally.kernel, [[3, 2, 0], [2, 3, 1], [0, 1, 3]])
    assert tally.score == pytest.approx(np.log(3 * (9 - 1) - 2 * (6 - 0)))


def test_samples_with_one_code_have_no_score() -> None:
    tally = HammingScore().tally()
    for index in range(2):
        tally.add(index, {"z": np.ones(5)})
    assert tally.score == -np.inf


def test_a_tensor_of_no_elements_adds_nothing_to_the_kernel() -> None:
    tally = HammingScore().tally()
    for code in ([1.0, -1.0, 2.0], [1.0, 1.0, 2.0]):
        tally.add(len(tally.codes), {"z": np.array(code), "nothing": np.zeros((0, 4, 4))})
    np.testing.assert_allclose(tally.kernel, [[3, 2], [2, 3]])


def test_a_share_of_the_units_stands_for_all() -> None:
    codes = np.random.default_rng(0).standard_normal((3, 10_000))
    whole, part = HammingScore(10_000).tally(), HammingScore(1_000).tally()
    for index, code in enumerate(codes):
        whole.add(index, {"z": code})
        part.add(index, {"z": code})
    np.testing.assert_allclose(part.kernel, whole.kernel, rtol=0.05)
    np.testing.assert_allclose(np.diag(part.kernel), 10_000)


def test_pre_activations_are_what_activations_read() -> None:
    assert pre_activations(graph(PLAIN)) == ("p", "q", "r")


def test_the_zen_score_is_the_log_of_the_mean_distance_of_pairs() -> None:
    tally = PushScore().tally()
    for index, value in enumerate((0.0, 1.0, 5.0, 2.0)):
        tally.add(index, {"f": np.full((1, 4), value, np.float32)})
    assert tally.score == pytest.approx(np.log((4 * 1 + 4 * 3) / 2))


def test_the_feature_map_lies_in_front_of_pooling_and_the_last_layer() -> None:
    assert feature_maps(graph(PLAIN)) == ("s",)


def test_a_network_of_one_layer_has_no_feature_map() -> None:
    single = graph("network (float[1, 4] x, float[4, 4] w) => (float[1, 4] y) {y = MatMul(x, w)}")
    with pytest.raises(ModelError, match="no feature map"):
        feature_maps(single)


def test_nn_mass_is_width_times_depth_times_density() -> None:
    assert nn_mass(graph(PLAIN)) == 0.0
    # Three layers of 4 channels are one cell. The skip leads past the third, into the Gemm, which
    # is in a cell of its own.
    assert nn_mass(graph(SKIPPING)) == 0.0
    longer = SKIPPING.replace("pooled = Glob", "u = Conv(s, c)\n pooled = Glob").replace(
        "Pool(s)", "Pool(u)"
    )
    # A fourth layer reads r + p1: of 4 channels to the third and 8 to the fourth, 4 arrive.
    assert nn_mass(graph(longer)) == pytest.approx(4 * 4 * 4 / 12)


def test_losses_keep_their_ratios_and_have_a_typical_size() -> None:
    raw: dict[Key, float] = {("a", "f"): 1.0, ("b", "f"): 2.0, ("c", "f"): 8.0}
    losses = as_losses(raw)
    assert losses["b", "f"] == pytest.approx(TYPICAL_LOSS)
    assert losses["c", "f"] == pytest.approx(8 * losses["a", "f"])


def test_no_loss_is_free_infinite_or_unknown() -> None:
    raw: dict[Key, float] = {
        ("a", "f"): -1.0,
        ("b", "f"): 2.0,
        ("c", "f"): np.inf,
        ("d", "f"): np.nan,
        ("e", "f"): 0.0,
    }
    losses = as_losses(raw)
    assert losses["a", "f"] == losses["e", "f"] == pytest.approx(TYPICAL_LOSS / 100)
    assert losses["b", "f"] == losses["c", "f"] == losses["d", "f"] == pytest.approx(TYPICAL_LOSS)


def test_where_nothing_can_be_told_apart_every_change_costs_the_same() -> None:
    raw: dict[Key, float] = {("a", "f"): 0.0, ("b", "f"): 0.0}
    assert set(as_losses(raw).values()) == {TYPICAL_LOSS}
