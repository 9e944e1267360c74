"""A small panel with everything a real one has: late listings, halts, a delisting, a short history."""

from datetime import date, timedelta

import numpy as np
import polars as pl

from lasps.data.splits import Borders

DAYS = [date(2020, 1, 1) + timedelta(days=i) for i in range(240)]
BORDERS = Borders(train_end=DAYS[149], val_start=DAYS[150], val_end=DAYS[189], test_start=DAYS[190], test_end=DAYS[239])
FEW_FEATURES = ("return_1", "return_5")


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
