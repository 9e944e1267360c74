"""Metrics against scikit-learn, scipy and plain loops."""

import numpy as np
import polars as pl
import pytest
from scipy.stats import spearmanr
from sklearn import metrics as sk

from lasps.evaluation import metrics
from lasps.evaluation.forecast import Forecast
from lasps.evaluation.rank_ic import daily_rank_ic, grouped_ranks
from tests.evaluation.conftest import altered, make_forecast

PRIOR = (0.26, 0.53, 0.21)


def test_summary_agrees_with_scikit_learn(forecast):
    m, f = metrics.summary(forecast, PRIOR), forecast
    assert m["n"] == f.n == 2400 and m["n_days"] == 40
    assert m["accuracy"] == pytest.approx(sk.accuracy_score(f.labels, f.predicted))
    assert m["log_loss"] == pytest.approx(sk.log_loss(f.labels, f.p))
    assert m["macro_f1"] == pytest.approx(sk.f1_score(f.labels, f.predicted, average="macro"))
    assert m["balanced_accuracy"] == pytest.approx(sk.balanced_accuracy_score(f.labels, f.predicted))
    precision = sk.precision_score(f.labels, f.predicted, average=None)
    np.testing.assert_allclose(list(m["class_precision"].values()), precision)
    np.testing.assert_allclose(list(m["class_accuracy"].values()), sk.recall_score(f.labels, f.predicted, average=None))
    assert sum(m["class_counts"].values()) == sum(m["predicted_counts"].values()) == f.n


def test_the_majority_is_that_of_the_training_labels_not_of_the_split(forecast):
    f = forecast
    m = metrics.summary(forecast, (0.5, 0.3, 0.2))
    assert m["majority_accuracy"] == pytest.approx((f.labels == 0).mean())
    expected = -np.log(np.array([0.5, 0.3, 0.2]))[f.labels].mean()
    assert m["prior_log_loss"] == pytest.approx(expected)


def test_rank_ic_is_the_mean_of_daily_spearman_correlations(forecast):
    f = forecast
    daily = [spearmanr(f.score[f.day == d], f.forward_return[f.day == d]).statistic for d in range(40)]
    m = metrics.summary(forecast, PRIOR)
    assert m["rank_ic"] == pytest.approx(np.mean(daily))
    assert m["icir"] == pytest.approx(np.mean(daily) / np.std(daily, ddof=1))
    assert m["rank_ic_skip1"] != m["rank_ic"]


def test_days_with_fewer_than_20_stocks_have_no_rank_ic():
    first = pl.col("date") == pl.col("date").min()
    f = altered(make_forecast(n_days=3, n_stocks=20), ~(first & (pl.col("code") == "000000")))
    ic = daily_rank_ic(f.score, f.forward_return, f.day, 3)
    assert np.isnan(ic[0]) and np.isfinite(ic[1:]).all()


def test_ties_share_their_average_rank_and_groups_do_not_mix():
    ranks = grouped_ranks([3, 1, 1, 2, 9, 9, 9], [1, 1, 1, 1, 0, 0, 0])
    assert ranks.tolist() == [4, 1.5, 1.5, 3, 2, 2, 2]


def test_a_constant_score_has_no_rank_ic_and_one_calibration_bin():
    table = make_forecast()
    flat = altered(table, p_sell=pl.lit(0.26), p_hold=pl.lit(0.53), p_buy=pl.lit(0.21))
    m = metrics.summary(flat, PRIOR)
    assert m["rank_ic"] is None and m["icir"] is None
    assert m["log_loss"] == pytest.approx(m["prior_log_loss"])
    held = (table.labels == 1).mean()
    assert m["expected_calibration_error"] == pytest.approx(abs(0.53 - held))


def test_calibration_error_agrees_with_a_plain_loop(forecast):
    f = forecast
    confidence, correct = f.p.max(1), f.predicted == f.labels
    order = np.argsort(confidence, kind="stable")
    loop = sum(abs(correct[part].sum() - confidence[part].sum()) for part in np.array_split(order, 15)) / f.n
    assert metrics.summary(forecast, PRIOR)["expected_calibration_error"] == pytest.approx(loop, abs=2e-3)


