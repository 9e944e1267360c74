"""Download the KRX listing and adjusted daily bars with FinanceDataReader (an optional extra).

The folder, in which no file of a pull is ever edited:

    listing/2025-06-17.csv          one listing per pull
    bars/2025-06-17/005930.parquet  one file per pull and stock: every day known then that was over in Seoul
    manifest.json                   every pull: dates, what was fetched when, what failed, changed adjustments
    listing.csv, bars.parquet       made from the files above after each pull, for `make data SOURCE=...`

`krx_store` says how the two tables are made. Stocks that leave the exchange stay in both.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from pathlib import Path
from typing import Any

import polars as pl
from loguru import logger
from tqdm import tqdm

from lasps.config import clock
from lasps.data.sources.krx_adjustments import AdjustmentChange
from lasps.data.sources.krx_requests import DownloadError, EmptyReplyError, Requests
from lasps.data.sources.krx_store import Pull, Store, read_listing
from lasps.data.universe import market_of
from lasps.files import held

MARKETS = ("KOSPI", "KOSDAQ")
"""KONEX stocks trade a few times a month and are left out. KOSDAQ GLOBAL is a segment of KOSDAQ (`market_of`)."""
SHORT_LISTING, LISTING_DAYS = 0.8, 90
"""A listing is rejected if it has less than this share of the stocks of one at most so many days older. Guess: in a
month a few stocks in a thousand leave the exchange."""

NEW_DAYS = 7
"""Days that a stock may stand in the listing before its first bar. Guess."""


@dataclass
class DownloadResult:
    """What one call of `download` did, by code."""

    folder: Path
    pull: str
    fetched: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    not_tried: list[str] = field(default_factory=list)
    changes: list[AdjustmentChange] = field(default_factory=list)
    corrected: dict[str, int] = field(default_factory=dict)
    """How many closes the source corrected, changed adjustments aside."""
    too_new: list[str] = field(default_factory=list)
    """Listed, but none of its days is over."""
    ended: list[str] = field(default_factory=list)
    """No longer listed, and without new days: its bars stay as they are."""
    renamed: list[str] = field(default_factory=list)
    set_aside: dict[str, str] = field(default_factory=dict)
    """Stocks of which older rows are in a file of an earlier pull but not in bars.parquet, and why."""

    @property
    def ok(self) -> bool:
        return not self.failed and not self.not_tried

    @property
    def tried(self) -> set[str]:
        return {*self.fetched, *self.kept, *self.failed, *self.too_new, *self.ended}

    def summary(self) -> str:
        """A few lines for the terminal; failed codes are listed by reason."""
        lines = [f"Pull {self.pull}: {len(self.fetched):,} stocks fetched, {len(self.kept):,} were there already"]
        reasons: dict[str, list[str]] = {}
        for code, reason in self.failed.items():
            reasons.setdefault(reason, []).append(code)
        lines += [f"Failed, {len(codes):,}: {reason}: {' '.join(codes)}" for reason, codes in reasons.items()]
        if self.not_tried:
            lines.append(f"Not tried, {len(self.not_tried):,}: {' '.join(self.not_tried[:20])} ...")
        if not self.ok:
            lines.append("What was fetched stays. Run the same command again for the rest.")
        named = (
            ("Listed, but none of their days is over yet", self.too_new),
            ("Renamed", self.renamed),
            ("No longer listed and without new days; their bars and listing rows stay", self.ended),
            ("Closes that the source corrected", [f"{code} ({n})" for code, n in self.corrected.items()]),
        )
        lines += [f"{what}, {len(codes):,}: {', '.join(codes)}" for what, codes in named if codes]
        lines += [f"Left out of bars.parquet: {code}, {why}" for code, why in self.set_aside.items()]
        return "\n".join(lines + [str(change) for change in self.changes])


def download(
    start: date | str,
    end: date | str | None,
    folder: str | Path,
    *,
    codes: Sequence[str] | None = None,
    markets: Sequence[str] = MARKETS,
    now: Callable[[], datetime] = clock.now,
    today: date | None = None,
    **requests: Any,
) -> DownloadResult:
    """Pull the listing and the adjusted daily bars of start..end, as far as these days are over in Seoul.

    A pull that was interrupted, or had failures, is continued by the same call: stocks of which a file covers these
    days are not asked for again. Every stock's bars come from one request that begins where the folder's earliest pull
    began, so that one adjustment holds over its whole history.

    Args:
        start, end: first and last day; end None means the last day that is over (`clock.last_day_over`).
        folder: where the files go, see the module's docstring.
        codes: only these stocks; by default all of `markets`, and once more those that have left the exchange.
        markets: names as `universe.market_of` writes them.
        now: the moment of the pull, with a time zone.
        today: in its place a day in Seoul, as of its morning.
        requests: reader, listing_reader, pause_s, attempts, timeout_s and stop_after of `krx_requests.Requests`.

    Returns:
        What was fetched, kept and failed, and the stocks whose adjustment changed against an earlier pull.

    Raises:
        DownloadError: (a ValueError) the library is missing, the dates are wrong, or there is no listing to go by.
        InUseError: (a ValueError) another download works in the folder.
        KeyboardInterrupt: after the manifest was written; the same call goes on where this one stopped.
    """
    moment = clock.in_seoul(now()) if today is None else datetime.combine(today, time(9), clock.SEOUL)
    first, last, until = _dates(start, end, moment)
    ask = Requests(**requests)
    with held(Path(folder) / ".lock", str(folder), "Wait until that download is over, or choose another folder."):
        store = Store(Path(folder), moment)
        return _pull(ask, store, store.open_pull(first, last), until, codes, markets)


def _pull(
    ask: Requests, store: Store, pull: Pull, until: date, codes: Sequence[str] | None, markets: Sequence[str]
) -> DownloadResult:
    """Fetch what the pull lacks, and write manifest and tables."""
    result = DownloadResult(store.folder, pull.name)
    known = store.listings()
    listing = _listing(ask, store, pull, known, result)
    wanted = _wanted(listing, codes, markets)
    gone = [] if codes is not None or known is None else _gone(store, pull, known, listing, markets)
    quiet = dict.fromkeys(gone, result.ended) | dict.fromkeys(_new(store, pull.day), result.too_new)
    try:
        _pull_bars(ask, store, pull, until, [*wanted, *gone], quiet, result)
    finally:
        pull.failed, pull.ended = dict(result.failed), sorted({*pull.ended, *result.ended})
        pull.finished = result.tried >= {*wanted, *gone}
        pull.complete = pull.finished and not result.failed
        store.save()
    result.set_aside = store.write_tables()
    return result


def _pull_bars(
    ask: Requests,
    store: Store,
    pull: Pull,
    until: date,
    wanted: list[str],
    quiet: dict[str, list[str]],
    result: DownloadResult,
) -> None:
    """Ask for every stock that no file covers, those first whose files end earliest.

    An empty reply is a failure, except of stocks in `quiet`, which go into the list that stands there.
    """
    covered = {code: store.covered_until(code, pull.start) or date.min for code in wanted}
    result.kept += [code for code, day in covered.items() if day >= pull.end]
    missing = sorted((code for code, day in covered.items() if day < pull.end), key=lambda code: covered[code])
    in_a_row = 0
    for position, code in enumerate(tqdm(missing, desc="KRX bars", unit="stock", disable=None)):
        if in_a_row >= ask.stop_after:
            result.not_tried = missing[position:]
            logger.error(f"{in_a_row} stocks in a row failed, the rest was not tried: the server is down or blocks us")
            return
        try:
            over = ask.bars(code, pull.start, until).filter(pl.col("date").is_between(pull.start, pull.end))
        except DownloadError as error:
            if code in quiet and isinstance(error, EmptyReplyError):
                quiet[code].append(code)
            else:
                result.failed[code] = str(error)
                in_a_row += 1
            continue
        in_a_row = 0
        if over.is_empty():
            quiet.get(code, result.too_new).append(code)
            continue
        change, corrected = store.add(pull, code, over)
        result.fetched.append(code)
        result.changes += [change] if change is not None else []
        result.corrected |= {code: corrected} if corrected else {}


def _listing(
    ask: Requests, store: Store, pull: Pull, known: pl.DataFrame | None, result: DownloadResult
) -> pl.DataFrame:
    """The pull's listing: the one it has already, else a new one, else (with a warning) the last one that was seen."""
    if (path := store.listing_path(pull)).exists():
        return read_listing(path)
    last = None if known is None else known.filter(pl.col("last_seen") == pl.col("last_seen").max())
    try:
        listing = ask.listing()
        if last is not None:
            _refuse_short(listing, last, pull.day)
    except DownloadError as error:
        if last is None:
            raise DownloadError(f"the KRX listing could not be read: {error}. Nothing was downloaded.") from error
        logger.warning(
            f"the KRX listing could not be read: {error}. Going on with the listing of {last['last_seen'][0]}."
        )
        return last
    store.add_listing(pull, listing)
    if known is not None:
        both = listing.join(known.select("code", before="name"), on="code").filter(pl.col("name") != pl.col("before"))
        result.renamed = [f"{row['code']} {row['before']} -> {row['name']}" for row in both.iter_rows(named=True)]
    return listing


