"""How FinanceDataReader is asked, and its replies as bars and a listing, its errors as sentences.

One thing at a time is asked, with a pause, a timeout and several attempts. The replies' shapes are those of
finance-datareader 0.9.202: `DataReader(code, start, end)` is a pandas frame with the index `Date` and Open, High, Low,
Close, Volume, Change (adjusted, from Naver; a halted day has open = high = low = 0; a code without data, or a page that
is none, gives an empty frame); `StockListing("KRX")` has Code, Name, Market and prices, `StockListing("KRX-DESC")` has
Code, Sector (the industry's name) and Industry (the company's products).
"""

from __future__ import annotations

import contextlib
import io
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass
from datetime import date
from typing import Any

import polars as pl

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
_COLUMNS = ("Open", "High", "Low", "Close", "Volume")


class DownloadError(ValueError):
    """Nothing could be downloaded; the message says why and what to do."""


class EmptyReplyError(DownloadError):
    """The server answered, but has no day of this stock."""


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
            self.reader = self.reader or library.DataReader
            self.listing_reader = self.listing_reader or library.StockListing

    def bars(self, code: str, start: date, end: date) -> pl.DataFrame:
        """One stock's bars, see `to_bars`."""
        assert self.reader is not None
        read = self.reader
        bars: pl.DataFrame = self._ask(lambda: to_bars(code, read(code, str(start), str(end))))
        return bars

    def listing(self) -> pl.DataFrame:
        """The listing of today, see `to_listing`."""
        assert self.listing_reader is not None
        read = self.listing_reader
        prices = self._ask(lambda: read("KRX"))
        return to_listing(prices, self._ask(lambda: read("KRX-DESC")))

    def _ask(self, question: Callable[[], Any]) -> Any:
        failure = Exception()
        for attempt in range(max(1, self.attempts)):
            self._wait(2**attempt)
            try:
                with contextlib.redirect_stdout(io.StringIO()):  # the library prints its complaints
                    return _within(question, self.timeout_s)
            except Exception as error:  # the library raises whatever its parsers raise
                failure = error
        raise failure if isinstance(failure, DownloadError) else DownloadError(explain(failure)) from failure

    def _wait(self, factor: int) -> None:
        time.sleep(max(0.0, self._next - time.monotonic()))
        self._next = time.monotonic() + self.pause_s * factor


def _within(question: Callable[[], Any], timeout_s: float) -> Any:
    """The answer, or its error, or TimeoutError after `timeout_s`; a reply that never comes cannot hang the pull."""
    answer: Future[Any] = Future()

    def run() -> None:
        try:
            answer.set_result(question())
        except BaseException as error:  # raised by result() below
            answer.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    if wait([answer], timeout_s).not_done:
        raise TimeoutError(f"no reply within {timeout_s:g} s")
    return answer.result()


def _library() -> Any:
    try:
        import FinanceDataReader
    except ImportError as error:
        raise DownloadError(INSTALL) from error
    return FinanceDataReader


def to_bars(code: str, frame: Any) -> pl.DataFrame:
    """FinanceDataReader's frame of one stock as raw bars, sorted by date.

    Args:
        code: the stock asked for.
        frame: index Date; Open, High, Low, Close (KRW), Volume (shares); other columns are ignored.

    Returns:
        code, date, open, high, low, close Float64, volume Int64.

    Raises:
        DownloadError: an empty frame (EmptyReplyError), columns or dates missing, a date twice.
    """
    if frame is None or len(frame) == 0:
        raise EmptyReplyError("an empty reply: no such stock, no days in that time, or a page instead of data")
    missing = [c for c in _COLUMNS if c not in frame.columns]
    if missing:
        raise DownloadError(f"the reply has no {', '.join(missing)}, but {', '.join(map(str, frame.columns))}")
    index = frame.index
    if getattr(index, "tz", None) is not None:
        index = index.tz_localize(None)
    if index.dtype.kind != "M":
        raise DownloadError(f"the reply is not indexed by dates, but by {index.dtype}")
    columns: dict[str, Any] = {"date": index.to_numpy().astype("datetime64[D]")}
    columns |= {name.lower(): frame[name].to_numpy(dtype="float64", na_value=float("nan")) for name in _COLUMNS}
    bars = pl.DataFrame(columns).with_columns(code=pl.lit(code), volume=pl.col("volume").fill_nan(None).cast(pl.Int64))
    bars = bars.select("code", "date", "open", "high", "low", "close", "volume").sort("date")
    if bars["date"].is_duplicated().any():
        raise DownloadError(f"the reply has the date {bars.filter(pl.col('date').is_duplicated())['date'][0]} twice")
    return bars


def to_listing(prices: Any, described: Any) -> pl.DataFrame:
    """StockListing("KRX") and StockListing("KRX-DESC") as code, name, market, industry (nullable), sorted by code.

    Raises:
        DownloadError: an empty listing, columns missing, codes that lost their zeros.
    """
    for frame, name, columns in (
        (prices, "KRX", ("Code", "Name", "Market")),
        (described, "KRX-DESC", ("Code", "Sector")),
    ):
        if frame is None or len(frame) == 0:
            raise DownloadError(f"the listing {name} is empty")
        if missing := [c for c in columns if c not in frame.columns]:
            got = ", ".join(map(str, frame.columns))
            raise DownloadError(f"the listing {name} has no {', '.join(missing)}, but {got}")
    table = pl.DataFrame({c.lower(): _texts(prices[c]) for c in ("Code", "Name", "Market")})
    industries = pl.DataFrame({"code": _texts(described["Code"]), "industry": _texts(described["Sector"])})
    wrong = table.filter(~pl.col("code").fill_null("").str.contains(r"^[0-9A-Z]{6}$"))
    if wrong.height:
        raise DownloadError(f"{wrong.height} codes of the listing KRX are not 6 characters long: {wrong['code'][0]!r}")
    table, industries = (t.unique("code", keep="first") for t in (table, industries))
    return table.join(industries, on="code", how="left").sort("code")


def _texts(column: Any) -> list[str | None]:
    return [
        str(value).strip() if isinstance(value, str) and value.strip() else None if _empty(value) else str(value)
        for value in column
    ]


def _empty(value: Any) -> bool:
    return value is None or value != value or value == ""


def explain(error: BaseException) -> str:
    """What an error of the library means, in one line."""
    kind, text = type(error).__name__, (str(error).strip().splitlines() or [""])[0]
    status = getattr(error, "code", None) or getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, DownloadError):
        return str(error)
    if isinstance(status, int):
        hint = "; today's listing may not be published yet, try later" if status == 404 else ""
        return f"the server answered HTTP {status}{hint}"
    if kind == "JSONDecodeError":
        return "the server sent no JSON, often an HTML page (maintenance, a login or a block)"
    if isinstance(error, ValueError) and text.startswith("Failed to load data"):
        return f"the server's reply could not be read ({text})"
    if isinstance(error, TimeoutError) or "Timeout" in kind:
        return f"no reply in time ({text})"
    # 0.9.202 answers a refused connection with UnboundLocalError: its handler prints a reply that it never got
    if isinstance(error, (OSError, UnboundLocalError)):
        return f"no connection to the server ({kind})"
    if isinstance(error, (KeyError, IndexError, AttributeError, TypeError)):
        return f"FinanceDataReader could not read the reply ({kind}: {text}); pip install -U finance-datareader"
    return f"{kind}: {text}"
