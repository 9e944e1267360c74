"""Random bars of any size for the data benchmarks, and how their rates are taken: one thread, warm, median of five."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from functools import partial
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from experiments.benchmarks.measure import row, timed
from lasps.config.dataset_config import WINDOW
from lasps.data.splits import Borders, fraction_borders

REPEATS = 5


def random_panel(stocks: int, days: int, seed: int = 7) -> pl.DataFrame:
    """Random walks with sectors, rounded to won: stocks x days rows, sorted by (code, date)."""
    rng = np.random.default_rng(seed)
    shape = (stocks, days)
    close = 10_000 * np.exp(np.cumsum(rng.normal(0, 0.02, shape), axis=1))
    opening = close * np.exp(rng.normal(0, 0.01, shape))
    high = np.maximum(opening, close) * np.exp(np.abs(rng.normal(0, 0.01, shape)))
    low = np.minimum(opening, close) * np.exp(-np.abs(rng.normal(0, 0.01, shape)))
    prices = {
        name: x.round().clip(1).ravel()
        for name, x in zip(("open", "high", "low", "close"), (opening, high, low, close), strict=True)
    }
    calendar = [date(2010, 1, 4) + timedelta(days=i) for i in range(days)]
    return pl.DataFrame(
        {
            "code": np.repeat([f"{10 * i:06d}" for i in range(stocks)], days),
            "date": pl.concat([pl.Series(calendar)] * stocks),
            **prices,
            "volume": rng.lognormal(10, 1, stocks * days).astype(np.int64) + 1,
            "sector": pl.Series(np.repeat(np.arange(stocks) % 20, days), dtype=pl.Int16),
        }
    )


def random_windows(windows: int, days: int = WINDOW, seed: int = 7) -> Tensor:
    """Bars float32 (B,T,5), each window another stock."""
    columns = random_panel(windows, days, seed).select("open", "high", "low", "close", "volume").to_numpy()
    return torch.from_numpy(columns.astype(np.float32).reshape(windows, days, 5))


def borders_of(panel: pl.DataFrame) -> Borders:
    """70 / 15 / 15 % of the days."""
    return fraction_borders(panel["date"])


@contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch on one core."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def median_seconds(call: Callable[[], Any]) -> float:
    """Median wall time of five calls, after one to warm up."""
    call()
    return statistics.median(timed(call)[1] for _ in range(REPEATS))


rate_row = partial(row, more_is_better=True)