def _refuse_short(listing: pl.DataFrame, last: pl.DataFrame, day: date) -> None:
    """Raise DownloadError if the listing lacks more stocks of a recent one than can have left the exchange."""
    seen, still = last["last_seen"][0], last.join(listing, on="code", how="semi").height
    if (day - seen).days <= LISTING_DAYS and still < SHORT_LISTING * last.height:
        raise DownloadError(f"it has only {still:,} of the {last.height:,} stocks of {seen}, so it is not whole")


def _wanted(listing: pl.DataFrame, codes: Sequence[str] | None, markets: Sequence[str]) -> list[str]:
    if codes is not None:
        unknown = sorted(set(codes) - set(listing["code"]))
        if unknown:
            logger.warning(f"not in today's listing, asked for anyway: {' '.join(unknown)}")
        return list(dict.fromkeys(codes))
    wanted = listing.filter(market_of(pl.col("market")).is_in(list(markets)))["code"].to_list()
    if not wanted:
        have = sorted(listing["market"].drop_nulls().unique())
        raise DownloadError(f"no stock of the markets {', '.join(markets)} in the listing, which has {', '.join(have)}")
    return wanted


def _gone(store: Store, pull: Pull, known: pl.DataFrame, listing: pl.DataFrame, markets: Sequence[str]) -> list[str]:
    """Stocks of these markets that are no longer listed and were not asked for since: their last days may lack."""
    left = known.join(listing, on="code", how="anti").filter(market_of(pl.col("market")).is_in(list(markets)))
    return [
        code
        for code, seen in left.select("code", "last_seen").iter_rows()
        if not store.asked_after(code, seen, pull.start)
    ]


