"""The folder of a KRX download: pulls, raw files that are never edited, the manifest, and what is made from them."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Any

import polars as pl

from lasps.reproducibility import write_atomically

SCHEMA_VERSION = 1
RESUME_DAYS = 7
"""An interrupted pull is continued for so long; then its end lies too far back. Guess."""
CHANGED_RATIO = 0.003
"""A close that differs by more (and by more than a won and a half) was adjusted anew; less is rounding. Guess."""


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

    def __str__(self) -> str:
        several = "" if self.highest / self.lowest < 1.01 else f" (between {self.lowest:.4g} and {self.highest:.4g})"
        return (
            f"Adjustment changed: {self.code} closes x {self.ratio:.4g}{several} from {self.first} to {self.last}, "
            f"{self.days:,} of {self.overlap:,} common days"
        )


@dataclass
class Pull:
    """One pull: its name is its folder; `files` says when each stock was fetched.

    finished: every stock was tried; complete: and none failed.
    """

    name: str
    start: date
    end: date
    complete: bool = False
    finished: bool = False
    files: dict[str, str] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)
    changes: list[dict[str, Any]] = field(default_factory=list)


class Store:
    """The download folder.

    Raises:
        ValueError: on opening, a manifest that cannot be read.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.manifest = folder / "manifest.json"
        self.pulls: list[Pull] = self._read()

    def _read(self) -> list[Pull]:
        if not self.manifest.exists():
            return []
        try:
            content = json.loads(self.manifest.read_text(encoding="utf-8"))
            return [Pull(**{**p, "start": date.fromisoformat(p["start"]), "end": date.fromisoformat(p["end"])})
                    for p in content["pulls"]]  # fmt: skip
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"{self.manifest}: expected the manifest of a KRX download, but {error!r}. The raw files beside it are "
                "untouched; move the manifest away and pull again."
            ) from error

    def open_pull(self, start: date, end: date | None, today: date) -> Pull:
        """The pull to go on with, else a new one.

        A pull of the same start goes on on its own day; later, when it was cut short less than RESUME_DAYS ago, or when
        its very end is asked for and stocks failed. A stock that always fails must not hold up newer days for ever.
        """
        for pull in reversed(self.pulls):
            age = (today - date.fromisoformat(pull.name[:10])).days
            same_end = pull.end == (end or today)
            cut_short = not pull.finished and end is None and age < RESUME_DAYS
            if pull.start == start and ((same_end and (age == 0 or not pull.complete)) or cut_short):
                self._adopt(pull)
                return pull
        taken = {pull.name for pull in self.pulls}
        name, number = str(today), 2
        while name in taken:
            name, number = f"{today}-{number}", number + 1
        pull = Pull(name, start, end or today)
        self.pulls.append(pull)
        self.save()
        return pull

    def _adopt(self, pull: Pull) -> None:
        """Files that a killed run wrote after its last manifest."""
        for path in (self.folder / "bars" / pull.name).glob("*.parquet"):
            pull.files.setdefault(path.stem, datetime.fromtimestamp(path.stat().st_mtime).isoformat(timespec="seconds"))

    def has(self, pull: Pull, code: str) -> bool:
        return self._path(pull, code).exists()

    def add(self, pull: Pull, code: str, bars: pl.DataFrame, change: AdjustmentChange | None) -> None:
        """Write a stock's bars as a new file. Raises FileExistsError rather than write over one."""
        path = self._path(pull, code)
        if path.exists():
            raise FileExistsError(f"{path} is there already; raw files are never written over")
        write_atomically(path, bars.write_parquet)
        pull.files[code] = datetime.now().isoformat(timespec="seconds")
        if change is not None:
            pull.changes.append(asdict(change))
        if len(pull.files) % 50 == 0:
            self.save()

    def newest(self, code: str) -> pl.DataFrame | None:
        """The stock's bars of the newest pull that has it."""
        for pull in reversed(self.pulls):
            if self.has(pull, code):
                return pl.read_parquet(self._path(pull, code))
        return None

    def add_listing(self, pull: Pull, listing: pl.DataFrame) -> None:
        write_atomically(self._listing_path(pull), listing.write_csv)

    def listing(self, pull: Pull) -> pl.DataFrame | None:
        path = self._listing_path(pull)
        return pl.read_csv(path, schema_overrides=_LISTING) if path.exists() else None

    def newest_listing(self) -> tuple[str, pl.DataFrame] | None:
        for pull in reversed(self.pulls):
            if (listing := self.listing(pull)) is not None:
                return pull.name, listing
        return None

    def save(self) -> None:
        """Write the manifest in one step."""
        pulls = [{**asdict(p), "start": str(p.start), "end": str(p.end)} for p in self.pulls]
        text = json.dumps({"schema_version": SCHEMA_VERSION, "pulls": pulls}, indent=1, ensure_ascii=False) + "\n"
        write_atomically(self.manifest, text)

    def merged(self) -> pl.DataFrame:
        """One long table: each stock's newest file, and older rows before it where their adjustment still holds."""
        codes = sorted({code for pull in self.pulls for code in pull.files})
        return pl.concat([self._merged(code) for code in codes])

    def _merged(self, code: str) -> pl.DataFrame:
        files = [pl.read_parquet(self._path(p, code)) for p in reversed(self.pulls) if self.has(p, code)]
        table = files[0]
        for older in files[1:]:
            before = older.filter(pl.col("date") < table["date"].min())
            common = older.join(table, on="date").height
            if before.height and common and compare_adjustment(code, older, table) is None:
                table = pl.concat([before, table])
        return table.sort("date")

    def write_tables(self) -> None:
        """Write bars.parquet and listing.csv from the raw files."""
        table = self.merged()
        write_atomically(self.folder / "bars.parquet", table.write_parquet)
        newest = self.newest_listing()
        if newest is not None:
            write_atomically(self.folder / "listing.csv", newest[1].write_csv)

    def _path(self, pull: Pull, code: str) -> Path:
        return self.folder / "bars" / pull.name / f"{code}.parquet"

    def _listing_path(self, pull: Pull) -> Path:
        return self.folder / "listing" / f"{pull.name}.csv"


_LISTING = {"code": pl.String, "name": pl.String, "market": pl.String, "industry": pl.String}


def compare_adjustment(code: str, old: pl.DataFrame | None, new: pl.DataFrame) -> AdjustmentChange | None:
    """Closes of the days that both pulls have; None where there is no older pull, no common day or no change."""
    if old is None:
        return None
    both = old.select("date", before="close").join(new.select("date", after="close"), on="date", how="inner")
    both = both.filter((pl.col("before") > 0) & (pl.col("after") > 0)).sort("date")
    both = both.with_columns(ratio=pl.col("after") / pl.col("before"))
    distance = (pl.col("after") - pl.col("before")).abs()
    changed = both.filter(((pl.col("ratio") - 1).abs() > CHANGED_RATIO) & (distance > 1.5))
    if changed.height == 0:
        return None
    low, middle, high = (float(changed["ratio"].quantile(q, "nearest") or 0) for q in (0.05, 0.5, 0.95))
    return AdjustmentChange(
        code, middle, low, high, str(changed["date"].min()), str(changed["date"].max()), changed.height, both.height
    )
