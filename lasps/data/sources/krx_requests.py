"""How FinanceDataReader is asked: one thing at a time, with a pause, a timeout and several attempts."""

from __future__ import annotations

import contextlib
import io
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import date
from typing import Any

import polars as pl

from lasps.data.sources.krx_replies import DownloadError, explain, to_bars, to_listing

INSTALL = (
    'downloading needs FinanceDataReader, which is not installed: pip install "lasps[krx]" '
    '(in a checkout: .venv/bin/python -m pip install -e ".[krx]")'
)
PAUSE_S = 0.5
"""Seconds between two requests. Guess: 2,700 stocks take half an hour, and no block was reported at that rate."""
ATTEMPTS = 2
REPLY_TIMEOUT_S = 60.0
"""FinanceDataReader sets no timeout of its own."""
STOP_AFTER = 10
"""Failures in a row after which the server is taken to be down or to have blocked us. Guess."""


@dataclass
class Requests:
    """Asks the library; whatever it raises becomes a DownloadError.

    reader: (code, start, end) -> pandas frame, listing_reader: (market) -> pandas frame; by default the library's.
    pause_s: seconds between the starts of two requests; attempts: how often each is tried; timeout_s: seconds to wait
    for a reply; stop_after: failures in a row after which a caller should give up.

    Raises:
        DownloadError: the library is needed and not installed.
    """

    reader: Callable[[str, str, str], Any] | None = None
    listing_reader: Callable[[str], Any] | None = None
    pause_s: float = PAUSE_S
    attempts: int = ATTEMPTS
    timeout_s: float = REPLY_TIMEOUT_S
    stop_after: int = STOP_AFTER
    _next: float = 0.0

    def __post_init__(self) -> None:
        if self.reader is None or self.listing_reader is None:
            library = _library()
            self.reader, self.listing_reader = (
                self.reader or library.DataReader,
                self.listing_reader or library.StockListing,
            )

    def bars(self, code: str, start: date, end: date) -> pl.DataFrame:
        """One stock's bars, see `to_bars`."""
        assert self.reader is not None
        read = self.reader
        return self._ask(lambda: to_bars(code, read(code, str(start), str(end))))

    def listing(self) -> pl.DataFrame:
        """The listing of today, see `to_listing`."""
        assert self.listing_reader is not None
        read = self.listing_reader
        prices = self._ask(lambda: read("KRX"))
        return to_listing(prices, self._ask(lambda: read("KRX-DESC")))

    def _ask(self, question: Callable[[], Any]) -> Any:
        attempts = max(1, self.attempts)
        for attempt in range(attempts):
            self._wait(2**attempt)
            printed = io.StringIO()
            try:
                with contextlib.redirect_stdout(printed):  # the library prints its complaints
                    return _within(question, self.timeout_s)
            except Exception as error:  # the library raises whatever its parsers raise
                if attempt == attempts - 1:
                    raise error if isinstance(error, DownloadError) else DownloadError(explain(error)) from error
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