def _new(store: Store, day: date) -> list[str]:
    """Stocks that came into the listing a few days ago, so that they may not have traded yet."""
    seen = store.listings()
    if seen is None:
        return []
    new = (pl.col("first_seen") > pl.col("first_seen").min()) & (pl.col("first_seen") >= day - timedelta(NEW_DAYS))
    return seen.filter(new)["code"].to_list()


def _dates(start: date | str, end: date | str | None, moment: datetime) -> tuple[date, date, date]:
    """First and last day of the pull, and the day up to which to ask: later days of a reply are not over."""
    over, today = clock.last_day_over(moment), moment.date()
    days: list[date] = []
    for name, value in (("start", start), ("end", end if end is not None else today)):
        try:
            days.append(value if isinstance(value, date) else date.fromisoformat(value))
        except ValueError as error:
            raise DownloadError(f"{name}: expected a date as 2015-01-01, got {value!r}") from error
    first, last = days[0], min(days[1], over)
    if first > days[1]:
        raise DownloadError(f"start {first} lies after end {days[1]}")
    in_seoul = f"{moment:%Y-%m-%d %H:%M}"
    if first > last:
        raise DownloadError(
            f"start {first}: expected a day that is over in Seoul, where it is {in_seoul}; the last such day is {last}"
        )
    if days[1] > last:
        logger.info(f"It is {in_seoul} in Seoul: the last day that is over is {last}, later bars are not stored")
    return first, last, min(days[1], today)
