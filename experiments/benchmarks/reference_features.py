"""The features as vectorised pandas, one stock after the other, straight from their definitions."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache, partial

import numpy as np
import pandas as pd
import talib
from scipy.stats import norm

from lasps.data.features.rolling import LARGEST_MOVE, SMALLEST_RATIO

Formulas = dict[str, Callable[[], pd.Series]]
"""Feature -> how to compute it; only what is asked for is computed."""


def all_features(panel: pd.DataFrame, names: list[str], ranked: pd.DataFrame | None = None) -> np.ndarray:
    """Features (R, F) of a panel sorted by (code, date): stock by stock, then across each day.

    `ranked`: values to rank instead of the own ones, because two that differ in the last bit only may swap ranks.
    """
    bases = dict.fromkeys(base_of(name) for name in names)
    table = pd.concat([stock_features(bars, list(bases)) for _, bars in panel.groupby("code", sort=False)])
    for name in names:
        base = base_of(name)
        if name.startswith("rank_"):
            day = (table if ranked is None else ranked)[base].groupby(panel["date"])
            table[name] = (day.rank() - 0.5) / day.transform("count") - 0.5
        elif name.startswith(("score_", "sector_score_")):
            by = [panel["date"], panel["sector"]] if name.startswith("sector") else [panel["date"]]
            group = (table if ranked is None else ranked)[base].groupby(by)
            table[name] = norm.ppf((group.rank() - 0.5) / group.transform("count"))
        elif name.startswith("relative_"):
            table[name] = table[base] - table[base].groupby(panel["date"]).transform("mean")
        elif name.startswith("sector_"):
            table[name] = table[base] - table[base].groupby([panel["date"], panel["sector"]]).transform("mean")
    return table[names].to_numpy()


def base_of(name: str) -> str:
    """The feature that a cross-sectional one is made from; any other is its own."""
    return name.removeprefix("rank_").removeprefix("relative_").removeprefix("sector_").removeprefix("score_")


def stock_features(bars: pd.DataFrame, names: list[str]) -> pd.DataFrame:
    """Features of a stock alone, NaN where their look-back is not there. bars: open, high, low, close, volume."""
    log_close = np.log(bars["close"])
    yesterday = log_close.shift()
    returns = (log_close - yesterday).clip(-LARGEST_MOVE, LARGEST_MOVE)
    log_high, log_low = np.log(bars["high"]), np.log(bars["low"])
    widest = pd.concat([log_high, yesterday], axis=1).max(axis=1, skipna=False)
    true_range = widest - pd.concat([log_low, yesterday], axis=1).min(axis=1, skipna=False)
    capped = true_range.clip(upper=2 * LARGEST_MOVE)
    formulas = (
        trends(bars["close"], log_close, log_high, log_low, returns, capped)
        | oscillators(bars["close"], returns, capped)
        | volumes(bars["volume"].astype(float), returns)
        | candles(np.log(bars["open"]), log_high, log_low, log_close, yesterday, true_range)
        | {"observed": lambda: pd.Series((np.arange(len(bars)) >= 59) * 1.0, index=bars.index)}
    )
    return pd.DataFrame({name: formulas[name]() for name in names})


def trends(
    close: pd.Series,
    log_close: pd.Series,
    log_high: pd.Series,
    log_low: pd.Series,
    returns: pd.Series,
    capped: pd.Series,
) -> Formulas:
    """Returns, volatilities, distances from averages and extremes."""
    return (
        each("return", (1, 2, 3, 5, 10, 20, 40, 59), lambda days: log_close - log_close.shift(days))
        | each("log_volatility", (5, 10, 20, 59), lambda days: floored_log(returns.rolling(days).std()))
        | each("log_atr", (5, 20, 59), lambda days: floored_log(capped.rolling(days).mean()))
        | each("ma", (5, 20, 60), lambda days: log_close - np.log(close.rolling(days).mean()))
        | each("high", (20, 60), lambda days: log_close - log_high.rolling(days).max())
        | each("low", (20, 60), lambda days: log_close - log_low.rolling(days).min())
    )


def oscillators(close: pd.Series, returns: pd.Series, capped: pd.Series) -> Formulas:
    """RSI and MACD by TA-Lib, Bollinger bands by rolling windows."""

    @cache
    def macd() -> list[pd.Series]:
        unit = capped.rolling(20).mean().clip(lower=SMALLEST_RATIO) * close
        return [part / unit for part in talib.MACD(close.to_numpy(), 12, 26, 9)]

    @cache
    def band() -> tuple[pd.Series, pd.Series]:
        mean = close.rolling(20).mean()
        return mean, np.maximum(close.rolling(20).std(ddof=0), 1e-4 * mean)

    def rsi() -> pd.Series:
        value = pd.Series(talib.RSI(close.to_numpy(), 14), index=close.index)
        return value.mask(returns.abs().rolling(14).sum() == 0, 50.0)

    return {
        "rsi_14": lambda: rsi() / 50 - 1,
        "macd": lambda: macd()[0],
        "macd_signal": lambda: macd()[1],
        "macd_histogram": lambda: macd()[2],
        "bollinger_upper": lambda: (band()[0] + 2 * band()[1]) / close - 1,
        "bollinger_middle": lambda: (close - band()[0]) / (2 * band()[1]),
        "bollinger_lower": lambda: (band()[0] - 2 * band()[1]) / close - 1,
        "bollinger_width": lambda: np.log(4 * band()[1] / band()[0]),
    }


def volumes(volume: pd.Series, returns: pd.Series) -> Formulas:
    """Volume against its own past, on-balance volume."""
    log_volume, signed = np.log(volume), np.sign(returns) * volume
    return (
        {"volume_1": lambda: log_volume - log_volume.shift()}
        | each("obv", (5, 20), lambda days: signed.rolling(days).sum() / volume.rolling(days).sum())
        | each("volume", (5, 20, 60), lambda days: log_volume - np.log(volume.rolling(days).mean()))
    )


def candles(
    log_open: pd.Series,
    log_high: pd.Series,
    log_low: pd.Series,
    log_close: pd.Series,
    yesterday: pd.Series,
    true_range: pd.Series,
) -> Formulas:
    """Gap, body, range and shadows."""
    upper = (log_high - np.maximum(log_open, log_close)).clip(lower=0)
    lower = (np.minimum(log_open, log_close) - log_low).clip(lower=0)
    spread = log_high - log_low
    return {
        "gap": lambda: log_open - yesterday,
        "gap_share": lambda: ((log_open - yesterday) / true_range).where(true_range != 0, 0.0),
        "body": lambda: log_close - log_open,
        "log_range": lambda: floored_log(spread),
        "upper_shadow": lambda: (upper / spread).where(spread > 0, 0.0),
        "lower_shadow": lambda: (lower / spread).where(spread > 0, 0.0),
        "log_shadows": lambda: floored_log(upper + lower),
    }


def each(name: str, lengths: tuple[int, ...], formula: Callable[[int], pd.Series]) -> Formulas:
    """One formula for several lengths in days."""
    return {f"{name}_{days}": partial(formula, days) for days in lengths}


def floored_log(x: pd.Series) -> pd.Series:
    """Log of x, at least of SMALLEST_RATIO."""
    return np.log(x.clip(lower=SMALLEST_RATIO))
