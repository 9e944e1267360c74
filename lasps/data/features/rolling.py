"""Rolling arithmetic on the rows of many stocks at once.

A window's total is built by doubling (2 days from 1, 4 from 2, ..., then 20 = 16 + 4): it reads the window's own rows
in a fixed order and nothing else. So there is no running sum to drift or cancel, a frozen price has exactly zero
variance, and neither later rows nor rows before the look-back can change a single bit.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import talib

MACD, RSI = talib.MACD.__wrapped__, talib.RSI.__wrapped__  # type: ignore[attr-defined]
"""TA-Lib's functions without the wrapper that looks for pandas and polars, which costs as much as a stock's MACD."""

Array = np.ndarray
"""float64 (n,): one value per row of the chunk."""

LARGEST_MOVE = -float(np.log(0.7))
"""Daily log returns beyond the +-30 % price limit are relistings or wrong adjustments: clipped inside volatilities."""

SMALLEST_RATIO = 1e-3
"""Floor of volatilities and ranges before their logarithm, a tenth of a percent a day: guess, not tuned."""


class RollingBars:
    """Rows of whole stocks, one after the other, with rolling windows that look back within them.

    Values at rows whose window would reach before their stock's first row are meaningless; the caller masks them by
    `position` (days since the stock's first row), which is why a feature states its look-back.
    """

    def __init__(self, arrays: Sequence[Array], starts: np.ndarray) -> None:
        """Take open, high, low, close and volume, and the first row of each stock with the row count at the end."""
        open_, high, low, self.close, self.volume = arrays
        self.open_log, self.high, self.low, self.log = np.log(open_), np.log(high), np.log(low), np.log(self.close)
        self.starts = starts
        self.position = np.arange(len(self.close)) - np.repeat(starts[:-1], np.diff(starts))
        self._blocks: dict[tuple[str, str, int], Array] = {}
        self._first_rows: dict[int, np.ndarray] = {}

    def first_rows(self, days: int) -> np.ndarray:
        """The rows that are among the first `days` of their stock."""
        if days not in self._first_rows:
            self._first_rows[days] = np.flatnonzero(self.position < days)
        return self._first_rows[days]

    @cached_property
    def previous(self) -> Array:
        """Yesterday's log close."""
        return lag(self.log, 1)

    @cached_property
    def returns(self) -> Array:
        """Daily log returns, clipped at the price limit."""
        return np.clip(self.log - self.previous, -LARGEST_MOVE, LARGEST_MOVE)

    @cached_property
    def squares(self) -> Array:
        """Squared clipped daily log returns."""
        return self.returns * self.returns

    @cached_property
    def close_squares(self) -> Array:
        """Squared closes."""
        return self.close * self.close

    @cached_property
    def true_range(self) -> Array:
        """Log of the day's highest over its lowest price, yesterday's close included; at most twice the limit."""
        width = np.maximum(self.high, self.previous) - np.minimum(self.low, self.previous)
        return np.minimum(width, 2 * LARGEST_MOVE)

    @cached_property
    def moves(self) -> Array:
        """Absolute daily log returns."""
        return np.abs(self.returns)

    @cached_property
    def signed_volume(self) -> Array:
        """Volume with the sign of the day's return: a step of on-balance volume."""
        return np.sign(self.returns) * self.volume

    @cached_property
    def log_volume(self) -> Array:
        """Log shares."""
        return np.log(self.volume)

    @cached_property
    def upper_shadow(self) -> Array:
        """Log of high over the body's top."""
        return np.maximum(self.high - np.maximum(self.open_log, self.log), 0.0)

    @cached_property
    def lower_shadow(self) -> Array:
        """Log of the body's bottom over low."""
        return np.maximum(np.minimum(self.open_log, self.log) - self.low, 0.0)

    @cached_property
    def macd(self) -> tuple[Array, Array, Array]:
        """MACD(12, 26), its signal (9) and their difference by TA-Lib, in units of the 20-day true range."""
        parts = self._by_stock(lambda close: MACD(close, 12, 26, 9), 3, 33)
        unit = np.maximum(self.mean("true_range", 20), SMALLEST_RATIO) * self.close
        return parts[0] / unit, parts[1] / unit, parts[2] / unit

    @cached_property
    def rsi(self) -> Array:
        """RSI(14) by TA-Lib (Wilder 1978), 0..100; 50 while the price has not moved for 14 days."""
        value = self._by_stock(lambda close: RSI(close, 14), 1, 14)[0]
        return np.where(self.total("moves", 14) == 0, 50.0, value)

    def total(self, name: str, days: int) -> Array:
        """Sum of the series `name` over the last `days` rows."""
        return self._window(name, days, np.add)

    def mean(self, name: str, days: int) -> Array:
        """Mean of the series `name` over the last `days` rows."""
        return self.total(name, days) / days

    def highest(self, name: str, days: int) -> Array:
        """Largest value of the series `name` over the last `days` rows."""
        return self._window(name, days, np.maximum)

    def lowest(self, name: str, days: int) -> Array:
        """Smallest value of the series `name` over the last `days` rows."""
        return self._window(name, days, np.minimum)

    def volatility(self, days: int) -> Array:
        """Standard deviation (ddof 1) of the last `days` daily log returns."""
        total = self.total("returns", days)
        variance = (self.total("squares", days) - total * total / days) / (days - 1)
        return np.sqrt(np.maximum(variance, 0.0))

    def deviation(self, days: int) -> Array:
        """Standard deviation (ddof 0, as Bollinger's) of the last `days` closes, at least 0.01 % of their mean."""
        mean = self.mean("close", days)
        variance = self.mean("close_squares", days) - mean * mean
        return np.sqrt(np.maximum(variance, (1e-4 * mean) ** 2))

    def _window(self, name: str, days: int, join: np.ufunc) -> Array:
        """Join the blocks of the binary digits of `days`, the largest one nearest to today."""
        result, done = None, 0
        for power in reversed(range(days.bit_length())):
            if not days >> power & 1:
                continue
            block = self._block(name, power, join)
            result = block if result is None else _join_lagged(join, result, block, done)
            done += 1 << power
        assert result is not None
        return result

    def _block(self, name: str, power: int, join: np.ufunc) -> Array:
        """The series joined over the last 2 ** power rows."""
        if power == 0:
            return getattr(self, name)
        key = (name, join.__name__, power)
        if key not in self._blocks:
            half = self._block(name, power - 1, join)
            self._blocks[key] = _join_lagged(join, half, half, 1 << (power - 1))
        return self._blocks[key]

    def _by_stock(self, function: Callable[[Array], Any], series: int, lookback: int) -> Array:
        """A recursive function of each stock's close: (series, n); NaN for stocks not longer than its look-back."""
        out = np.full((series, len(self.close)), np.nan)
        for start, stop in zip(self.starts[:-1].tolist(), self.starts[1:].tolist(), strict=True):
            if stop - start > lookback:
                out[:, start:stop] = function(self.close[start:stop])
        return out


def lag(x: Array, days: int) -> Array:
    """The series `days` rows earlier; the first rows repeat the first value (they are masked by their position)."""
    out = np.empty_like(x)
    out[days:] = x[: max(len(x) - days, 0)]
    out[:days] = x[0]
    return out


def _join_lagged(join: np.ufunc, x: Array, block: Array, days: int) -> Array:
    """`x` joined with `block`, `days` rows earlier; the first rows keep x (they are masked by their position)."""
    out = np.empty_like(x)
    out[:days] = x[:days]
    join(x[days:], block[: max(len(block) - days, 0)], out=out[days:])
    return out
