"""Signs before prices: some Korean broker interfaces mark a price below the last close by a minus sign.

Kiwoom's opt10086 / ka10086 writes "open +78800, high +101100, low -54500, close -55000": the sign is the direction
against the day before, the price is the absolute value.
"""

from __future__ import annotations

import polars as pl

from lasps.data.panel import PRICES, ROUNDING

SIGNED_SHARE = 0.05
"""Share of rows with a negative price from which a convention is at work, not an error. Guess: lows of most days."""
FITTING_SHARE = 0.99
"""Share of rows whose absolute values must make a bar (low <= open, close <= high). Guess, not tuned."""
SIGNS = (
    "Prices carry a sign (Kiwoom and other Korean broker interfaces: the direction against the day before, the price "
    "is the absolute value). Read the file with --signed-prices (signed_prices=True), which takes absolute values."
)


def carries_signs(bars: pl.DataFrame) -> bool:
    """Whether negative prices are a convention: many rows have one, and the absolute values of nearly all make bars.

    Args:
        bars: open, high, low, close of any numeric type; null and NaN are left out.
    """
    negative = bars.select(pl.any_horizontal(pl.col(c) < 0 for c in PRICES).fill_null(False)).to_series()
    if not negative.any():
        return False
    prices = bars.select(pl.col(c).cast(pl.Float64).fill_nan(None).abs() for c in PRICES).drop_nulls()
    slack = 1 + ROUNDING
    fits = (pl.max_horizontal(PRICES) <= slack * pl.col("high")) & (slack * pl.min_horizontal(PRICES) >= pl.col("low"))
    share = prices.select(fits.mean()).item() or 0.0
    return float(negative.mean() or 0) > SIGNED_SHARE and share > FITTING_SHARE  # type: ignore[arg-type]
