"""Estimators on a whole network: losses, random plans, rankings, and what comes of them."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from every_rewrite import Immediately
from networks import images, residual_network

from actcc.accuracy.fidelity import Fidelity
from actcc.budget import Budget
from actcc.calibration import load_samples
from actcc.cli import cli
from actcc.errors import ActccError, DataError, SearchError
from actcc.estimators import ESTIMATORS, LEARNED, Subject
from actcc.estimators.bayesian_ridge import Features, PlanRegression
from actcc.estimators.choice import choose_estimator
from actcc.estimators.kendall import tau_of
from actcc.estimators.noise import noise_feeds, value_ranges
from actcc.estimators.plan_measurement import Measured, measure_plans
from actcc.estimators.random_plans import draw_plans
from actcc.estimators.ranking import ALL_ESTIMATORS, rank_estimators
from actcc.estimators.record import RankingRecord, keep_ranking, kept_ranking
from actcc.graph import Graph
from actcc.normalize import normalize
from actcc.pass_api import apply_candidates, find_sites
from actcc.passes.swap_activation import SwapActivation
from actcc.pipeline import optimize
from actcc.site import KEEP
from actcc.targets import load_target

pytestmark = pytest.mark.usefixtures("simplify_here")


@pytest.fixture(scope="module")
def executor() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as pool:
        yield pool


@pytest.fixture(scope="module")
def subject(executor: ThreadPoolExecutor) -> Subject:
    graph = normalize(Graph.load(residual_network()), skip=["simplify"]).graph
    passes = [SwapActivation()]
    samples = load_samples(images(24), graph)
    sites = find_sites(graph, passes, load_target("npu1")).sites
    ranges = value_ranges(samples)
    return Subject(graph, sites, passes, samples.take(12), executor, ranges)


def keys_of(subject: Subject) -> set[tuple[str, str]]:
    return {(s.id, c.computes) for s in subject.sites for c in s.candidates if not c.exact}


@pytest.mark.parametrize("name", ["fidelity", "noise", "nwot", "nwot-noise", "zen", "changes"])
def test_every_approximate_candidate_has_a_loss(subject: Subject, name: str) -> None:
    found = ESTIMATORS[name].losses(subject)
    assert set(found.losses) == keys_of(subject)
    assert all(0 <= loss < np.inf for loss in found.losses.values())


@pytest.mark.parametrize("name", ["nn-mass", "macs"])
def test_what_a_swap_does_not_change_gives_no_estimate(subject: Subject, name: str) -> None:
    found = ESTIMATORS[name].losses(subject)
    assert not found.losses
    assert all("says nothing" in reason for reason in found.failed.values())


@pytest.mark.parametrize("name", ["fidelity", "noise", "nwot", "nwot-noise", "zen"])
def test_a_single_change_loses_what_the_network_with_it_loses(subject: Subject, name: str) -> None:
    """The table is found piece by piece; it must agree with running whole rewritten networks."""
    estimator = ESTIMATORS[name]
    network_loss = estimator.network_loss(subject)
    assert network_loss is not None
    losses = estimator.losses(subject).losses
    wholes, singles = [], []
    for site in subject.sites[:3]:
        candidate = next(c for c in site.candidates if not c.exact)
        rewritten = apply_candidates(subject.graph, subject.passes, [(site, candidate.name)])
        wholes.append(network_loss(rewritten))
        singles.append(losses[site.id, candidate.computes])
    assert network_loss(subject.graph) == pytest.approx(0.0, abs=1e-6)
    unit = singles[0] / wholes[0]
    np.testing.assert_allclose(singles, unit * np.array(wholes), rtol=1e-3)


def test_noise_fills_the_range_of_the_input_and_is_the_same_for_a_seed(subject: Subject) -> None:
    ranged = replace(subject, value_ranges={"images": (10.0, 20.0)})
    first, again = noise_feeds(ranged, 3)["images"], noise_feeds(ranged, 3)["images"]
    assert 10 <= first.min() < 11
    assert 19 < first.max() <= 20
    np.testing.assert_array_equal(first, again)


def test_estimators_that_need_data_say_so(subject: Subject) -> None:
    blind = replace(subject, calibration=None)
    for name in ("fidelity", "nwot"):
        with pytest.raises(DataError, match=f"'{name}' needs calibration data"):
            ESTIMATORS[name].losses(blind)


def test_one_sample_is_too_little_to_tell_samples_apart(subject: Subject) -> None:
    assert subject.calibration is not None
    single = replace(subject, calibration=subject.calibration.take(1))
    with pytest.raises(DataError, match=r"'nwot' tells samples apart.* has 1 to estimate with"):
        ESTIMATORS["nwot"].losses(single)


def test_plans_differ_and_change_from_one_site_to_many(subject: Subject) -> None:
    plans = draw_plans(subject.sites, 20, seed=0)
    assert len({tuple(plan.keys) for plan in plans}) == len(plans) == 20
    sizes = [len(plan.chosen) for plan in plans]
    assert min(sizes) == 1
    assert max(sizes) > len(subject.sites) // 2
    assert {key for plan in plans for key in plan.keys} <= keys_of(subject)
    assert plans == draw_plans(subject.sites, 20, seed=0)


def test_a_network_without_candidates_has_no_plans() -> None:
    with pytest.raises(ActccError, match="no site has an approximate candidate"):
        draw_plans([], 8, seed=0)


def test_tau_is_one_for_the_right_order_and_undefined_for_none() -> None:
    pytest.importorskip("scipy", reason="needs the extra 'rank'")
    right = tau_of([1.0, 2.0, 3.0, 4.0], [0.9, 0.8, 0.7, 0.1])
    assert right is not None
    assert (right.value, right.low, right.high) == pytest.approx((1.0, 1.0, 1.0))
    wrong = tau_of([4.0, 3.0, 2.0, 1.0], [0.9, 0.8, 0.7, 0.1])
    assert wrong is not None
    assert wrong.value == pytest.approx(-1.0)
    assert tau_of([1.0, 1.0, 1.0], [0.9, 0.8, 0.7]) is None


def test_the_regression_learns_which_function_hurts(subject: Subject) -> None:
    pytest.importorskip("sklearn", reason="needs the extra 'rank'")
    plans = [plan.keys for plan in draw_plans(subject.sites, 40, seed=0)]
    hurting = [sum(function == "Relu" for _, function in plan) for plan in plans]
    features = Features.of(subject.sites, {})
    regression = PlanRegression(features, plans, [1.0 - 0.1 * count for count in hurting])
    tau = tau_of(regression.held_out_losses(), [-float(count) for count in hurting])
    assert tau is not None
    assert tau.value > 0.5
    table = regression.table()
    relu = np.mean([loss for (_, function), loss in table.items() if function == "Relu"])
    rest = np.mean([loss for (_, function), loss in table.items() if function != "Relu"])
    assert relu > 3 * rest


@pytest.fixture(scope="module")
def record(subject: Subject) -> RankingRecord:
    pytest.importorskip("sklearn", reason="needs the extra 'rank'")
    evaluation = load_samples(images(8, seed=5), subject.graph)
    found = rank_estimators(subject, 12, Fidelity(), evaluation, ALL_ESTIMATORS)
    return RankingRecord.of(subject.graph, "fidelity", evaluation.source, found)


def test_on_like_data_fidelity_orders_plans_best(record: RankingRecord) -> None:
    rows = {figures.name: figures for figures in record.estimators}
    assert set(rows) == set(ALL_ESTIMATORS)
    fidelity = rows["fidelity"]
    assert fidelity.tau is not None
    assert fidelity.network_tau is not None
    assert fidelity.tau.value > 0.6
    assert fidelity.network_tau.value > 0.8
    assert rows["macs"].tau is None
    assert "says nothing" in rows["macs"].skipped
    assert record.original == pytest.approx(1.0)
    assert record.standings.best == record.estimators[0]


def test_a_ranking_is_read_back_as_it_was_kept(
    record: RankingRecord, subject: Subject, tmp_path: Path
) -> None:
    keep_ranking(tmp_path, record)
    assert kept_ranking(tmp_path, subject.graph, "fidelity") == record
    assert kept_ranking(tmp_path, subject.graph, "top1") is None
    (path,) = tmp_path.iterdir()
    path.write_text("{")
    assert kept_ranking(tmp_path, subject.graph, "fidelity") is None


def test_auto_takes_the_best_of_the_kept_ranking(
    record: RankingRecord, subject: Subject, tmp_path: Path
) -> None:
    first = record.standings.best
    assert first is not None
    keep_ranking(tmp_path, record)
    assert choose_estimator("auto", subject, "fidelity", tmp_path).name == first.name
    learned = choose_estimator(LEARNED, subject, "fidelity", tmp_path)
    assert set(learned.losses(subject).losses) == keys_of(subject)


def test_an_unknown_estimator_is_refused_with_the_known_ones(subject: Subject) -> None:
    with pytest.raises(SearchError, match="no estimator 'guess'; use one of: fidelity, noise"):
        choose_estimator("guess", subject, "fidelity", None)


class CountingExecutor(ThreadPoolExecutor):
    """Its clock shows how many tasks were handed to it."""

    submitted = 0

    def submit(self, *arguments: Any, **options: Any) -> Any:
        self.submitted += 1
        return super().submit(*arguments, **options)

    def monotonic(self) -> float:
        return self.submitted

    perf_counter = staticmethod(time.perf_counter)


def measured_until(subject: Subject, submitted: int, monkeypatch: pytest.MonkeyPatch) -> Measured:
    assert subject.calibration is not None
    drawn = draw_plans(subject.sites, 20, seed=0)
    with CountingExecutor(1) as executor:
        for module in ("actcc.tasks", "actcc.estimators.plan_measurement"):
            monkeypatch.setattr(f"{module}.time", executor)
        limited = replace(subject, executor=executor, deadline=submitted)
        return measure_plans(limited, drawn, Fidelity(), subject.calibration, {})


def test_plans_are_measured_until_the_deadline(
    subject: Subject, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert 8 <= len(measured_until(subject, 10, monkeypatch).plans) < 20


@pytest.mark.parametrize("submitted", [0, 1])
def test_too_few_plans_before_the_deadline_are_refused_with_the_time_limit(
    subject: Subject, monkeypatch: pytest.MonkeyPatch, submitted: int
) -> None:
    with pytest.raises(ActccError, match=r"^0 different plans could be .* raise --time-limit"):
        measured_until(subject, submitted, monkeypatch)


@pytest.fixture
def model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ACTCC_CACHE_DIR", str(tmp_path / "cache"))
    path = tmp_path / "network.onnx"
    onnx.save_model(residual_network(), path)
    np.savez(tmp_path / "calib.npz", images=images(20))
    return path


def test_evaluation_data_alone_is_enough_for_an_estimator_that_needs_none(model: Path) -> None:
    result = optimize(
        model,
        "npu1",
        evaluation=model.parent / "calib.npz",
        estimator="noise",
        passes=[SwapActivation()],
        max_trials=2,
        budget=Budget.parse(max_drop="30%"),
        executor=Immediately(),
    )
    figures = result.plan.accuracy
    assert figures is not None
    assert figures.samples == 20
    assert figures.drop <= 0.3
    assert result.plan.settings["estimator"] == "noise"
    assert any(name != KEEP for name in result.plan.chosen.values())


def test_evaluation_data_alone_is_too_little_for_fidelity(model: Path) -> None:
    with pytest.raises(DataError, match="--estimator noise"):
        optimize(model, "npu1", evaluation=model.parent / "calib.npz", executor=Immediately())


@pytest.mark.parametrize("estimator", ["auto", LEARNED])
def test_a_ranking_that_cannot_be_made_is_refused_before_anything_is_priced(
    model: Path, monkeypatch: pytest.MonkeyPatch, estimator: str
) -> None:
    def too_late(*arguments: object) -> None:
        raise AssertionError("priced before the refusal")

    monkeypatch.setattr("actcc.evidence.price_sites", too_late)
    with pytest.raises(DataError, match=f"--estimator {estimator} needs a ranking; run `actcc"):
        optimize(
            model,
            "npu1",
            evaluation=model.parent / "calib.npz",
            estimator=estimator,
            executor=Immediately(),
        )


def test_without_any_data_no_estimator_offers_approximate_candidates(model: Path) -> None:
    result = optimize(model, "npu1", estimator="noise", executor=Immediately())
    for site in result.plan.sites:
        assert all(c.exact for c in site.candidates if c.name == site.chosen)


def test_rank_prints_a_table_and_optimize_uses_it(model: Path) -> None:
    pytest.importorskip("sklearn", reason="needs the extra 'rank'")
    data = ["--calib", str(model.parent / "calib.npz"), "--target", "npu1", "--workers", "1"]
    few = ["--estimator", "noise", "--estimator", "changes", "--samples", "8"]
    done = CliRunner().invoke(cli, ["rank", str(model), *data, *few, "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert {row["name"] for row in found["estimators"]} == {"noise", "changes"}
    assert len(found["plans"]) == 8
    best = found["estimators"][0]["name"]
    result = optimize(
        model,
        "npu1",
        calibration=model.parent / "calib.npz",
        estimator="auto",
        max_trials=1,
        budget=Budget.parse(max_drop="30%"),
        executor=Immediately(),
    )
    assert result.plan.settings["estimator"] == best
    shown = CliRunner().invoke(cli, ["rank", str(model), *data, *few, "--quiet"])
    assert "Kendall's τ with fidelity on network.onnx" in shown.stdout
