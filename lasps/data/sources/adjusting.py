"""Prices and volumes brought to one scale by an adjusted close that the file has beside its prices."""

from __future__ import annotations

import math
from typing import NamedTuple

import polars as pl

from lasps.data.panel import PRICES, is_empty, is_halted

SPLIT_STEP = 1.2
"""A factor that jumps this far overnight is a split, not a dividend: volume is on its scale. Guess: the exchange's
dividends stay below a tenth of the price, the smallest splits are 5:4."""
MOST = 0.5
"""Share of the traded rows without an adjusted close from which the column is not used. Guess, not tuned."""


class Adjusted(NamedTuple):
    """Bars after `adjust`, and how many rows it rescaled (prices, volumes) or emptied."""

    bars: pl.DataFrame
    rescaled_rows: int
    rescaled_volumes: int
    without_adjusted_close: int


def adjust(bars: pl.DataFrame) -> Adjusted:
    """Scale all four prices by adjusted over close, and divide the volume by the splits in that factor.

    A traded row whose adjusted close is missing, infinite or not positive has no price on this scale: it is emptied,
    and the panel leaves it out. A volume before a 50:1 split is 50 times as large on the scale of after it; dividends
    leave volumes alone.

    Args:
        bars: code, date, open, high, low, close, volume and `adjusted` (numeric); any order.

    Raises:
        ValueError: more than MOST of the traded rows have no adjusted close.
    """
    bars = bars.with_columns(pl.col(*PRICES, "adjusted", "volume").cast(pl.Float64))
    usable = _positive("adjusted") & _positive("close")
    factor = pl.when(usable).then(pl.col("adjusted") / pl.col("close"))
    hole = ~_positive("adjusted") & _positive("close") & ~is_halted() & ~is_empty()
    rows = bars.with_columns(factor=factor, adjusted=pl.when(usable).then("adjusted"), hole=hole)
    holes, traded = (int(n) for n in rows.select(pl.col("hole").sum(), (~is_halted() & ~is_empty()).sum()).row(0))
    if holes > MOST * traded:
        raise ValueError(
            f"the adjusted close is missing or not positive in {holes:,} of {traded:,} traded rows: "
            "take the column away, or pull it again"
        )
    rows = _with_splits(rows)
    changed = ((pl.col("factor") - 1).abs() > 1e-9).fill_null(False)
    out = rows.with_columns(
        *(pl.when(~pl.col("hole")).then(pl.col(c) * pl.col("factor").fill_null(1.0)).alias(c) for c in PRICES),
        volume=pl.when(~pl.col("hole")).then(pl.col("volume") / pl.col("splits")),
    )
    counts = rows.select(changed.sum(), ((pl.col("splits") - 1).abs() > 1e-9).sum()).row(0)
    return Adjusted(out.drop("adjusted", "factor", "hole", "splits"), int(counts[0]), int(counts[1]), holes)


def _with_splits(rows: pl.DataFrame) -> pl.DataFrame:
    """`factor` carried over rows that have none, and `splits`: the part of it that is splits, 1 on the last day."""
    order = (
        rows.with_row_index("position")
        .sort("code", "date", maintain_order=True)
        .with_columns(pl.col("factor").forward_fill().over("code"), pl.col("adjusted").forward_fill().over("code"))
    )
    step = (pl.col("factor") / pl.col("factor").shift(1).over("code")).log()
    rounding = 1 / pl.col("adjusted").abs() + 1 / pl.col("adjusted").shift(1).over("code").abs()
    is_split = (step.abs() > math.log(SPLIT_STEP) + rounding).fill_null(False)
    level = pl.when(is_split).then(step).otherwise(0.0).cum_sum().over("code")
    order = order.with_columns(level=level)
    splits = (pl.col("level") - pl.col("level").last().over("code")).exp()
    return order.with_columns(splits=splits).sort("position").drop("position", "level")


def _positive(column: str) -> pl.Expr:
    return (pl.col(column).is_finite() & (pl.col(column) > 0)).fill_null(False)
