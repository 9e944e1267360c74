"""Made-up bars that several tests start from, and the damage that they do to them."""

from __future__ import annotations

from datetime import date, timedelta

import numpy as np
import polars as pl

from lasps.data.panel import PRICES
from lasps.data.splits import Borders

FIRST_DAY = date(2018, 1, 2)
RAW_FIRST_DAY = date(2014, 1, 6)
DAYS = [date(2020, 1, 1) + timedelta(days=i) for i in range(240)]
BORDERS = Borders(train_end=DAYS[149], val_start=DAYS[150], val_end=DAYS[189], test_start=DAYS[190], test_end=DAYS[239])
FEW_FEATURES = ("return_1", "return_5")


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


def signed(raw: pl.DataFrame) -> pl.DataFrame:
    """The prices below the day before's close with a minus, as Kiwoom's opt10086 has them."""
    last = pl.col("close").shift(1).over("code").fill_null(0)
    return raw.with_columns(pl.when(pl.col(c) < last).then(-pl.col(c)).otherwise(pl.col(c)).alias(c) for c in PRICES)


def small_panel(stocks: int = 10, days: int = 240, seed: int = 0) -> pl.DataFrame:
    """Stocks "000010", "000020" ... in sectors 0, 1, 2 ...; every third has a halt, one is short, one delisted."""
    rng = np.random.default_rng(seed)
    frames = []
    for i in range(stocks):
        close = 10_000 * np.exp(np.cumsum(rng.normal(0, 0.02, days)))
        opening = close * np.exp(rng.normal(0, 0.01, days))
        frame = pl.DataFrame(
            {
                "code": [f"{10 * (i + 1):06d}"] * days,
                "date": DAYS[:days],
                "open": opening.round(),
                "high": (np.maximum(opening, close) * 1.01).round(),
                "low": (np.minimum(opening, close) * 0.99).round(),
                "close": close.round(),
                "volume": rng.integers(1, 10_000, days),
                "sector": [i % 20] * days,
            },
            schema_overrides={"sector": pl.Int16},
        )
        kept = np.ones(days, dtype=bool)
        if i % 3 == 0:
            kept[100:107] = False  # a halt
        if i == 1:
            kept[: days - 40] = False  # listed too late for a window
        if i == 2:
            kept[200:] = False  # delisted
        frames.append(frame.filter(pl.Series(kept)))
    return pl.concat(frames)


def make_raw_market(seed: int = 0, stocks: int = 8, days: int = 130) -> pl.DataFrame:
    """Bars as files have them (halts as open = high = low = 0); some listed late, ended or frozen; with sectors."""
    rng = np.random.default_rng(seed)
    frames = [_raw_stock(rng, i, weekdays(days, RAW_FIRST_DAY)) for i in range(stocks)]
    return pl.concat(frames)


def _raw_stock(rng: np.random.Generator, number: int, calendar: list[date]) -> pl.DataFrame:
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
