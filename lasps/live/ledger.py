"""The ledger: every evening's forecasts in a file of its own, never rewritten, naming the digest of the one before.

A day's file holds, of every stock and every model that forecasts beside the champion, the class probabilities and the
close they were made at. It is late when it was written after the next session had opened: it is kept, and not scored.
`HEAD` names the last day and its digest, so that a file that is taken off the end is missed, too.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from functools import cached_property
from pathlib import Path

import numpy as np
import polars as pl

from lasps.config.clock import SEOUL, day_ends, in_seoul
from lasps.data.datasets.scan import frame_digest
from lasps.data.exchange import known_sessions
from lasps.files import write_atomically

LEDGER, SIMULATION = "lasps ledger 1", "lasps simulation 1"
"""What kind of record a file is of: forecasts that were made on their evening, or afterwards over history."""
OPENS = time(9)
"""KRX opens at 09:00; on a few days of the year an hour later, which only makes this stricter."""
SCHEMA = {
    "code": pl.String(),
    "model": pl.String(),
    "sector": pl.Int16(),
    "close": pl.Float64(),
    "p_sell": pl.Float64(),
    "p_hold": pl.Float64(),
    "p_buy": pl.Float64(),
}
P_COLUMNS = ("p_sell", "p_hold", "p_buy")
SUM_TOLERANCE = 1e-6
KEY = "lasps.ledger"
HEAD = "HEAD.json"
POLARS_ERRORS = (pl.exceptions.PolarsError, pl.exceptions.PanicException)
"""What polars raises for a damaged file."""
FIRST = ""
"""What the first day names as the digest before it."""


class LedgerError(ValueError):
    """The ledger is not as it was written, or would not be after what was asked for."""


@dataclass(frozen=True)
class Evening:
    """One day's forecasts.

    Attributes:
        day: at whose close they were made.
        table: columns SCHEMA, one row per model and stock, sorted by both.
        versions: model -> which version of it.
        data: fingerprint of the bars they were made from.
        written_at: when, on Seoul's clocks.
        late: the next session had opened.
        before: digest of the day before in the ledger.
    """

    day: date
    table: pl.DataFrame
    versions: Mapping[str, str]
    data: str
    written_at: datetime
    late: bool
    before: str
    kind: str = LEDGER

    def told(self) -> dict[str, object]:
        """Everything but the table, as JSON has it."""
        return {
            "kind": self.kind,
            "day": self.day.isoformat(),
            "versions": dict(self.versions),
            "data": self.data,
            "written_at": self.written_at.isoformat(),
            "late": self.late,
            "before": self.before,
        }

    @cached_property
    def digest(self) -> str:
        """SHA-256 of table and all that is told of it."""
        told = json.dumps(self.told(), sort_keys=True)
        return hashlib.sha256(f"{told}|{frame_digest(self.table)}".encode()).hexdigest()

    def same_forecasts(self, other: Evening) -> bool:
        """Whether the same models said the same from the same bars, whenever it was written."""
        own, theirs = (e.table for e in (self, other))
        return own.equals(theirs) and dict(self.versions) == dict(other.versions) and self.data == other.data


@dataclass(frozen=True)
class Ledger:
    """A folder of evenings, YYYY-MM-DD.parquet each. kind: LEDGER, or SIMULATION for what was forecast afterwards."""

    folder: Path
    kind: str = LEDGER

    def days(self) -> list[date]:
        """The days that have a file, ascending."""
        return sorted(date.fromisoformat(path.stem) for path in self.folder.glob("????-??-??.parquet"))

    def path(self, day: date) -> Path:
        """A day's file."""
        return self.folder / f"{day.isoformat()}.parquet"

    def append(
        self, day: date, table: pl.DataFrame, versions: Mapping[str, str], data: str, moment: datetime
    ) -> Evening:
        """Write an evening's forecasts; the same ones again change nothing.

        Args:
            table: columns SCHEMA in any order.
            versions: of every model in the table.
            moment: when it is; a moment with a time zone.

        Raises:
            LedgerError: the day is not over, stands already with other forecasts, or lies before the last one; a table
                that is not as SCHEMA says; or a ledger that does not verify.
        """
        moment = in_seoul(moment)
        table = checked(table, versions)
        standing = list(self.verified())
        before = standing[-1] if standing else None
        late = self.kind == LEDGER and moment >= next_open(day)
        evening = Evening(
            day, table, versions, data, moment, late, FIRST if before is None else before.digest, self.kind
        )
        same = next((e for e in standing if e.day == day), None)
        if same is not None:
            if same.same_forecasts(evening):
                return same
            raise LedgerError(
                f"{self.path(day)}: expected the forecasts that stand there since {same.written_at:%Y-%m-%d %H:%M}, "
                "got others. A ledger is never rewritten: forecast the next day"
            )
        if before is not None and day < before.day:
            raise LedgerError(
                f"{self.folder}: expected a day after {before.day}, the last one, got {day}. A ledger is never filled "
                "in afterwards: history goes into a simulation"
            )
        if moment < day_ends(day):
            raise LedgerError(
                f"{day}: expected a day that is over in Seoul, its bars change until {day_ends(day):%H:%M}"
            )
        told = json.dumps(evening.told() | {"sha256": evening.digest})
        self.folder.mkdir(parents=True, exist_ok=True)
        write_atomically(self.path(day), lambda file: table.write_parquet(file, metadata={KEY: told}))
        self._write_head(evening)
        return evening

    def read(self, day: date) -> Evening:
        """One evening, checked against its own digest.

        Raises:
            LedgerError: no such file, one that cannot be read, of another kind or day, or with other content than was
                written.
        """
        path = self.path(day)
        try:
            table, told = pl.read_parquet(path), json.loads(pl.read_parquet_metadata(path)[KEY])
            sha256 = told.pop("sha256")
            told["day"], told["written_at"] = (
                date.fromisoformat(told["day"]),
                datetime.fromisoformat(told["written_at"]),
            )
            evening = Evening(table=table, **told)
        except FileNotFoundError as error:
            raise LedgerError(f"{path}: no forecasts of this day") from error
        except (OSError, ValueError, KeyError, TypeError, *POLARS_ERRORS) as error:
            raise LedgerError(f"{path}: expected a day of a ledger, cannot read it ({error})") from error
        if evening.kind != self.kind:
            raise LedgerError(
                f"{path}: expected a file of a {self.kind!r}, found one of a {evening.kind!r}. Forecasts that were "
                "made afterwards are never mixed with those that were made on their evening"
            )
        if evening.day != day or evening.digest != sha256:
            raise LedgerError(f"{path}: not as it was written: table, day or what is told of them was changed")
        return evening

    def verified(self) -> Iterator[Evening]:
        """Every evening in order, after all were checked: each against its digest, each naming the one before.

        Raises:
            LedgerError: naming the first day that does not fit.
        """
        evenings: list[Evening] = []
        for day in self.days():
            evening = self.read(day)
            before = evenings[-1] if evenings else None
            if evening.before != (FIRST if before is None else before.digest):
                after = "no day" if before is None else str(before.day)
                raise LedgerError(
                    f"{self.path(day)}: expected a day that was written after {after}, it names another one before it: "
                    "a file was removed, added or exchanged"
                )
            evenings.append(evening)
        self._check_head(evenings)
        return iter(evenings)

    def _write_head(self, evening: Evening) -> None:
        head = {"kind": self.kind, "day": evening.day.isoformat(), "digest": evening.digest}
        write_atomically(self.folder / HEAD, json.dumps(head) + "\n")

    def _check_head(self, evenings: list[Evening]) -> None:
        """The last evening is the one that HEAD names; or the one after it, where a kill came between both."""
        path = self.folder / HEAD
        try:
            head = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
            named = None if head is None else str(head["digest"])
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise LedgerError(f"{path}: expected the last day and its digest, cannot read it ({error})") from error
        digests = [evening.digest for evening in evenings]
        if named == (digests[-1] if digests else None):
            return
        if digests and named == (digests[-2] if len(digests) > 1 else None):
            self._write_head(evenings[-1])
            return
        day = "none" if head is None else head.get("day")
        last = "no file" if not evenings else str(evenings[-1].day)
        raise LedgerError(
            f"{path}: the last day was {day}, but the folder ends with {last}: files were removed or added"
        )


