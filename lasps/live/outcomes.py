"""What became of the forecasts in a ledger: labels and returns as they end, each written down once.

A day is due at its `horizon`-th market day. Labels that have not ended by then (halted stocks) stay open, and are
counted; they are written when they end, in a further part of the day. Both closes of a return are of one pull of the
bars: the close in the ledger only tells whether the prices were adjusted again since.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl

from lasps.config.dataset_config import HORIZON, THRESHOLD
from lasps.data.exchange import tick_size
from lasps.data.labels import FLAGS, make_labels
from lasps.data.panel import Panel
from lasps.files import write_atomically
from lasps.live.ledger import POLARS_ERRORS

VALUES = ("label", "forward_return", "forward_return_skip1", "label_end", *FLAGS)
STATUS = ("ended", "open", "gone")
"""ended: its label is known; open: the stock has not traded on enough days since; gone: the bars lack its day."""


@dataclass(frozen=True)
class Pull:
    """One pull of the whole market's bars, and what it says became of any day's forecasts; labels are made once.

    panel: all stocks, not only those forecast: the market's calendar is made from it.
    """

    panel: Panel
    horizon: int = HORIZON
    threshold: float = THRESHOLD

    @cached_property
    def _labelled(self) -> pl.DataFrame:
        labels = make_labels(self.panel, self.horizon, self.threshold)
        return self.panel.frame.select("code", "date", "close").hstack(labels.select(VALUES))

    @cached_property
    def _latest(self) -> pl.DataFrame:
        last = self.panel.starts[1:] - 1
        return self.panel.frame.select("code", last_day="date", last_close="close")[last]

    def is_due(self, day: date) -> bool:
        """Whether `horizon` market days have come since a day."""
        return bool(np.count_nonzero(self.panel.calendar > np.datetime64(day, "D")) >= self.horizon)

    def outcomes(self, forecast: pl.DataFrame) -> pl.DataFrame:
        """What became of the stocks that were forecast.

        Args:
            forecast: date and code, one row per stock and evening.

        Returns:
            Its rows, in their order, with status (STATUS), close (of the day, as the pull has it), VALUES, and of those
            that have not ended last_day and last_return, their last close over that of the day.
        """
        found = forecast.select("date", "code").join(
            self._labelled, on=["date", "code"], how="left", maintain_order="left"
        )
        found = found.join(self._latest, on="code", how="left", maintain_order="left")
        ended = pl.col("label").is_not_null()
        status = pl.when(ended).then(pl.lit("ended")).when(pl.col("close").is_null()).then(pl.lit("gone"))
        return found.select(
            "date",
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
        return sorted(self.folder.glob(f"{day.isoformat()}.*.parquet"), key=_place)

    def read(self) -> pl.DataFrame:
        """date, code and VALUES of what has ended, each value as it was first written; empty where nothing has.

        Raises:
            ValueError: a part that cannot be read.
        """
        paths = sorted(self.folder.glob("????-??-??.*.parquet"), key=_place)
        if not paths:
            return pl.DataFrame(schema=_SCHEMA)
        parts = []
        for path in paths:
            try:
                parts.append(pl.read_parquet(path).with_columns(date=pl.lit(_place(path)[0])))
            except (OSError, *POLARS_ERRORS) as error:
                raise ValueError(
                    f"{path}: expected outcomes of a day's forecasts, cannot read them ({error}). Restore the file, or "
                    "delete it: what has ended is written again from the bars"
                ) from error
        first = (pl.col(name).drop_nulls().first() for name in VALUES)
        table = pl.concat(parts).group_by("date", "code", maintain_order=True).agg(first)
        return table.select(*_SCHEMA).sort("date", "code")

    def record(self, found: pl.DataFrame) -> int:
        """Write what has ended since the last parts; returns how many values of how many stocks are new.

        Args:
            found: as `Pull.outcomes` gives it.
        """
        ended = found.filter(status="ended").select("date", "code", *VALUES)
        both = ended.join(self.read(), on=["date", "code"], how="left", suffix="_known", maintain_order="left")
        missing = {name: pl.when(pl.col(f"{name}_known").is_null()).then(pl.col(name)) for name in VALUES}
        new = both.select("date", "code", **missing).filter(
            pl.any_horizontal(pl.col(name).is_not_null() for name in VALUES)
        )
        self.folder.mkdir(parents=True, exist_ok=True)
        for (day,), own in new.partition_by("date", as_dict=True).items():
            path = self.folder / f"{day}.{len(self.parts(day))}.parquet"
            table = own.select(pl.col(name).cast(dtype) for name, dtype in _SCHEMA.items() if name != "date")
            write_atomically(path, table.write_parquet)
        return new.height


def _place(path: Path) -> tuple[date, int]:
    """A part's day and number."""
    day, number, _ = path.name.split(".")
    return date.fromisoformat(day), int(number)


_SCHEMA: dict[str, pl.DataType] = {
    "date": pl.Date(),
    "code": pl.String(),
    "label": pl.Int8(),
    "forward_return": pl.Float64(),
    "forward_return_skip1": pl.Float64(),
    "label_end": pl.Date(),
    **dict.fromkeys(FLAGS, pl.Boolean()),
}