def test_absent_classes_and_returns_are_none_not_zero():
    table = Forecast.from_probabilities(np.tile([0.2, 0.5, 0.3], (3, 1)), [1, 1, 2], [0, 0, 1])
    m = metrics.summary(table, PRIOR)
    assert m["class_accuracy"] == {"SELL": None, "HOLD": 1.0, "BUY": 0.0}
    assert m["class_precision"]["SELL"] is None and m["class_precision"]["HOLD"] == pytest.approx(2 / 3)
    assert m["rank_ic"] is None and m["raw_log_loss"] is None and m["n_days"] is None


def test_a_forecast_that_excluded_what_happened_has_no_finite_log_loss():
    table = Forecast.from_probabilities([[0, 1, 0], [0, 1, 0]], [0, 1], [0, 0])
    assert metrics.log_loss([[0, 1, 0]], [0]) == np.inf
    assert metrics.summary(table, PRIOR)["log_loss"] is None


def test_sectors_have_their_own_n_and_add_up(forecast):
    sectors = metrics.by_sector(forecast, PRIOR)
    whole = metrics.summary(forecast, PRIOR)
    assert sorted(sectors) == [0, 1, 2] and sum(m["n"] for m in sectors.values()) == whole["n"]
    mean = sum(m["n"] * m["log_loss"] for m in sectors.values()) / whole["n"]
    assert mean == pytest.approx(whole["log_loss"])


def test_focal_loss_is_of_the_raw_softmax():
    raw = np.array([[0.7, 0.2, 0.1]])
    assert metrics.focal_losses(raw, [1], gamma=2.0)[0] == pytest.approx(0.8**2 * -np.log(0.2))
    weighted = metrics.focal_losses(raw, [1], gamma=2.0, weights=(1, 3, 1))[0]
    assert weighted == pytest.approx(3 * 0.8**2 * -np.log(0.2))


def test_coverage_starts_with_what_the_model_is_most_confident_of(forecast):
    f = forecast
    curve = metrics.coverage_curve(f, (0.1, 1.0))
    most_confident = np.argsort(-f.p.max(1))[:240]
    assert curve[0]["accuracy"] == pytest.approx((f.predicted == f.labels)[most_confident].mean())
    assert curve[1]["accuracy"] == pytest.approx((f.predicted == f.labels).mean())


def test_rank_ic_within_volatility_quintiles_vanishes_when_the_score_is_volatility():
    rng = np.random.default_rng(3)
    volatility = np.tile(np.exp(rng.normal(size=200)), 50)
    day = np.repeat(np.arange(50), 200)
    returns = -0.05 * volatility + 0.1 * rng.normal(size=volatility.size)
    f = make_forecast(n_days=50, n_stocks=200)
    f = type(f)(
        np.stack([volatility, 0 * volatility, -volatility], 1),
        f.labels,
        f.sectors,
        day,
        f.dates,
        forward_return=returns,
        volatility=volatility,
    )
    whole = metrics.METRICS["rank_ic"](f).estimate
    inside = [ic for ic, days in metrics.rank_ic_in_volatility_quintiles(f) if days == 50]
    assert len(inside) == 5 and whole > 0.3 and np.mean(inside) < whole / 2


def test_a_wrong_prior_is_refused():
    with pytest.raises(ValueError, match="prior"):
        metrics.checked_prior((0.5, 0.6, 0.1))
    with pytest.raises(ValueError, match="prior"):
        metrics.checked_prior((0.6, 0.5, -0.1))


def test_flat_metrics_are_paths_of_numbers(forecast):
    flat = metrics.flat_metrics(metrics.summary(forecast, PRIOR), "test/")
    assert flat["test/class_accuracy/SELL"] > 0 and all(isinstance(v, float) for v in flat.values())
