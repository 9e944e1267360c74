"""Day-wise metrics: each model over its own days, differences over common days, and nothing said on too few."""

from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lasps.evaluation.comparison import compare
from lasps.evaluation.metrics import METRICS, by_sector, summary
from lasps.evaluation.portfolio import portfolio_summary
from lasps.evaluation.significance import day_difference
from tests.evaluation.conftest import altered, make_forecast

PRIOR = (0.3, 0.4, 0.3)


def silent_after(forecast, days):
    """The same forecasts on the first days, no opinion on the others."""
    p = np.where((forecast.day < days)[:, None], forecast.p, [0.25, 0.5, 0.25])
    return replace(forecast, p=p, cache={})


def test_a_rank_ic_is_compared_on_the_days_that_both_models_have():
    full = make_forecast(n_days=60)
    silent = silent_after(full, 30)
    d = day_difference(silent, full, "rank_ic")
    assert (d.difference, d.n_days, d.n, d.interval) == (0, 30, 30 * 60, [0, 0])
    assert summary(silent, PRIOR)["rank_ic_days"] == 30 and summary(full, PRIOR)["rank_ic_days"] == 60
    assert summary(full, PRIOR)["rank_ic"] != summary(silent, PRIOR)["rank_ic"]


@pytest.mark.parametrize("metric", ["rank_ic", "icir", "rank_ic_skip1", "icir_skip1"])
def test_under_20_common_days_a_day_wise_difference_is_null(metric):
    full = make_forecast(n_days=60)
    few = compare({"silent": {"test": [silent_after(full, 19)]}, "full": {"test": [full]}}, prior=PRIOR).as_json()
    found = next(p for p in few["pairs"] if p["metric"] == metric)
    assert found["difference"] is None and found["interval"] is None and found["better"] is None
    assert found["n_days"] == 19
    assert any("silent has a rank IC on 19 of 60 days" in note and "undefined" in note for note in few["notes"])
    assert few["models"]["silent"]["test"][metric] is None and few["models"]["full"]["test"][metric] is not None
    assert few["models"]["silent"]["test"]["rank_ic_days"] == 19
    assert day_difference(silent_after(full, 20), full, metric).difference == pytest.approx(0)


def test_days_of_under_20_stocks_are_no_days_of_a_rank_ic():
    full = make_forecast(n_days=60)
    thin = altered(full, (pl.col("code") < "000012") | (pl.col("date").rank("dense") > 55))
    m = summary(thin, PRIOR)
    assert m["rank_ic"] is None and m["rank_ic_days"] == 5 and m["rank_ic_n"] == 300 and m["n_days"] == 60
    assert all(sector["rank_ic"] is None for sector in by_sector(thin, PRIOR).values())
    assert portfolio_summary([thin])["top_minus_universe"] == {
        "mean": None,
        "interval": None,
        "p_value": None,
        "n_days": 5,
    }


def test_universe_and_top_decile_of_one_row_are_means_over_the_same_days():
    f = silent_after(make_forecast(n_days=60, n_stocks=100), 30)
    p = portfolio_summary([f])
    assert p["n_days"] == 30
    assert p["top_decile_return"] - p["universe_return"] == pytest.approx(p["top_minus_universe"]["mean"])
    assert [d["n_days"] for d in p["deciles"]][-1] == 30
    assert p["deciles"][-1]["mean"] == pytest.approx(p["top_minus_universe"]["mean"])


def test_the_days_of_several_seeds_are_those_that_all_of_them_have():
    a = [silent_after(make_forecast(n_days=60, seed=s, market_seed=1), days) for s, days in ((1, 40), (2, 25))]
    b = [make_forecast(n_days=60, seed=s, market_seed=1, skill=0.3) for s in (1, 2)]
    found = compare({"a": {"test": a}, "b": {"test": b}}, prior=PRIOR).as_json()
    pair = next(p for p in found["pairs"] if p["metric"] == "rank_ic")
    cut = [[f.only(f.day < 25) for f in side] for side in (a, b)]
    expected = np.mean([day_difference(x, y, "rank_ic").difference for x, y in zip(*cut, strict=True)])
    assert pair["n_days"] == 25 and pair["difference"] == pytest.approx(expected)


@settings(max_examples=4, deadline=None)
@given(seed=st.integers(0, 999), kept=st.floats(0.1, 1), silent=st.integers(0, 24), metric=st.sampled_from([*METRICS]))
def test_no_models_metrics_change_when_another_model_is_added(seed, kept, silent, metric):
    """Whatever the other one leaves out: rows, or days on which it has no opinion."""
    own, base = (make_forecast(n_days=24, n_stocks=30, seed=seed + i, market_seed=seed) for i in (0, 1))
    other = silent_after(make_forecast(n_days=24, n_stocks=30, seed=seed + 2, market_seed=seed), silent)
    rows = np.random.default_rng(seed).random(other.n) < kept
    rows[0] = True
    alone = compare({"own": {"test": [own]}, "base": {"test": [base]}}, prior=PRIOR).as_json()
    beside = compare(
        {"other": {"test": [other.only(rows)]}, "own": {"test": [own]}, "base": {"test": [base]}}, prior=PRIOR
    ).as_json()
    assert all(alone["models"][name] == beside["models"][name] for name in ("own", "base"))
    pairs = [
        next(p for p in found["pairs"] if (p["a"], p["b"], p["metric"]) == ("own", "base", metric))
        for found in (alone, beside)
    ]
    for what in ("difference", "interval", "p_value", "n", "n_days"):
        assert pairs[0][what] == pairs[1][what]
