"""Download the KRX listing and adjusted daily bars with FinanceDataReader (an optional extra).

The folder, in which nothing that was fetched is ever edited:

    listing/2025-06-17.csv          one listing per pull
    bars/2025-06-17/005930.parquet  one file per pull and stock
    manifest.json                   every pull: dates, what was fetched when, what failed, changed adjustments
    listing.csv, bars.parquet       made from the files above after each pull, for `make data SOURCE=...`
"""

from __future__ import annotations

import contextlib
import io
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Any

import polars as pl
from loguru import logger
from tqdm import tqdm

from lasps.data.sources.krx_replies import DownloadError, explain, to_bars, to_listing
from lasps.data.sources.krx_store import AdjustmentChange, Pull, Store, compare_adjustment

Reader = Callable[[str, str, str], Any]
"""(code, start, end) -> pandas frame, as FinanceDataReader.DataReader."""
ListingReader = Callable[[str], Any]
"""(market) -> pandas frame, as FinanceDataReader.StockListing."""

INSTALL = (
    'downloading needs FinanceDataReader, which is not installed: pip install "lasps[krx]" '
    '(in a checkout: .venv/bin/python -m pip install -e ".[krx]")'
)
MARKETS = ("KOSPI", "KOSDAQ", "KOSDAQ GLOBAL")
"""KONEX stocks trade a few times a month and are left out."""
PAUSE_S = 0.5
"""Seconds between two requests. Guess: 2,700 stocks take half an hour, and no block was reported at that rate."""
ATTEMPTS = 2
STOP_AFTER = 10
"""Failures in a row after which the server is taken to be down or to have blocked us. Guess."""
REPLY_TIMEOUT_S = 60.0
"""FinanceDataReader sets no timeout of its own."""


@dataclass
class DownloadResult:
    """What one call of `download` did."""

    folder: Path
    pull: str
    fetched: list[str] = field(default_factory=list)
    kept: list[str] = field(default_factory=list)
    failed: dict[str, str] = field(default_factory=dict)
    not_tried: list[str] = field(default_factory=list)
    changes: list[AdjustmentChange] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        return not self.failed and not self.not_tried

    def summary(self) -> str:
        """A few lines for the terminal; failed codes are listed by reason."""
        lines = [f"Pull {self.pull}: {len(self.fetched):,} stocks fetched, {len(self.kept):,} were there already"]
        reasons: dict[str, list[str]] = {}
        for code, reason in self.failed.items():
            reasons.setdefault(reason, []).append(code)
        for reason, codes in reasons.items():
            lines.append(f"Failed, {len(codes):,}: {reason}: {' '.join(codes)}")
        if self.not_tried:
            lines.append(f"Not tried, {len(self.not_tried):,}: {' '.join(self.not_tried[:20])} ...")
        if not self.ok:
            lines.append("What was fetched stays. Run the same command again for the rest.")
        lines += [str(change) for change in self.changes]
        return "\n".join(lines)


def download(
    start: date | str,
    end: date | str | None,
    folder: str | Path,
    *,
    reader: Reader | None = None,
    listing_reader: ListingReader | None = None,
    codes: Sequence[str] | None = None,
    markets: Sequence[str] = MARKETS,
    pause_s: float = PAUSE_S,
    attempts: int = ATTEMPTS,
    stop_after: int = STOP_AFTER,
    timeout_s: float = REPLY_TIMEOUT_S,
    today: date | None = None,
) -> DownloadResult:
    """Pull the listing and the adjusted daily bars of start..end.

    A pull that was interrupted, or had failures, is continued by the same call: stocks that have their file are not
    asked for again. Every stock's bars come from one request, so that one adjustment holds over its whole file.

    Args:
        start, end: first and last day; end None means the day of the pull.
        folder: where the files go, see the module's docstring.
        reader, listing_reader: FinanceDataReader's functions by default.
        codes: only these stocks; all of `markets` by default.
        pause_s: seconds between the starts of two requests.
        attempts: how often each request is tried.
        stop_after: failures in a row after which the rest is not tried.
        timeout_s: seconds to wait for a reply.

    Returns:
        What was fetched, kept and failed, and the stocks whose adjustment changed against an earlier pull.

    Raises:
        DownloadError: (a ValueError) the library is missing, the dates are wrong, or there is no listing to go by.
        KeyboardInterrupt: after the manifest was written; the same call goes on where this one stopped.
    """
    today = today or datetime.now().date()
    first, last = _dates(start, end, today)
    if reader is None or listing_reader is None:
        library = _library()
        reader, listing_reader = reader or library.DataReader, listing_reader or library.StockListing
    ask = _Asker(pause_s, attempts, timeout_s)
    store = Store(Path(folder))
    pull = store.open_pull(first, None if end is None else last, today)
    listing = _listing(ask, listing_reader, store, pull)
    wanted = _wanted(listing, codes, markets)
    result = DownloadResult(store.folder, pull.name)
    try:
        _pull_bars(ask, reader, store, pull, wanted, result, stop_after)
    finally:
        pull.failed = dict(result.failed)
        pull.finished = len(result.fetched) + len(result.kept) + len(result.failed) == len(wanted)
        pull.complete = pull.finished and not result.failed
        store.save()
    if pull.files:
        store.write_tables()
    return result


