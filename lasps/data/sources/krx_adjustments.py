"""Two replies about one stock: was it adjusted anew between them, and what does only the older one have?

An adjustment (split, bonus issue, capital reduction) multiplies every price before its day by one factor, so it shows
on the first common days. Closes that differ on later days alone were corrected by the source.
"""

from __future__ import annotations

from dataclasses import dataclass

import polars as pl

from lasps.data.panel import PRICES

CHANGED_RATIO = 0.003
"""A close that differs by more (and by more than a won and a half) was adjusted anew; less is rounding. Guess."""
ROUNDING_WON = 1.5


@dataclass(frozen=True)
class AdjustmentChange:
    """Closes of a stock that differ between two pulls: new = old * ratio on the changed days first..last."""

    code: str
    ratio: float
    lowest: float
    highest: float
    first: str
    last: str
    days: int
    overlap: int

    @property
    def several(self) -> bool:
        """Whether the ratio is not the same on all days: more than one adjustment."""
        return self.highest / self.lowest >= 1.01

    def __str__(self) -> str:
        several = f" (between {self.lowest:.4g} and {self.highest:.4g})" if self.several else ""
        return (
            f"Adjustment changed: {self.code} closes x {self.ratio:.4g}{several} from {self.first} to {self.last}, "
            f"{self.days:,} of {self.overlap:,} common days"
        )


def compare_adjustment(code: str, old: pl.DataFrame | None, new: pl.DataFrame) -> AdjustmentChange | None:
    """Closes of the days that both have; None without a common day, without a change, or for a few corrected closes."""
    if old is None:
        return None
    both = _common_days(old, new)
    changed = both.filter("changed")
    if changed.is_empty():
        return None
    low, middle, high = (float(changed["ratio"].quantile(q, "nearest") or 0) for q in (0.05, 0.5, 0.95))
    would_show = pl.col("changed") | (((middle - 1) * pl.col("before")).abs() > ROUNDING_WON)
    up_to = both.filter((pl.col("date") <= changed["date"][-1]) & would_show)
    if not up_to["changed"][0] or changed.height * 2 <= up_to.height:
        return None
    return AdjustmentChange(
        code, middle, low, high, str(changed["date"][0]), str(changed["date"][-1]), changed.height, both.height
    )


def corrected_closes(old: pl.DataFrame | None, new: pl.DataFrame) -> int:
    """How many closes of the days that both have differ by more than rounding."""
    return 0 if old is None else int(_common_days(old, new)["changed"].sum())


def joined(newer: pl.DataFrame, older: pl.DataFrame) -> tuple[pl.DataFrame, str | None]:
    """The newer bars, and the days of which only the older ones have a close, on the newer ones' adjustment.

    Args:
        newer, older: bars of one code, sorted by date.

    Returns:
        The bars sorted by date, and where older days had to be left out, why.
    """
    if newer.is_empty():
        return older, None
    close = pl.col("close").is_finite() & (pl.col("close") > 0)
    missing = older.filter(close).join(newer.filter(close), on="date", how="anti")
    if missing.is_empty():
        return newer, None
    code = str(newer["code"][0])
    both = _common_days(older, newer)
    if both.is_empty():
        return newer, (
            f"{missing.height:,} days from {missing['date'][0]} to {missing['date'][-1]}, none of them "
            f"in common with the newer bars from {newer['date'][0]} on: another company under the same "
            "code, or a gap across which nobody knows the adjustment"
        )
    change = compare_adjustment(code, older, newer)
    if change is not None:
        missing = _rescaled(missing, both, change)
    rest = newer.join(missing, on="date", how="anti")
    return pl.concat([rest, missing.select(newer.columns)]).sort("date"), None


def _common_days(old: pl.DataFrame, new: pl.DataFrame) -> pl.DataFrame:
    """date, closes before and after, their ratio and that of the volumes, and whether more than rounding differs."""
    both = old.select("date", before="close", shares="volume").join(
        new.select("date", "volume", after="close"), on="date", how="inner"
    )
    both = both.filter((pl.col("before") > 0) & (pl.col("after") > 0)).sort("date")
    both = both.with_columns(
        ratio=pl.col("after") / pl.col("before"),
        volume_ratio=pl.when(pl.col("shares") > 0).then(pl.col("volume") / pl.col("shares")),
    )
    distance = (pl.col("after") - pl.col("before")).abs()
    return both.with_columns(changed=((pl.col("ratio") - 1).abs() > CHANGED_RATIO) & (distance > ROUNDING_WON))


def _rescaled(missing: pl.DataFrame, both: pl.DataFrame, change: AdjustmentChange) -> pl.DataFrame:
    """Prices times, volumes by the ratio of the next common day; between two days an adjustment never comes back."""
    volume = both.filter("changed")["volume_ratio"].median()
    ratio = pl.when("changed").then(pl.col("ratio") if change.several else pl.lit(change.ratio)).otherwise(1.0)
    factors = both.select("date", factor=ratio, shares=pl.when("changed").then(pl.lit(volume or 1.0)).otherwise(1.0))
    near = missing.join_asof(factors, on="date", strategy="forward")
    near = near.with_columns(pl.col("factor", "shares").fill_null(1.0))
    return near.with_columns(
        pl.col(*PRICES) * pl.col("factor"),
        (pl.col("volume") * pl.col("shares")).round().cast(pl.Int64).alias("volume"),
    )
