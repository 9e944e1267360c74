"""Baselines on a small dated market whose answers can be worked out by hand."""

import numpy as np
import polars as pl
import pytest

from lasps.evaluation import metrics
from lasps.evaluation.baselines import BASELINES, fit_baselines
from lasps.evaluation.fitted import BaselineSplit
from tests.evaluation.conftest import make_split


@pytest.fixture(scope="module")
def market():
    return make_split(100, 0, 1), make_split(20, 110, 2), make_split(30, 140, 3)


@pytest.fixture(scope="module")
def tables(market):
    train, val, test = market
    return fit_baselines(train, val, {"val": val, "test": test})


def test_every_baseline_forecasts_every_split(tables):
    assert set(tables) == set(BASELINES) - {"oracle"}
    assert all(set(t) == {"val", "test"} and t["test"].n == 1200 for t in tables.values())


def test_more_information_gives_a_lower_log_loss(tables, market):
    prior = metrics.class_frequencies(market[0].labels)
    loss = {name: metrics.summary(t["test"], prior)["log_loss"] for name, t in tables.items()}
    assert loss["majority"] is None and loss["prior"] == pytest.approx(
        metrics.summary(tables["prior"]["test"], prior)["prior_log_loss"]
    )
    assert loss["lightgbm"] < loss["volatility_bins"] < loss["prior"]
    assert loss["logistic_regression"] < loss["prior"]


def test_volatility_bins_are_quantiles_of_train_with_their_class_shares(tables, market):
    train, _, _ = market
    v, edges = train.column("volatility_20"), np.quantile(train.column("volatility_20"), np.arange(1, 20) / 20)
    inside = (v >= edges[18]) & (v >= edges[0])
    prior = np.array(metrics.class_frequencies(train.labels))
    counts = np.bincount(train.labels[inside], minlength=3)
    expected = (counts + 20 * prior) / (counts.sum() + 20)
    table = tables["volatility_bins"]["test"]
    wild = table.p[table.volatility > edges[18]]
    np.testing.assert_allclose(wild, np.tile(expected, (len(wild), 1)))


def test_persistence_knows_how_often_each_class_followed_each(tables, market):
    train, _, test = market
    after_buy = train.labels[train.known_labels == 2]
    expected = (np.bincount(after_buy, minlength=3) + 20 * np.array(metrics.class_frequencies(train.labels))) / (
        len(after_buy) + 20
    )
    p = tables["persistence"]["test"].p[np.flatnonzero(test.known_labels == 2)[0]]
    np.testing.assert_allclose(p, expected)


def test_no_forecast_depends_on_the_outcome_it_forecasts(market):
    train, val, test = market
    shuffled = BaselineSplit(
        test.samples.with_columns(forward_return=pl.lit(0.5), forward_return_skip1=pl.lit(0.5)),
        test.features,
        np.zeros_like(test.labels),
        test.sector_ids,
        test.past_return,
        test.known_labels,
    )
    a, b = (fit_baselines(train, val, {"test": s}, [n for n in BASELINES if n != "lightgbm"]) for s in (test, shuffled))
    for name in a:
        assert np.array_equal(a[name]["test"].p, b[name]["test"].p), name


def test_rank_signals_rank_and_leave_the_probabilities_to_the_prior(tables, market):
    table = tables["minus_volatility_20"]["test"]
    assert (table.score == -table.volatility).all()
    assert len(np.unique(table.p[:, 1])) == 1
    assert (tables["minus_return_5"]["test"].score == -market[2].past_return).all()


def test_data_without_dates_keeps_the_baselines_that_need_none():
    train, val = (
        BaselineSplit(None, s.features, s.labels, s.sector_ids) for s in (make_split(30, 0, 1), make_split(10, 40, 2))
    )
    tables = fit_baselines(train, val, {"val": val})
    trees = {"lightgbm", "lightgbm_plain", "lightgbm_second"}
    assert set(tables) == {"majority", "prior", "sector_prior", "logistic_regression", "mlp", *trees}


def test_only_the_twin_and_the_mlp_read_scores_and_means():
    """The label is the last feature's, which is a score; its five-day mean is in the means alone."""
    rng = np.random.default_rng(0)
    splits = []
    for n in (6000, 2000, 2000):
        features = rng.standard_normal((n, 4)).astype(np.float32)
        means = np.hstack([features, features + rng.standard_normal((n, 4)).astype(np.float32), features])
        labels = np.digitize(features[:, 3], [-0.5, 0.5])
        splits.append(BaselineSplit(None, features, labels, np.zeros(n, dtype=np.int64), means=means, scores=1))
    train, val, test = splits
    tables = fit_baselines(train, val, {"test": test}, ["lightgbm", "lightgbm_plain", "mlp", "logistic_regression"])
    accuracy = {name: float((t["test"].p.argmax(axis=1) == t["test"].labels).mean()) for name, t in tables.items()}
    assert min(accuracy["lightgbm"], accuracy["mlp"]) > 0.9
    assert max(accuracy["lightgbm_plain"], accuracy["logistic_regression"]) < 0.5


def test_a_seed_makes_the_same_forecast_again_and_another_seed_another(market):
    train, val, test = market
    for name in ("lightgbm", "mlp"):
        a, b, c = (fit_baselines(train, val, {"test": test}, [name], seed)[name]["test"] for seed in (1, 1, 2))
        assert np.array_equal(a.p, b.p) and not np.array_equal(a.p, c.p) and (a.seed, c.seed) == (1, 2)


def test_what_early_stopping_decided_is_told(market):
    train, val, test = market
    facts = {}
    fit_baselines(train, val, {"test": test}, ["lightgbm", "prior"], 0, facts)
    assert facts["lightgbm"]["trees"] >= 1 and facts["prior"] == {}


def test_the_oracle_stands_beside_them_where_it_is_known(market):
    train, val, test = (
        BaselineSplit(
            s.samples.with_columns(oracle_p_sell=0.2, oracle_p_hold=0.5, oracle_p_buy=0.3), None, s.labels, s.sector_ids
        )
        for s in market
    )
    tables = fit_baselines(train, val, {"test": test}, ["prior", "oracle"])
    assert tables["oracle"]["test"].p[:, 2].tolist() == [0.3] * len(market[2].labels)


def test_unknown_names_are_refused(market):
    with pytest.raises(ValueError, match="unknown baselines"):
        fit_baselines(market[0], None, {"test": market[2]}, ["xgboost"])
