"""Made-up bars that several tests start from, and the damage that they do to them."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import polars as pl

from lasps.data.panel import PRICES

FIRST_DAY = date(2018, 1, 2)


def weekdays(n: int, start: date = FIRST_DAY) -> list[date]:
    days, day = [], start
    while len(days) < n:
        if day.weekday() < 5:
            days.append(day)
        day += timedelta(days=1)
    return days


def market(n_stocks: int = 12, n_days: int = 120, start: date = FIRST_DAY, seed: int = 3) -> pl.DataFrame:
    """A clean market of whole-won prices near 20,000 whose daily moves stay far inside the limits."""
    rng = np.random.default_rng(seed)
    days, frames = weekdays(n_days, start), []
    for stock in range(n_stocks):
        close = 20_000 * np.exp(np.cumsum(rng.normal(0, 0.015, n_days).clip(-0.05, 0.05)))
        open_ = close * (1 + rng.normal(0, 0.004, n_days))
        high, low = np.maximum(open_, close) * 1.004, np.minimum(open_, close) * 0.996
        prices = {"open": open_, "high": high, "low": low, "close": close}
        frames.append(
            pl.DataFrame(
                {"code": [f"{stock + 1:05d}0"] * n_days, "date": days}
                | {k: v.round() for k, v in prices.items()}
                | {"volume": rng.integers(10_000, 30_000, n_days)}
            )
        )
    return pl.concat(frames)


def put(raw: pl.DataFrame, code: str, row: int, **values: float) -> pl.DataFrame:
    """Overwrite columns in the `row`-th row of a stock."""
    here = (pl.col("code") == code) & (pl.int_range(pl.len()).over("code") == row)
    new = {c: pl.when(here).then(pl.lit(v)).otherwise(pl.col(c)).cast(raw.schema[c]) for c, v in values.items()}
    return raw.with_columns(**new)


def scaled(raw: pl.DataFrame, code: str, since: int, ratio: float) -> pl.DataFrame:
    """Multiply a stock's prices from its row `since` on."""
    here = (pl.col("code") == code) & (pl.int_range(pl.len()).over("code") >= since)
    prices = (pl.col(c) for c in PRICES)
    return raw.with_columns(pl.when(here).then(price * ratio).otherwise(price) for price in prices)


def halted(raw: pl.DataFrame, code: str, rows: range) -> pl.DataFrame:
    """Halted days as KRX files have them: open = high = low = 0, volume 0, the last close."""
    for row in rows:
        raw = put(raw, code, row, open=0, high=0, low=0, volume=0)
    return raw
