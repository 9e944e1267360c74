"""Intervals over days: against closed forms, an independent bootstrap-free check, and simulation."""

import numpy as np
import polars as pl
import pytest
from scipy import stats
from statsmodels.stats.multitest import multipletests

from lasps.evaluation import significance
from lasps.evaluation.metrics import METRICS, DaySums
from tests.evaluation.conftest import altered, make_forecast, without_dates


def overlapping_days(rng, runs, n_days, horizon=5):
    """(runs, n_days) means whose neighbours share their returns, as 5-day forward returns do; expectation zero."""
    daily = rng.standard_t(5, size=(runs, n_days + horizon - 1))
    return np.lib.stride_tricks.sliding_window_view(daily, horizon, axis=1).sum(-1)


@pytest.mark.parametrize("n_days", [60, 150, 360])
def test_intervals_cover_the_truth_with_5_day_overlap(n_days):
    rng = np.random.default_rng(n_days)
    days = overlapping_days(rng, 1000, n_days)
    variance, dof = significance.long_run_variance(days - days.mean(1, keepdims=True))
    half = stats.t.ppf(0.975, dof) * np.sqrt(variance)
    assert 0.92 <= (np.abs(days.mean(1)) < half).mean() <= 0.97


def test_independent_days_get_about_the_textbook_standard_error():
    rng = np.random.default_rng(0)
    days = rng.normal(size=(400, 200))
    variance, _ = significance.long_run_variance(days - days.mean(1, keepdims=True))
    assert variance.mean() == pytest.approx(1 / 200, rel=0.1)


def test_the_difference_is_b_minus_a_and_a_better_model_has_a_lower_log_loss():
    a, b = make_forecast(skill=0.0, market_seed=5, n_days=80), make_forecast(skill=1.0, market_seed=5, n_days=80)
    d = significance.day_difference(a, b, "log_loss")
    plain = METRICS["log_loss"](b).estimate - METRICS["log_loss"](a).estimate
    assert d.difference == pytest.approx(plain) and d.difference < 0
    assert d.high < 0 and d.p_value < 0.05 and d.excludes_zero and d.n_days == 80
    back = significance.day_difference(b, a, "log_loss")
    assert back.difference == pytest.approx(-d.difference) and back.low == pytest.approx(-d.high)


def test_days_count_by_their_rows_not_each_the_same():
    a, b = make_forecast(n_days=30), make_forecast(skill=0.3, market_seed=0, seed=0, n_days=30)
    thin = pl.col("date").rank("dense") > 15
    keep = ~thin | (pl.col("code") < "000010")
    fa, fb = altered(a, keep), altered(b, keep)
    d = significance.day_difference(fa, fb, "accuracy")
    assert d.difference == pytest.approx((fb.predicted == fb.labels).mean() - (fa.predicted == fa.labels).mean())


def test_leaving_days_out_agrees_with_the_linearised_ratio():
    rng = np.random.default_rng(1)
    sums = np.stack([rng.normal(50, 10, 90), rng.integers(90, 110, 90).astype(float)], axis=1)
    influence = significance.day_influence(DaySums(sums, lambda s: s[..., 0] / s[..., 1], sums[:, 1]))
    ratio = sums[:, 0].sum() / sums[:, 1].sum()
    np.testing.assert_allclose(influence, (sums[:, 0] - ratio * sums[:, 1]) / sums[:, 1].mean(), rtol=0.02)


@pytest.mark.parametrize("metric", sorted(METRICS))
def test_every_metric_carries_an_interval_around_its_difference(metric):
    a, b = make_forecast(skill=0.2, market_seed=4), make_forecast(skill=1.0, market_seed=4)
    d = significance.day_difference(a, b, metric)
    assert d.low < d.difference < d.high and 0 <= d.p_value <= 1


def test_the_standard_error_of_macro_f1_matches_resampled_markets():
    """Nonlinear metrics: the mean standard error equals the spread of the metric over fresh markets."""
    pairs = [
        (make_forecast(skill=0.3, seed=s, n_stocks=30), make_forecast(skill=1.0, seed=s, n_stocks=30))
        for s in range(60)
    ]
    found = [significance.day_difference(a, b, "macro_f1") for a, b in pairs]
    spread = np.std([d.difference for d in found], ddof=1)
    assert np.mean([d.standard_error for d in found]) == pytest.approx(spread, rel=0.35)


def test_identical_forecasts_differ_by_nothing(forecast):
    d = significance.day_difference(forecast, forecast)
    assert (d.difference, d.low, d.high, d.p_value) == (0, 0, 0, 1) and not d.excludes_zero


def test_without_dates_or_with_few_days_there_is_no_interval(forecast):
    rows = without_dates(forecast)
    d = significance.day_difference(rows, altered(rows, p_sell="p_buy", p_buy="p_sell"))
    assert d.interval is None and d.p_value is None and d.difference > 0
    few = make_forecast(n_days=19)
    assert significance.day_difference(few, make_forecast(n_days=19, skill=0, market_seed=0)).interval is None


def test_an_unknown_metric_is_refused(forecast):
    with pytest.raises(ValueError, match="unknown metric"):
        significance.day_difference(forecast, forecast, "sharpe")


def test_holm_is_that_of_statsmodels_and_skips_unknowns():
    p = list(np.random.default_rng(0).random(20) ** 4)
    assert significance.holm(p) == pytest.approx(list(multipletests(p, method="holm")[1]))
    expected = multipletests([0.01, 0.04, 0.03], method="holm")[1]
    assert significance.holm([0.01, None, 0.04, 0.03])[1] is None
    assert significance.holm([0.01, None, 0.04, 0.03])[2:] == pytest.approx(list(expected[1:]))
    assert significance.holm([None]) == [None]


def test_seeds_widen_the_interval_and_are_said():
    days = {"market_seed": 8, "n_days": 100}
    a = [METRICS["log_loss"](make_forecast(skill=s, seed=i, **days)) for i, s in enumerate((0.1, 0.5, 0.9))]
    b = [METRICS["log_loss"](make_forecast(skill=1.0, seed=i, **days)) for i in range(3)]
    one = significance.method_difference("log_loss", a[1:2], b[1:2])
    all_seeds = significance.method_difference("log_loss", a, b, paired=True)
    assert one.over == "days" and all_seeds.over == "seeds and days" and all_seeds.n_seeds == 3
    per_seed = [y.estimate - x.estimate for x, y in zip(a, b, strict=True)]
    assert all_seeds.difference == pytest.approx(np.mean(per_seed))
    assert all_seeds.standard_error**2 > np.var(per_seed, ddof=1) / 3
    assert all_seeds.dof < one.dof
