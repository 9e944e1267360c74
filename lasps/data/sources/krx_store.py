"""The folder of a KRX download: one folder of files per pull, never edited, and the two tables made from them.

Three rules hold it together:

* a file covers the days that its pull asked for and that were over then: a stock is asked for again only for days that
  no file covers, whenever and by whichever pull they were fetched;
* of two files the newer wins, day by day; days that only an older one has are kept, on the newer one's adjustment;
* of two listings the newer wins, stock by stock; what only an older one knows is kept.

What was fetched is told by the files alone, so a killed run loses nothing; the manifest says when and what failed.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import polars as pl

from lasps.config.clock import SEOUL, in_seoul, last_day_over
from lasps.data.sources.krx_adjustments import AdjustmentChange, compare_adjustment, corrected_closes, joined, lacking
from lasps.files import write_atomically

SCHEMA_VERSION = 2
"""Pulls of version 1 did not ask whether their last day was over; it is not trusted."""
_LISTING = dict.fromkeys(("code", "name", "market", "industry"), pl.String)


@dataclass
class Pull:
    """One pull: its name is its folder; `files` says when each stock was fetched.

    asked: the moment in Seoul; empty where it is not known. finished: every stock was tried; complete: and none failed.
    short: stocks whose reply lacked days that an earlier file has; ended: no longer listed, and no reply.
    """

    name: str
    start: date
    end: date
    complete: bool = False
    finished: bool = False
    files: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    changes: list[dict[str, Any]] = field(default_factory=list)
    asked: str = ""
    short: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)

    @property
    def day(self) -> date:
        return date.fromisoformat(self.name[:10])

    @property
    def last_over(self) -> date:
        """The last day whose bars are final."""
        return self.end if self.asked else min(self.end, self.day - timedelta(days=1))

    def holds_all(self, code: str) -> bool:
        """Whether the stock's file is known to have every day that the files before it have."""
        return bool(self.asked) and code in self.files and code not in self.short


