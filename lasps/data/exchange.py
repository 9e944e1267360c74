"""The exchange's rules, each once: daily price limits, tick sizes, and the days on which KRX is open.

`price_limit`, `tick_size` and `beyond_limit` serve labels, the integrity gate and the synthetic market alike.
`known_sessions` is what the exchange's calendar says; which days the data itself traded on says
`lasps.data.panel.market_calendar`, and only that one shapes labels.
"""

from __future__ import annotations

from datetime import date
from functools import cache
from importlib import resources

import numpy as np
import polars as pl

PRICE_LIMIT_CHANGE = date(2015, 6, 15)
LIMIT_BEFORE, LIMIT_SINCE = 0.15, 0.30
"""KRX's daily price limit before (since 1998-12-07) and from that day on."""

TICK_BORDERS = np.array([2_000, 5_000, 20_000, 50_000, 200_000, 500_000], dtype=np.float64)
OLD_TICK_BORDERS = np.array([1_000, 5_000, 10_000, 50_000, 100_000, 500_000], dtype=np.float64)
TICK_SIZES = np.array([1, 5, 10, 50, 100, 500, 1_000], dtype=np.float64)
"""Ticks in won of prices below each border and, the last one, above: since 2023-01-25 on all markets, and KOSPI's
before. The old tick is nowhere smaller than the new one."""

RELATIVE_SLACK = 0.002
"""Adjusted prices are rounded to whole won, which moves the limit a little. Guess, not tuned."""

LAST_SATURDAYS = date(1998, 12, 7)
"""Until the Saturday before this day KRX traded on Saturdays."""


def price_limit(dates: np.ndarray) -> np.ndarray:
    """The exchange's daily price limit as a fraction (0.15 or 0.30) for each datetime64[D]."""
    return np.where(dates < np.datetime64(PRICE_LIMIT_CHANGE), LIMIT_BEFORE, LIMIT_SINCE)


def tick_size(price: np.ndarray, borders: np.ndarray = TICK_BORDERS) -> np.ndarray:
    """Tick in won of each price in won; with `OLD_TICK_BORDERS` the coarser table of before 2023."""
    return TICK_SIZES[np.searchsorted(borders, price, side="right")]


def beyond_limit(close: np.ndarray, previous: np.ndarray, dates: np.ndarray) -> np.ndarray:
    """Closes that jump from the previous traded close beyond the limit of their day by more than rounding: bool (R,).

    Rounding is one tick of the coarser table or `RELATIVE_SLACK`, whichever is more. A NaN is no jump. Relistings,
    capital reductions and liquidation trading do it lawfully, a wrong adjustment unlawfully; either way the jump is
    no price move that one could have had.
    """
    beyond = np.abs(close - previous) > price_limit(dates) * previous
    rows = np.flatnonzero(beyond)
    before = previous[rows]
    slack = np.maximum(tick_size(before, OLD_TICK_BORDERS), RELATIVE_SLACK * before)
    beyond[rows] = np.abs(close[rows] - before) > price_limit(dates[rows]) * before + slack
    return beyond


def may_be_open(dates: np.ndarray) -> np.ndarray:
    """Whether KRX may trade on each datetime64[D] by its day of the week: bool (R,); Saturdays until December 1998."""
    weekday = (dates.astype("datetime64[D]").astype(np.int64) + 3) % 7
    return (weekday < 5) | ((weekday == 5) & (dates < np.datetime64(LAST_SATURDAYS)))


def known_sessions(first: date, last: date) -> np.ndarray | None:
    """The days from `first` to `last` on which KRX was or will be open, datetime64[D]; None outside the table's years.

    Source: XKRX of the package exchange_calendars, as `experiments/krx_holidays.py` wrote it into
    lasps/config/krx_holidays.csv. Making that calendar takes longer than a whole build, so the table is shipped.
    """
    holidays = _holidays()
    if first.year < _year(holidays[0]) or last.year > _year(holidays[-1]):
        return None
    days = np.arange(np.datetime64(first, "D"), np.datetime64(last, "D") + 1)
    return days[may_be_open(days) & ~np.isin(days, holidays)]


@cache
def _holidays() -> np.ndarray:
    text = resources.files("lasps.config").joinpath("krx_holidays.csv").read_bytes()
    return pl.read_csv(text, comment_prefix="#", try_parse_dates=True)["date"].sort().to_numpy()


def _year(day: np.datetime64) -> int:
    return int(day.astype("datetime64[Y]").astype(np.int64)) + 1970