def next_open(day: date) -> datetime:
    """When the session after a day opens; in years that the table of holidays does not have, the next weekday's."""
    days = known_sessions(day + timedelta(days=1), day + timedelta(days=14))
    following = [day + timedelta(days=i) for i in range(1, 15)]
    known = [d for d in following if d.weekday() < 5] if days is None or not len(days) else days.astype(object).tolist()
    return datetime.combine(known[0], OPENS, SEOUL)


def checked(table: pl.DataFrame, versions: Mapping[str, str]) -> pl.DataFrame:
    """The table's columns in their types, sorted by model and code.

    Raises:
        LedgerError: a column is missing, a value is, a stock stands twice, probabilities do not sum to 1, or a model
            has no version.
    """
    missing = [name for name in SCHEMA if name not in table.columns]
    if missing or not table.height:
        raise LedgerError(
            f"expected forecasts with the columns {list(SCHEMA)}, got {table.columns}, {table.height} rows"
        )
    table = table.select(pl.col(name).cast(dtype) for name, dtype in SCHEMA.items()).sort("model", "code")
    if table.null_count().sum_horizontal().item() or table.select(pl.col(pl.Float64).is_nan().any()).row(0).count(True):
        raise LedgerError("expected a value in every row and column of the forecasts, found missing ones")
    p = table.select(P_COLUMNS).to_numpy()
    wrong = (p < 0).any(axis=1) | (np.abs(p.sum(axis=1) - 1) > SUM_TOLERANCE)
    if wrong.any():
        row = table.row(int(np.flatnonzero(wrong)[0]), named=True)
        raise LedgerError(
            f"expected probabilities of 0 or more that sum to 1, found {row} ({int(wrong.sum())} such rows)"
        )
    twice = table.filter(table.select("model", "code").is_duplicated())
    if twice.height:
        raise LedgerError(f"expected one row per model and stock, {twice['model'][0]} has {twice['code'][0]} twice")
    unknown = sorted(set(table["model"]) ^ set(versions))
    if unknown:
        raise LedgerError(f"expected a version of each model in the forecasts and of no other, {unknown} differ")
    return table
