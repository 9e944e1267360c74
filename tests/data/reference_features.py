"""Every feature once more in plain pandas, stock by stock, as one would read it in a textbook: the tests' reference."""

from __future__ import annotations

import numpy as np
import pandas as pd
import talib

LIMIT = -np.log(0.7)


def reference_features(bars: pd.DataFrame) -> pd.DataFrame:
    """Features of bars (code, date, open, high, low, close, volume, sector), sorted by (code, date), in float64."""
    table = pd.concat([stock_features(stock) for _, stock in bars.groupby("code", sort=False)])
    for name in ("return_1", "return_5", "return_20", "log_volatility_20", "volume_20"):
        values = table[name].astype(np.float32).groupby(bars["date"])
        table[f"rank_{name}"] = (values.rank(method="average") - 0.5) / values.transform("count") - 0.5
    for name in (
        "return_1",
        "return_5",
        "return_20",
        "log_volatility_5",
        "log_volatility_20",
        "volume_5",
        "volume_20",
        "gap",
        "body",
        "log_range",
        "upper_shadow",
        "lower_shadow",
    ):
        table[f"relative_{name}"] = table[name] - table[name].groupby(bars["date"]).transform("mean")
    for name in ("return_1", "return_5", "return_20"):
        mean = table[name].groupby([bars["date"], bars["sector"]]).transform("mean")
        table[f"sector_{name}"] = table[name] - mean
    return table


def stock_features(bars: pd.DataFrame) -> pd.DataFrame:
    """The features of one stock alone."""
    o, h, low, c = (bars[name] for name in ("open", "high", "low", "close"))
    v = bars["volume"].astype(float)
    out = pd.DataFrame(index=bars.index)
    returns = np.log(c / c.shift(1)).clip(-LIMIT, LIMIT)
    for n in (1, 2, 3, 5, 10, 20, 40, 59):
        out[f"return_{n}"] = np.log(c / c.shift(n))
    for n in (5, 10, 20, 59):
        out[f"log_volatility_{n}"] = np.log(returns.rolling(n).apply(np.std, raw=True, kwargs={"ddof": 1}).clip(1e-3))
    top, bottom = np.maximum(h, c.shift(1)), np.minimum(low, c.shift(1))
    true_range = np.log(top / bottom).clip(upper=2 * LIMIT).where(c.shift(1).notna())
    for n in (5, 20, 59):
        out[f"log_atr_{n}"] = np.log(true_range.rolling(n).mean().clip(1e-3))
    for n in (5, 20, 60):
        out[f"ma_{n}"] = np.log(c / c.rolling(n).mean())
    for n in (20, 60):
        out[f"high_{n}"] = np.log(c / h.rolling(n).max())
        out[f"low_{n}"] = np.log(c / low.rolling(n).min())
    _oscillators(out, c, returns, true_range)
    signed = np.sign(returns) * v
    for n in (5, 20):
        out[f"obv_{n}"] = signed.rolling(n).sum() / v.where(returns.notna()).rolling(n).sum()
    out["volume_1"] = np.log(v / v.shift(1))
    for n in (5, 20, 60):
        out[f"volume_{n}"] = np.log(v / v.rolling(n).mean())
    _candles(out, o, h, low, c, top, bottom)
    out["observed"] = (np.arange(len(bars)) >= 59).astype(float)
    return out


def _oscillators(out: pd.DataFrame, c: pd.Series, returns: pd.Series, true_range: pd.Series) -> None:
    still = returns.abs().rolling(14).sum() < 1e-12
    rsi = pd.Series(talib.RSI(c.to_numpy(), 14), c.index)
    out["rsi_14"] = rsi.where(~still, 50.0) / 50 - 1
    unit = true_range.rolling(20).mean().clip(1e-3) * c
    names = ("macd", "macd_signal", "macd_histogram")
    for name, values in zip(names, talib.MACD(c.to_numpy(), 12, 26, 9), strict=True):
        out[name] = values / unit
    middle = c.rolling(20).mean()
    deviation = np.maximum(c.rolling(20).apply(np.std, raw=True), 1e-4 * middle)
    out["bollinger_upper"] = (middle + 2 * deviation) / c - 1
    out["bollinger_middle"] = (c - middle) / (2 * deviation)
    out["bollinger_lower"] = (middle - 2 * deviation) / c - 1
    out["bollinger_width"] = np.log(4 * deviation / middle)


def _candles(
    out: pd.DataFrame, o: pd.Series, h: pd.Series, low: pd.Series, c: pd.Series, top: pd.Series, bottom: pd.Series
) -> None:
    out["gap"] = np.log(o / c.shift(1))
    out["gap_share"] = (out["gap"] / np.log(top / bottom)).where(top > bottom, 0.0).where(c.shift(1).notna())
    out["body"] = np.log(c / o)
    width = np.log(h / low)
    upper, lower = np.log(h / np.maximum(o, c)), np.log(np.minimum(o, c) / low)
    out["log_range"] = np.log(width.clip(1e-3))
    out["upper_shadow"] = (upper / width).where(width > 0, 0.0)
    out["lower_shadow"] = (lower / width).where(width > 0, 0.0)
    out["log_shadows"] = np.log((upper + lower).clip(1e-3))
