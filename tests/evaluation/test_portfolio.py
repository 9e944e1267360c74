"""Deciles, turnover and costs against plain loops and worked examples."""

import datetime as dt
from dataclasses import replace

import numpy as np
import polars as pl
import pytest

from lasps.evaluation.portfolio import (
    Costs,
    decile_returns,
    deciles,
    portfolio_summary,
    sales_tax,
    short_selling_banned,
    turnover,
)
from tests.evaluation.conftest import altered, make_forecast, without_dates


def test_deciles_are_ten_equal_groups_sorted_by_score(forecast):
    f = forecast
    decile = deciles(f)
    day = f.day == 3
    assert np.bincount(decile[day]).tolist() == [6] * 10
    assert f.score[day & (decile == 9)].min() >= f.score[day & (decile == 8)].max()


def test_decile_returns_agree_with_a_plain_loop(forecast):
    f = forecast
    decile = deciles(f)
    by_decile, universe = decile_returns(f, decile)
    for d in (0, 17):
        day = f.day == d
        assert universe[d] == pytest.approx(f.forward_return[day].mean())
        assert by_decile[d, 9] == pytest.approx(f.forward_return[day & (decile == 9)].mean())


def test_turnover_is_the_share_the_portfolio_of_five_days_ago_did_not_hold(forecast):
    f = forecast
    member = deciles(f) == 9
    found = turnover(f, member)
    held = [set(f.codes[member & (f.day == d)]) for d in range(40)]
    plain = [1 - len(held[d] & held[d - 5]) / len(held[d]) for d in range(5, 40)]
    assert np.isnan(found[:5]).all() and len(found) == 40
    np.testing.assert_allclose(found[5:], plain)


def test_a_ranking_that_never_changes_turns_nothing_over_and_costs_nothing():
    table = make_forecast()
    fixed = altered(table, score=pl.col("code").cast(pl.Float64))
    p = portfolio_summary([fixed])
    assert p["turnover"] == 0 and p["cost_per_holding"] == 0
    assert p["net_top_minus_universe"]["mean"] == pytest.approx(p["top_minus_universe"]["mean"])


def test_turnover_is_unknown_where_a_stock_is_not_sampled_every_day():
    table = make_forecast(n_stocks=180)
    place = pl.col("code").cast(pl.Int64) + pl.col("date").rank("dense").cast(pl.Int64)
    sparse = altered(table, place % 6 == 0)
    p = portfolio_summary([sparse], Costs(per_side=0.001, tax=0.002))
    assert p["turnover"] is None and p["cost_per_holding"] == pytest.approx(0.004)


def test_costs_are_turnover_times_tax_and_two_sides(forecast):
    p = portfolio_summary([forecast], Costs(per_side=0.002, tax=0.001))
    assert p["cost_per_holding"] == pytest.approx(p["turnover"] * 0.005, rel=0.02)
    assert p["net_top_minus_universe"]["mean"] < p["top_minus_universe"]["mean"]
    assert p["top_minus_universe"]["interval"][0] > 0 and p["decile_returns"][9] > p["decile_returns"][0]


def test_long_short_is_marked_where_short_selling_was_banned():
    inside = portfolio_summary([make_forecast(start="2024-03-01")])
    assert inside["long_short_banned_days"] == 40 and inside["long_short_allowed"]["mean"] is None
    across = portfolio_summary([make_forecast(start="2025-03-21")])
    assert across["long_short_banned_days"] == 10 and across["long_short_allowed"]["n_days"] == 30


@pytest.mark.parametrize(
    ("date", "rate"),
    [
        ("2015-01-02", 0.0030),
        ("2019-06-02", 0.0030),
        ("2019-06-03", 0.0025),
        ("2022-12-31", 0.0023),
        ("2023-06-01", 0.0020),
        ("2024-06-01", 0.0018),
        ("2025-06-01", 0.0015),
        ("2026-01-02", 0.0020),
    ],
)
def test_the_transaction_tax_is_that_of_the_day(date, rate):
    assert sales_tax(dt.date.fromisoformat(date)) == rate


def test_the_bans_end_on_their_last_day():
    banned = {d: short_selling_banned(dt.date.fromisoformat(d)) for d in ("2025-03-30", "2025-03-31", "2020-03-15")}
    assert list(banned.values()) == [True, False, False]


def test_without_dates_or_returns_there_is_no_portfolio(forecast):
    assert portfolio_summary([replace(forecast, forward_return=None)]) is None
    assert portfolio_summary([without_dates(forecast)]) is None
    assert portfolio_summary([make_forecast(n_stocks=15)]) is None


def test_nonsense_costs_are_refused():
    with pytest.raises(ValueError, match="fractions"):
        Costs(per_side=15)