class Store:
    """The download folder, at a moment.

    Raises:
        ValueError: on opening, a manifest that cannot be read.
    """

    def __init__(self, folder: Path, moment: datetime) -> None:
        self.folder, self.moment = folder, in_seoul(moment)
        self.manifest = folder / "manifest.json"
        self.set_aside: dict[str, str] = {}
        """Stocks of which older rows stand in no table, and why; filled by `table`."""
        known = self._read()
        self.pulls = [pull for pull in self._folders() if pull.name not in {p.name for p in known}] + known
        for pull in self.pulls:
            if not pull.finished:
                self._adopt(pull)

    def _read(self) -> list[Pull]:
        if not self.manifest.exists():
            return []
        try:
            content = json.loads(self.manifest.read_text(encoding="utf-8"))
            return [
                Pull(**{**p, "start": date.fromisoformat(p["start"]), "end": date.fromisoformat(p["end"])})
                for p in content["pulls"]
            ]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{self.manifest}: expected the manifest of a KRX download, but {error!r}. The raw files beside it are "
                "untouched; move the manifest away and pull again."
            ) from error

    def _folders(self) -> list[Pull]:
        """The pulls whose folders are there, by age; without the manifest nobody knows what they asked for."""
        names = {path.name for path in (self.folder / "bars").glob("[0-9]*")}
        days = {name: date.fromisoformat(name[:10]) for name in sorted(names, key=_age)}
        return [Pull(name, day, day) for name, day in days.items()]

    def open_pull(self, start: date, end: date) -> Pull:
        """The last pull if it is today's and of these days, else a new one; it begins where the earliest one began.

        Every file then holds its stock's whole history from one request, and no start, however late, loses a row.
        """
        start = min([start, *(pull.start for pull in self.pulls if pull.files)])
        today = str(self.moment.date())
        last = self.pulls[-1] if self.pulls else None  # a file of an earlier one would not be the newest
        if last is None or not last.asked or (last.start, last.end, last.name[:10]) != (start, end, today):
            taken = sum(pull.name[:10] == today for pull in self.pulls)
            name = today if not taken else f"{today}-{taken + 1}"
            self.pulls.append(Pull(name, start, end, asked=self.moment.isoformat(timespec="seconds")))
        pull = self.pulls[-1]
        pull.finished = pull.complete = False
        self.save()
        return pull

    def _adopt(self, pull: Pull) -> None:
        """Files that a killed run wrote after its last manifest: nobody noted how they compare with older ones."""
        for path in (self.folder / "bars" / pull.name).glob("*.parquet"):
            if path.stem not in pull.files:
                pull.files[path.stem] = _time(path.stat().st_mtime)
                pull.short.append(path.stem)

    def has(self, pull: Pull, code: str) -> bool:
        return self._path(pull, code).exists()

    def asked_after(self, code: str, day: date, start: date) -> bool:
        """Whether a pull later than `day` had an answer about the stock's days from `start` on."""
        later = (pull for pull in reversed(self.pulls) if pull.day > day and pull.start <= start)
        return any(code in pull.ended or self.has(pull, code) for pull in later)

    def covered_until(self, code: str, start: date) -> date | None:
        """The last final day up to which one file covers the stock from `start` on; None where there is no such file.

        A pull that ends in the future was made by a clock that ran ahead; it covers nothing.
        """
        over = last_day_over(self.moment)
        ends = [p.last_over for p in self.pulls if p.start <= start and p.end <= over and self.has(p, code)]
        return max(ends, default=None)

    def add(self, pull: Pull, code: str, bars: pl.DataFrame) -> tuple[AdjustmentChange | None, int]:
        """Write a stock's bars as a new file.

        Returns:
            The change of adjustment against the earlier files, and where there is none how many closes differ.

        Raises:
            FileExistsError: rather than write over a file.
        """
        path = self._path(pull, code)
        if path.exists():
            raise FileExistsError(f"{path} is there already; raw files are never written over")
        before = self.table(code)
        change = compare_adjustment(code, before, bars)
        corrected = 0 if before is None or change is not None else corrected_closes(before, bars)
        write_atomically(path, bars.write_parquet)
        pull.files[code] = _time(datetime.now().timestamp())
        if before is not None and lacking(bars, before).height:
            pull.short.append(code)
        if change is not None:
            pull.changes.append(asdict(change))
        if len(pull.files) % 50 == 0:
            self.save()
        return change, corrected

    def table(self, code: str) -> pl.DataFrame | None:
        """The stock's bars: those of the newest file, and days that only older ones have."""
        table: pl.DataFrame | None = None
        for pull in reversed(self.pulls):
            if not self.has(pull, code):
                continue
            older = self._bars(pull, code)
            table, left_out = (older, None) if table is None or table.is_empty() else joined(table, older)
            if left_out:
                self.set_aside[code] = left_out
            if pull.holds_all(code):
                break
        return table

    def _bars(self, pull: Pull, code: str) -> pl.DataFrame:
        path = self._path(pull, code)
        try:
            return pl.read_parquet(path).filter(pl.col("date") <= pull.last_over)
        except pl.exceptions.PolarsError as error:
            raise ValueError(
                f"{path}: expected the bars of {code}, but the file cannot be read ({error}). Remove it "
                "and run the same command again."
            ) from error

    def add_listing(self, pull: Pull, listing: pl.DataFrame) -> None:
        write_atomically(self._listing_path(pull), listing.write_csv)

    def listing(self, pull: Pull) -> pl.DataFrame | None:
        """The pull's own listing: code, name, market, industry."""
        path = self._listing_path(pull)
        return _read_listing(path) if path.exists() else None

    def listings(self) -> pl.DataFrame | None:
        """All listings as one: code, name, market, industry, first_seen, last_seen (Date), sorted by code.

        Name, market and industry are the newest that are known; a stock that has left the exchange keeps its last.
        """
        paths = sorted((self.folder / "listing").glob("[0-9]*.csv"), key=lambda path: _age(path.stem))
        if not paths:
            return None
        tables = [_read_listing(path).with_columns(seen=pl.lit(date.fromisoformat(path.stem[:10]))) for path in paths]
        newest = [pl.col(name).drop_nulls().last() for name in _LISTING if name != "code"]
        seen = {"first_seen": pl.col("seen").min(), "last_seen": pl.col("seen").max()}
        return pl.concat(tables).group_by("code", maintain_order=True).agg(*newest, **seen).sort("code")

    def save(self) -> None:
        """Write the manifest in one step."""
        pulls = [{**asdict(p), "start": str(p.start), "end": str(p.end)} for p in self.pulls]
        text = json.dumps({"schema_version": SCHEMA_VERSION, "pulls": pulls}, indent=1, ensure_ascii=False) + "\n"
        write_atomically(self.manifest, text)

    def write_tables(self) -> None:
        """Write bars.parquet and listing.csv from the raw files; nothing where there are none."""
        codes = sorted({path.stem for path in (self.folder / "bars").glob("*/*.parquet")})
        tables = [table for code in codes if (table := self.table(code)) is not None]
        if tables:
            write_atomically(self.folder / "bars.parquet", pl.concat(tables).write_parquet)
        if (listing := self.listings()) is not None:
            write_atomically(self.folder / "listing.csv", listing.write_csv)

    def _path(self, pull: Pull, code: str) -> Path:
        return self.folder / "bars" / pull.name / f"{code}.parquet"

    def _listing_path(self, pull: Pull) -> Path:
        return self.folder / "listing" / f"{pull.name}.csv"


def _read_listing(path: Path) -> pl.DataFrame:
    return pl.read_csv(path, schema_overrides=_LISTING).select(*_LISTING)


def _age(name: str) -> tuple[str, int]:
    """Sorts pulls' names by age: 2024-03-04, 2024-03-04-2, ..., 2024-03-04-10."""
    return name[:10], int(name[11:] or 1)


def _time(moment: float) -> str:
    return datetime.fromtimestamp(moment, SEOUL).isoformat(timespec="seconds")
