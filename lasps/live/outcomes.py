"""What became of the forecasts in a ledger: labels and returns as they end, each written down once.

A day is due at its `horizon`-th market day. Labels that have not ended by then (halted stocks) stay open, and are
counted; they are written when they end, in a further part of the day. Both closes of a return are of one pull of the
bars: the close in the ledger only tells whether the prices were adjusted again since.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import numpy as np
import polars as pl

from lasps.config.dataset_config import HORIZON, THRESHOLD
from lasps.data.exchange import tick_size
from lasps.data.labels import FLAGS, make_labels
from lasps.data.panel import Panel
from lasps.files import write_atomically

VALUES = ("label", "forward_return", "forward_return_skip1", "label_end", *FLAGS)
STATUS = ("ended", "open", "gone")
"""ended: its label is known; open: the stock has not traded on enough days since; gone: the bars lack its day."""


def is_due(day: date, calendar: np.ndarray, horizon: int = HORIZON) -> bool:
    """Whether `horizon` market days have come since a day.

    Args:
        calendar: the market's days, datetime64[D] sorted.
    """
    return bool(np.count_nonzero(calendar > np.datetime64(day, "D")) >= horizon)


def outcomes_at(
    panel: Panel, day: date, codes: Sequence[str], horizon: int = HORIZON, threshold: float = THRESHOLD
) -> pl.DataFrame:
    """What one pull of the bars says of the stocks that were forecast on a day.

    Args:
        panel: all stocks, not only those forecast: the market's calendar is made from it.
        codes: the stocks that were forecast.

    Returns:
        One row per code, in their order: status (STATUS), close (of the day, as the pull has it), VALUES, and of those
        that have not ended last_day and last_return, their last close over that of the day.
    """
    labels = make_labels(panel, horizon, threshold)
    last = panel.starts[1:] - 1
    latest = panel.frame.select("code", last_day="date", last_close="close")[last]
    rows = panel.frame.select("code", "date", "close").hstack(labels.select(VALUES)).filter(date=day).drop("date")
    found = pl.DataFrame({"code": list(codes)}).join(rows, on="code", how="left", maintain_order="left")
    found = found.join(latest, on="code", how="left", maintain_order="left")
    ended = pl.col("label").is_not_null()
    status = pl.when(ended).then(pl.lit("ended")).when(pl.col("close").is_null()).then(pl.lit("gone"))
    return found.select(
        "code",
        "close",
        *VALUES,
        status=status.otherwise(pl.lit("open")),
        last_day=pl.when(~ended).then("last_day"),
        last_return=pl.when(~ended).then(pl.col("last_close") / pl.col("close") - 1),
    )


def readjusted(close_then: np.ndarray, close_now: np.ndarray) -> np.ndarray:
    """Whether a day's close differs now from what it was then, by more than a tick: bool (N,); False where unknown."""
    with np.errstate(invalid="ignore"):
        room = tick_size(np.fmax(np.nan_to_num(close_then), np.nan_to_num(close_now)))
        return np.asarray(np.abs(close_now - close_then) > room)


@dataclass(frozen=True)
class Outcomes:
    """A folder of what has ended: DAY.N.parquet, the N-th part of a day; parts are added and never changed."""

    folder: Path

    def parts(self, day: date) -> list[Path]:
        """A day's files, in the order they were written."""
        found = self.folder.glob(f"{day.isoformat()}.*.parquet")
        return sorted(found, key=lambda path: int(path.suffixes[0][1:]))

    def read(self, day: date) -> pl.DataFrame:
        """code and VALUES of what has ended of a day, each value as it was first written; empty where nothing has."""
        parts = [pl.read_parquet(path) for path in self.parts(day)]
        if not parts:
            return pl.DataFrame(schema=_SCHEMA)
        return pl.concat(parts).group_by("code").agg(pl.col(name).drop_nulls().first() for name in VALUES).sort("code")

    def record(self, day: date, found: pl.DataFrame) -> int:
        """Write what has ended since the last part; returns how many values of how many stocks are new.

        Args:
            found: as `outcomes_at` gives it.
        """
        known = self.read(day)
        ended = found.filter(status="ended").select("code", *VALUES)
        both = ended.join(known, on="code", how="left", suffix="_known", maintain_order="left")
        new = both.select(
            "code", *(pl.when(pl.col(f"{name}_known").is_null()).then(pl.col(name)).alias(name) for name in VALUES)
        ).filter(pl.any_horizontal(pl.col(name).is_not_null() for name in VALUES))
        if new.height:
            path = self.folder / f"{day.isoformat()}.{len(self.parts(day))}.parquet"
            self.folder.mkdir(parents=True, exist_ok=True)
            table = new.select(pl.col(name).cast(dtype) for name, dtype in _SCHEMA.items())
            write_atomically(path, table.write_parquet)
        return new.height


_SCHEMA: dict[str, pl.DataType] = {
    "code": pl.String(),
    "label": pl.Int8(),
    "forward_return": pl.Float64(),
    "forward_return_skip1": pl.Float64(),
    "label_end": pl.Date(),
    **dict.fromkeys(FLAGS, pl.Boolean()),
}
