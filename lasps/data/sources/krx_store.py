"""The folder of a KRX download: one folder of files per pull, never edited, and the two tables made from them.

Three rules hold it together:

* a file has every day of its stock that was known at its pull: those of the reply, and those that only older files
  have, on the reply's adjustment. So the newest file wins, and nothing is lost;
* a file covers the days that its pull asked for and that were over then: a stock is asked for again only for days that
  no file covers, whenever and by whichever pull they were fetched;
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
from lasps.data.sources.krx_adjustments import AdjustmentChange, compare_adjustment, corrected_closes, joined
from lasps.files import write_atomically

SCHEMA_VERSION = 3
"""Pulls of version 1 did not ask whether their last day was over; it is not trusted. Files of versions 1 and 2 have
only the days of their reply; they are read together with the older ones."""
_LISTING = dict.fromkeys(("code", "name", "market", "industry"), pl.String)


@dataclass
class Pull:
    """One pull: its name is its folder; `files` says when each stock was fetched.

    asked: the moment in Seoul; empty where it is not known. finished: every stock was tried; complete: and none failed.
    merged: its files have the days of older files too, except those of stocks in `set_aside`, which says why.
    ended: no longer listed, and no reply.
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
    merged: bool = False
    set_aside: dict[str, str] = field(default_factory=dict)
    ended: list[str] = field(default_factory=list)

    @property
    def day(self) -> date:
        return date.fromisoformat(self.name[:10])

    @property
    def last_over(self) -> date:
        """The last day whose bars are final."""
        return self.end if self.asked else min(self.end, self.day - timedelta(days=1))


