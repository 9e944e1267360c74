"""The features as vectorised pandas, one stock after the other, straight from their definitions."""

from __future__ import annotations

import numpy as np
import pandas as pd
import talib

from lasps.data.features.bars import LARGEST_MOVE, SMALLEST_RATIO


def stock_features(bars: pd.DataFrame) -> pd.DataFrame:
    """Every feature of a stock alone, NaN where its look-back is not there. bars: open, high, low, close, volume."""
    close, volume = bars["close"], bars["volume"].astype(float)
    log_open, log_high, log_low, log_close = (np.log(bars[name]) for name in ("open", "high", "low", "close"))
    yesterday = log_close.shift()
    returns = (log_close - yesterday).clip(-LARGEST_MOVE, LARGEST_MOVE)
    widest = pd.concat([log_high, yesterday], axis=1).max(axis=1, skipna=False)
    true_range = widest - pd.concat([log_low, yesterday], axis=1).min(axis=1, skipna=False)
    capped = true_range.clip(upper=2 * LARGEST_MOVE)
    log_volume = np.log(volume)
    f: dict[str, pd.Series] = {}
    for days in (1, 2, 3, 5, 10, 20, 40, 59):
        f[f"return_{days}"] = log_close - log_close.shift(days)
    for days in (5, 10, 20, 59):
        f[f"log_volatility_{days}"] = floored_log(returns.rolling(days).std())
    for days in (5, 20, 59):
        f[f"log_atr_{days}"] = floored_log(capped.rolling(days).mean())
    for days in (5, 20, 60):
        f[f"ma_{days}"] = log_close - np.log(close.rolling(days).mean())
    for days in (20, 60):
        f[f"high_{days}"] = log_close - log_high.rolling(days).max()
        f[f"low_{days}"] = log_close - log_low.rolling(days).min()
    f |= oscillators(close, returns, capped)
    signed = np.sign(returns) * volume
    for days in (5, 20):
        f[f"obv_{days}"] = signed.rolling(days).sum() / volume.rolling(days).sum()
    f["volume_1"] = log_volume - log_volume.shift()
    for days in (5, 20, 60):
        f[f"volume_{days}"] = log_volume - np.log(volume.rolling(days).mean())
    f["gap"] = log_open - yesterday
    f["gap_share"] = ((log_open - yesterday) / true_range).where(true_range != 0, 0.0)
    f["body"] = log_close - log_open
    top, bottom = np.maximum(log_open, log_close), np.minimum(log_open, log_close)
    upper, lower, spread = (log_high - top).clip(lower=0), (bottom - log_low).clip(lower=0), log_high - log_low
    f["log_range"] = floored_log(spread)
    f["upper_shadow"] = (upper / spread).where(spread > 0, 0.0)
    f["lower_shadow"] = (lower / spread).where(spread > 0, 0.0)
    f["log_shadows"] = floored_log(upper + lower)
    f["observed"] = pd.Series((np.arange(len(bars)) >= 59) * 1.0, index=bars.index)
    return pd.DataFrame(f)


def oscillators(close: pd.Series, returns: pd.Series, capped: pd.Series) -> dict[str, pd.Series]:
    """RSI and MACD by TA-Lib, Bollinger bands by rolling windows."""
    unit = capped.rolling(20).mean().clip(lower=SMALLEST_RATIO) * close
    macd, signal, histogram = talib.MACD(close.to_numpy(), 12, 26, 9)
    rsi = pd.Series(talib.RSI(close.to_numpy(), 14), index=close.index).mask(returns.abs().rolling(14).sum() == 0, 50.0)
    mean = close.rolling(20).mean()
    deviation = np.maximum(close.rolling(20).std(ddof=0), 1e-4 * mean)
    return {
        "rsi_14": rsi / 50 - 1,
        "macd": macd / unit,
        "macd_signal": signal / unit,
        "macd_histogram": histogram / unit,
        "bollinger_upper": (mean + 2 * deviation) / close - 1,
        "bollinger_middle": (close - mean) / (2 * deviation),
        "bollinger_lower": (mean - 2 * deviation) / close - 1,
        "bollinger_width": np.log(4 * deviation / mean),
    }


def floored_log(x: pd.Series) -> pd.Series:
    """Log of x, at least of SMALLEST_RATIO."""
    return np.log(x.clip(lower=SMALLEST_RATIO))


def all_features(panel: pd.DataFrame, names: list[str], ranked: pd.DataFrame | None = None) -> np.ndarray:
    """Features (R, F) of a panel sorted by (code, date): stock by stock, then across each day.

    `ranked`: values to rank instead of the own ones, because two that differ in the last bit only may swap ranks.
    """
    table = pd.concat([stock_features(bars) for _, bars in panel.groupby("code", sort=False)])
    for name in names:
        base = name.removeprefix("rank_").removeprefix("sector_")
        if name.startswith("rank_"):
            day = (table if ranked is None else ranked)[base].groupby(panel["date"])
            table[name] = (day.rank() - 0.5) / day.transform("count") - 0.5
        elif name.startswith("sector_"):
            table[name] = table[base] - table[base].groupby([panel["date"], panel["sector"]]).transform("mean")
    return table[names].to_numpy()
