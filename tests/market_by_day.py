"""A market that hands out what is known on each evening: prices before a split as they were quoted then, and a turn."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime, timedelta

import polars as pl

from lasps.config.clock import SEOUL
from lasps.data.panel import PRICES
from tests.factories import halted

SPLIT = 5


@dataclass(frozen=True)
class MarketByDay:
    """Bars and listing as they are known on an evening.

    Attributes:
        bars: as they are known on the last evening.
        split: (code, its first day on the new scale): until the day before, its prices are quoted SPLIT times higher.
        delisted: (code, its last day): afterwards the listing no longer names it.
    """

    bars: pl.DataFrame
    listing: pl.DataFrame
    split: tuple[str, date]
    delisted: tuple[str, date]

    @property
    def days(self) -> list[date]:
        """The market's days."""
        return self.bars["date"].unique().sort().to_list()

    def bars_on(self, day: date) -> pl.DataFrame:
        """What a source serves on the evening of `day`."""
        known = self.bars.filter(pl.col("date") <= day)
        code, since = self.split
        if day >= since:
            return known
        own = pl.col("code") == code
        price = {name: pl.when(own).then(pl.col(name) * SPLIT).otherwise(pl.col(name)) for name in PRICES}
        return known.with_columns(**price, volume=pl.when(own).then(pl.col("volume") // SPLIT).otherwise("volume"))

    def listing_on(self, day: date) -> pl.DataFrame:
        """The listing on the evening of `day`."""
        code, last = self.delisted
        return self.listing if day <= last else self.listing.filter(pl.col("code") != code)


def at_six(day: date) -> datetime:
    """Six o'clock of a day in Seoul."""
    return datetime.combine(day, datetime.min.time(), SEOUL) + timedelta(hours=18)


def eventful(bars: pl.DataFrame, listing: pl.DataFrame, evenings: int) -> MarketByDay:
    """The bars with what may happen in their last `evenings` days: a split, a delisting, a halt, and a turn.

    From the middle of these days on every price moves the other way round, so that whatever foretold a rise foretells
    a fall.
    """
    days = bars["date"].unique().sort().to_list()
    at = {part: days[round(len(days) - evenings * (1 - part))] for part in (0.25, 0.4, 0.5, 0.6)}
    whole = bars.group_by("code").len().filter(pl.col("len") == len(days))["code"].sort().to_list()
    halt, gone, split = whole[3], whole[7], whole[11]
    bars = mirrored(bars.sort("code", "date"), at[0.5])
    row = bars.filter(code=halt)["date"].to_list().index(at[0.4])
    bars = halted(bars, halt, range(row, row + 3))
    bars = bars.filter(~((pl.col("code") == gone) & (pl.col("date") > at[0.6])))
    return MarketByDay(bars, listing, (split, at[0.25]), (gone, at[0.6]))


def mirrored(bars: pl.DataFrame, since: date) -> pl.DataFrame:
    """Every stock's prices from `since` on reflected at its last close before: a rise becomes a fall."""
    before = bars.filter(pl.col("date") < since).group_by("code", maintain_order=True).agg(level=pl.col("close").last())
    turned = bars.join(before, on="code", how="left", maintain_order="left")
    swapped = {"open": "open", "close": "close", "high": "low", "low": "high"}
    here = (pl.col("date") >= since) & pl.col("level").is_not_null()
    new = {
        name: pl.when(here).then((pl.col("level") ** 2 / pl.col(of)).round()).otherwise(pl.col(name))
        for name, of in swapped.items()
    }
    return turned.with_columns(**{name: expr.cast(bars.schema[name]) for name, expr in new.items()}).drop("level")