class Store:
    """The download folder, at a moment.

    Raises:
        ValueError: on opening, a manifest that cannot be read.
    """

    def __init__(self, folder: Path, moment: datetime) -> None:
        self.folder, self.moment = folder, in_seoul(moment)
        self.manifest = folder / "manifest.json"
        self.pulls = self._read()

    def _read(self) -> list[Pull]:
        """The pulls of the manifest; before them folders that it lacks, of which nobody knows what they asked for."""
        try:
            text = self.manifest.read_text(encoding="utf-8") if self.manifest.exists() else '{"pulls": []}'
            known = [_pull(entry) for entry in json.loads(text)["pulls"]]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{self.manifest}: expected the manifest of a KRX download, but {error!r}. The raw files beside it are "
                "untouched; move the manifest away and pull again."
            ) from error
        names = {path.name for path in (self.folder / "bars").glob("[0-9]*")} - {pull.name for pull in known}
        days_of = {name: date.fromisoformat(name[:10]) for name in sorted(names, key=_age)}
        return [Pull(name, day, day) for name, day in days_of.items()] + known

    def open_pull(self, start: date, end: date) -> Pull:
        """The last pull if it is today's and of these days, else a new one; it begins where the earliest one began.

        Every reply then holds its stock's whole history on one adjustment, however late the start that was asked for.
        """
        folder = self.folder / "bars"
        start = min([start, *(pull.start for pull in self.pulls if (folder / pull.name).exists())])
        today = str(self.moment.date())
        last = self.pulls[-1] if self.pulls else None  # a file of an earlier one would not be the newest
        if last is None or not last.merged or (last.start, last.end, last.name[:10]) != (start, end, today):
            taken = sum(pull.name[:10] == today for pull in self.pulls)
            name = today if not taken else f"{today}-{taken + 1}"
            asked = self.moment.isoformat(timespec="seconds")
            self.pulls.append(Pull(name, start, end, asked=asked, merged=True))
        pull = self.pulls[-1]
        pull.finished = pull.complete = False
        self.save()
        return pull

    def has(self, pull: Pull, code: str) -> bool:
        return self._path(pull, code).exists()

    def asked_after(self, code: str, day: date, start: date) -> bool:
        """Whether there was an answer about its days from `start` on since the first listing after `day`.

        Args:
            day: of the last listing that has the stock; it may have traded on until the next one was read.
        """
        listed = sorted(date.fromisoformat(path.stem[:10]) for path in (self.folder / "listing").glob("[0-9]*.csv"))
        without = next((other for other in listed if other > day), date.max)
        later = (pull for pull in reversed(self.pulls) if pull.day >= without and pull.start <= start)
        return any(code in pull.ended or self.has(pull, code) for pull in later)

    def covered_until(self, code: str, start: date) -> date | None:
        """The last final day up to which one file covers the stock from `start` on; None where there is no such file.

        A pull that ends in the future was made by a clock that ran ahead; it covers nothing.
        """
        over = last_day_over(self.moment)
        ends = [p.last_over for p in self.pulls if p.start <= start and p.end <= over and self.has(p, code)]
        return max(ends, default=None)

    def add(self, pull: Pull, code: str, bars: pl.DataFrame) -> tuple[AdjustmentChange | None, int]:
        """Write a stock's bars, with the days that only older files have, as a new file.

        Returns:
            The change of adjustment against the earlier files, and where there is none how many closes differ.

        Raises:
            FileExistsError: rather than write over a file.
        """
        path = self._path(pull, code)
        if path.exists():
            raise FileExistsError(f"{path} is there already; raw files are never written over")
        before, _ = self.table(code)
        change = compare_adjustment(code, before, bars)
        table, left_out = (bars, None) if before is None else joined(bars, before)
        if change is not None:
            pull.changes.append(asdict(change))
        if left_out is not None:
            pull.set_aside[code] = left_out
        if change is not None or left_out is not None:
            self.save()  # before the file: a run killed between them asks for the stock again
        write_atomically(path, table.write_parquet)
        return change, corrected_closes(before, bars) if change is None else 0

    def table(self, code: str) -> tuple[pl.DataFrame | None, str | None]:
        """The stock's bars, with the days that only older files have; where older days had to be left out, why."""
        table: pl.DataFrame | None = None
        reason = None
        for pull in reversed(self.pulls):
            if self.has(pull, code):
                older = self._bars(pull, code)
                table, left_out = (older, None) if table is None else joined(table, older)
                reason = left_out or reason
                if pull.merged and code not in pull.set_aside:
                    break
        return table, reason

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
        write_atomically(self.listing_path(pull), listing.write_csv)

    def listing_path(self, pull: Pull) -> Path:
        """The pull's own listing: code, name, market, industry; see `read_listing`."""
        return self.folder / "listing" / f"{pull.name}.csv"

    def listings(self) -> pl.DataFrame | None:
        """All listings as one: code, name, market, industry, first_seen, last_seen (Date), sorted by code.

        Name, market and industry are the newest that are known; a stock that has left the exchange keeps its last.
        """
        paths = sorted((self.folder / "listing").glob("[0-9]*.csv"), key=lambda path: _age(path.stem))
        if not paths:
            return None
        tables = [read_listing(path).with_columns(seen=pl.lit(date.fromisoformat(path.stem[:10]))) for path in paths]
        newest = [pl.col(name).drop_nulls().last() for name in _LISTING if name != "code"]
        seen = {"first_seen": pl.col("seen").min(), "last_seen": pl.col("seen").max()}
        return pl.concat(tables).group_by("code", maintain_order=True).agg(*newest, **seen).sort("code")

    def save(self) -> None:
        """Write the manifest in one step, with the files of the last pull and of those that a killed run left."""
        for pull in [*(p for p in self.pulls if not p.finished), *self.pulls[-1:]]:
            files = sorted((self.folder / "bars" / pull.name).glob("*.parquet"))
            times = [datetime.fromtimestamp(path.stat().st_mtime, SEOUL) for path in files]
            pull.files = {path.stem: at.isoformat(timespec="seconds") for path, at in zip(files, times, strict=True)}
        pulls = [{**asdict(p), "start": str(p.start), "end": str(p.end)} for p in self.pulls]
        text = json.dumps({"schema_version": SCHEMA_VERSION, "pulls": pulls}, indent=1, ensure_ascii=False) + "\n"
        write_atomically(self.manifest, text)

    def write_tables(self) -> dict[str, str]:
        """Write bars.parquet and listing.csv from the raw files, if there are any.

        Returns:
            Of each code whose older days had to be left out, why.
        """
        codes = sorted({path.stem for path in (self.folder / "bars").glob("*/*.parquet")})
        tables = {code: self.table(code) for code in codes}
        if bars := [table for table, _ in tables.values() if table is not None]:
            write_atomically(self.folder / "bars.parquet", pl.concat(bars).write_parquet)
        if (listing := self.listings()) is not None:
            write_atomically(self.folder / "listing.csv", listing.write_csv)
        return {code: reason for code, (_, reason) in tables.items() if reason is not None}

    def _path(self, pull: Pull, code: str) -> Path:
        return self.folder / "bars" / pull.name / f"{code}.parquet"


def _pull(entry: dict[str, Any]) -> Pull:
    """A pull from its entry in the manifest of this or an older version."""
    dates = {name: date.fromisoformat(entry[name]) for name in ("start", "end")}
    return Pull(**({name: value for name, value in entry.items() if name != "short"} | dates))


def read_listing(path: Path) -> pl.DataFrame:
    """A pull's listing."""
    return pl.read_csv(path, schema_overrides=_LISTING).select(*_LISTING)


def _age(name: str) -> tuple[str, int]:
    """Sorts pulls' names by age: 2024-03-04, 2024-03-04-2, ..., 2024-03-04-10."""
    return name[:10], int(name[11:] or 1)