def _pull_bars(
    ask: _Asker, reader: Reader, store: Store, pull: Pull, wanted: list[str], result: DownloadResult, stop_after: int
) -> None:
    in_a_row = 0
    for position, code in enumerate(tqdm(wanted, desc="KRX bars", unit="stock", disable=None)):
        if store.has(pull, code):
            result.kept.append(code)
            continue
        if in_a_row >= stop_after:
            result.not_tried = [c for c in wanted[position:] if not store.has(pull, c)]
            logger.error(f"{in_a_row} stocks in a row failed, the rest was not tried: the server is down or blocks us")
            return
        try:
            bars = ask(lambda code=code: to_bars(code, reader(code, str(pull.start), str(pull.end))))  # type: ignore[misc]
        except DownloadError as error:
            result.failed[code] = str(error)
            in_a_row += 1
            continue
        in_a_row = 0
        change = compare_adjustment(code, store.newest(code), bars)
        store.add(pull, code, bars, change)
        result.fetched.append(code)
        if change is not None:
            result.changes.append(change)


def _listing(ask: _Asker, read: ListingReader, store: Store, pull: Pull) -> pl.DataFrame:
    """The pull's listing: the one it has already, else a new one, else (with a warning) that of an earlier pull."""
    if (own := store.listing(pull)) is not None:
        return own
    try:
        prices = ask(lambda: read("KRX"))
        listing = to_listing(prices, ask(lambda: read("KRX-DESC")))
    except DownloadError as error:
        earlier = store.newest_listing()
        if earlier is None:
            raise DownloadError(f"the KRX listing could not be read: {error}. Nothing was downloaded.") from error
        logger.warning(f"the KRX listing could not be read: {error}. Going on with the listing of {earlier[0]}.")
        return earlier[1]
    store.add_listing(pull, listing)
    return listing


def _wanted(listing: pl.DataFrame, codes: Sequence[str] | None, markets: Sequence[str]) -> list[str]:
    if codes is not None:
        unknown = sorted(set(codes) - set(listing["code"]))
        if unknown:
            logger.warning(f"not in today's listing, asked for anyway: {' '.join(unknown)}")
        return list(dict.fromkeys(codes))
    wanted = listing.filter(pl.col("market").is_in(list(markets)))["code"].to_list()
    if not wanted:
        have = sorted(listing["market"].drop_nulls().unique())
        raise DownloadError(f"no stock of the markets {', '.join(markets)} in the listing, which has {', '.join(have)}")
    return wanted


class _Asker:
    """Asks one thing at a time: with a pause, a timeout, several attempts; every error becomes a DownloadError."""

    def __init__(self, pause_s: float, attempts: int, timeout_s: float) -> None:
        self.pause_s, self.attempts, self.timeout_s = pause_s, max(1, attempts), timeout_s
        self._next = 0.0

    def __call__(self, question: Callable[[], Any]) -> Any:
        for attempt in range(self.attempts):
            self._wait(2**attempt)
            printed = io.StringIO()
            try:
                with contextlib.redirect_stdout(printed):  # the library prints its complaints
                    return _within(question, self.timeout_s)
            except Exception as error:  # the library raises whatever its parsers raise
                if attempt == self.attempts - 1:
                    raise DownloadError(explain(error)) from error
        raise AssertionError("unreachable")

    def _wait(self, factor: int) -> None:
        now = time.monotonic()
        if self._next > now:
            time.sleep(self._next - now)
        self._next = time.monotonic() + self.pause_s * factor


def _within(question: Callable[[], Any], timeout_s: float) -> Any:
    """The answer, or its error, or TimeoutError after `timeout_s`; a reply that never comes cannot hang the pull."""
    box: dict[str, Any] = {}

    def run() -> None:
        try:
            box["answer"] = question()
        except BaseException as error:  # handed to the caller below
            box["error"] = error

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(timeout_s)
    if thread.is_alive():
        raise TimeoutError(f"no reply within {timeout_s:g} s")
    if "error" in box:
        raise box["error"]
    return box["answer"]


def _library() -> Any:
    try:
        import FinanceDataReader
    except ImportError as error:
        raise DownloadError(INSTALL) from error
    return FinanceDataReader


def _dates(start: date | str, end: date | str | None, today: date) -> tuple[date, date]:
    days: list[date] = []
    for name, value in (("start", start), ("end", end if end is not None else today)):
        try:
            days.append(value if isinstance(value, date) else date.fromisoformat(value))
        except ValueError as error:
            raise DownloadError(f"{name}: expected a date as 2015-01-01, got {value!r}") from error
    if days[0] > days[1]:
        raise DownloadError(f"start {days[0]} lies after end {days[1]}")
    return days[0], days[1]
