"""Small made-up forecasts with days, sectors and returns."""

import datetime as dt

import numpy as np
import polars as pl
import pytest

from lasps.evaluation.fitted import BaselineSplit
from lasps.evaluation.forecast import Forecast


def make_forecast(n_days=40, n_stocks=60, skill=1.0, seed=0, market_seed=None, model="m", start="2024-01-02"):
    """A forecast whose probabilities know `skill` times a hidden signal; the same market_seed, the same outcomes."""
    market = np.random.default_rng(seed if market_seed is None else market_seed)
    signal = market.normal(size=(n_days, n_stocks))
    returns = 0.02 * signal + 0.05 * market.normal(size=(n_days, n_stocks)) + 0.02 * market.normal(size=(n_days, 1))
    labels = np.where(returns >= 0.03, 2, np.where(returns <= -0.03, 0, 1))
    noise = np.random.default_rng(seed + 1000).normal(size=signal.shape)
    belief = skill * signal + 0.3 * noise
    logits = np.stack([-0.4 * belief, np.full_like(belief, 0.1), 0.4 * belief], axis=-1).reshape(-1, 3)
    first = dt.date.fromisoformat(start)
    days = [first + dt.timedelta(days=i) for i in range(n_days)]
    samples = pl.DataFrame(
        {
            "code": [f"{s:06d}" for s in range(n_stocks)] * n_days,
            "date": [d for d in days for _ in range(n_stocks)],
            "forward_return": returns.ravel(),
            "forward_return_skip1": returns.ravel() + 0.01 * market.normal(size=returns.size),
            "volatility_20": np.exp(market.normal(size=returns.size) * 0.3) * 0.03,
        }
    )
    sectors = np.tile(np.arange(n_stocks) % 3, n_days)
    return Forecast.from_logits(logits, labels.ravel(), sectors, samples=samples).named(model, "test", seed)


def make_split(n_days, first_day, seed, n_stocks=40, features=True):
    """Labels depend on volatility (wide stocks leave HOLD) and weakly on feature 0."""
    rng = np.random.default_rng(seed)
    n = n_days * n_stocks
    volatility = rng.uniform(0.01, 0.06, n)
    x = rng.normal(size=(n, 4)).astype(np.float32)
    returns = volatility * (rng.normal(size=n) * 1.5 + 0.8 * x[:, 0])
    day = np.repeat(np.arange(n_days), n_stocks) + first_day
    start = dt.date(2024, 1, 1)
    samples = pl.DataFrame(
        {
            "code": [f"{s:06d}" for s in range(n_stocks)] * n_days,
            "date": [start + dt.timedelta(days=int(d)) for d in day],
            "label_end": [start + dt.timedelta(days=int(d) + 5) for d in day],
            "forward_return": returns,
            "forward_return_skip1": returns,
            "volatility_20": volatility,
        }
    )
    labels = np.where(returns >= 0.03, 2, np.where(returns <= -0.03, 0, 1)).astype(np.int64)
    sectors = np.tile(np.arange(n_stocks) % 4, n_days).astype(np.int64)
    past = volatility * rng.normal(size=n)
    x = np.c_[x, np.log(volatility).astype(np.float32)] if features else None
    return BaselineSplit(samples, x, labels, sectors, past, np.where(past >= 0.03, 2, np.where(past <= -0.03, 0, 1)))


def altered(forecast, *filters, **columns):
    """The forecast with only some of its table's rows, or with other columns in it."""
    return Forecast.from_table(forecast.table.filter(*filters).with_columns(**columns))


def without_dates(forecast, **columns):
    """The forecast of somebody who has row numbers only."""
    table = forecast.table.drop("code", "date", "forward_return", "forward_return_skip1").with_row_index("row")
    return Forecast.from_table(table.with_columns(**columns))


@pytest.fixture
def forecast():
    return make_forecast()
