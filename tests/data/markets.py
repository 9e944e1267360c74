"""Small random markets for the tests of the data layer: halts, late listings, early ends and frozen prices included."""

from __future__ import annotations

import datetime as dt

import numpy as np
import polars as pl

FIRST_DAY = dt.date(2014, 1, 6)


def make_raw_market(seed: int = 0, stocks: int = 8, days: int = 130) -> pl.DataFrame:
    """Raw bars (halts as open = high = low = 0) with a sector column; whole won; working days only."""
    rng = np.random.default_rng(seed)
    calendar = [
        FIRST_DAY + dt.timedelta(days=d) for d in range(2 * days) if (FIRST_DAY + dt.timedelta(d)).weekday() < 5
    ]
    frames = [_stock(rng, i, calendar[:days]) for i in range(stocks)]
    return pl.concat(frames)


def _stock(rng: np.random.Generator, number: int, calendar: list[dt.date]) -> pl.DataFrame:
    days = len(calendar)
    frozen = number == 3
    moves = np.zeros(days) if frozen else rng.normal(0, 0.025, days)
    close = np.maximum(np.round(10 ** rng.uniform(3, 5) * np.exp(np.cumsum(moves))), 10)
    open_ = np.maximum(np.round(close * np.exp(0 if frozen else rng.normal(0, 0.01, days))), 1)
    spread = 0 if frozen else np.abs(rng.normal(0, 0.01, (2, days)))
    high = np.round(np.maximum(open_, close) * np.exp(spread[0] if not frozen else 0))
    low = np.maximum(np.round(np.minimum(open_, close) * np.exp(-spread[1] if not frozen else 0)), 1)
    volume = np.round(np.exp(rng.normal(10, 1, days))).astype(np.int64)
    halted = (rng.random(days) < 0.02) & (number != 3)
    for prices in (open_, high, low):
        prices[halted] = 0
    volume[halted] = 0
    first = rng.integers(0, days // 2) if number % 4 == 1 else 0
    last = rng.integers(days // 2, days) if number % 4 == 2 else days
    frame = pl.DataFrame(
        {
            "code": [f"{number:05d}0"] * days,
            "date": calendar,
            "open": open_,
            "high": high,
            "low": low,
            "close": close,
            "volume": volume,
        }
    )
    return frame[first:last].with_columns(sector=pl.lit(number % 3, dtype=pl.Int16))
