"""Checks of days: of the market (impossible, missing, unfinished) and of a stock (halts, frozen, repeated, too few)."""

from __future__ import annotations

from dataclasses import replace
from datetime import date

import numpy as np
import polars as pl

from lasps.config import clock
from lasps.data.exchange import known_sessions, may_be_open
from lasps.data.integrity.bars import Bars
from lasps.data.integrity.findings import Finding, Severity, found, mask_days, percent, plural

WARN_GAPS, FATAL_GAPS = 0.01, 0.2
"""Shares of missing rows. Guess: real files have 0 and 0.0012."""
MAX_HOLE_DAYS = 11
"""Calendar days between two market days: the longest KRX holidays (autumn 2017 and 2025) made 11."""
OTHER_CALENDAR = 5
"""Market days on which KRX was closed from which the data is not KRX's, or the table of holidays is not the data's."""
SHIFTED_SUNDAYS, SHIFTED_FRIDAYS = 0.1, 0.01
"""Shares of rows on Sundays (at least) and Fridays (at most) that say: every date is a day early. A fifth and none."""
LAST_DAY_MEMORY = 20
WHOLE_MARKET, WHOLE_VOLUME = 0.8, 0.4
"""Of the codes, and of the median stock's volume, that a finished last day has of the days before. Guess: real days
have 0.97 and 0.55 at least."""


def stray_dates(bars: Bars, today: date | None = None) -> Finding:
    """Rows on a day of the week on which KRX was closed (Saturdays were trading days until 1998), or in the future."""
    today = today or clock.now().date()
    days = bars.calendar["date"]
    closed = pl.Series(~may_be_open(days.fill_null(date(2000, 1, 1)).to_numpy())) | (days > today) | days.is_null()
    bad = bars.rows.filter(pl.col("date").is_in(days.filter(closed.fill_null(True)).implode(), nulls_equal=True))
    why = pl.when(pl.col("date") > today).then(pl.lit("future")).otherwise(pl.lit("weekend"))
    hits = bad.with_columns(detail=pl.when(pl.col("date").is_null()).then(pl.lit("no date")).otherwise(why))
    shifted = _is_shifted(bars.calendar)
    return found(
        "stray_dates",
        hits,
        bars.rows.height,
        severity="fatal" if shifted else "warning",
        summary=f"{plural(hits.height, 'row')} on a weekend or in the future."
        + (" A fifth of the rows are Sundays and none are Fridays: every date is a day early." if shifted else ""),
        advice="The dates are times in UTC: midnight in Seoul is 15:00 of the day before. Add nine hours before they "
        "are cut to days."
        if shifted
        else "Time zones shifted the dates, or day and month were swapped. Read the source's dates again.",
    )


def _is_shifted(calendar: pl.DataFrame) -> bool:
    rows = calendar.group_by(day=pl.col("date").dt.weekday()).agg(n=pl.col("present").sum())
    share = {day: n / calendar["present"].sum() for day, n in rows.rows()}
    return share.get(7, 0.0) >= SHIFTED_SUNDAYS and share.get(5, 0.0) <= SHIFTED_FRIDAYS


def calendar_gaps(bars: Bars) -> Finding:
    """Market days between a stock's first and last row on which it has no row at all, not even a halted one."""
    same = pl.col("code") == pl.col("code").shift(1)
    missing = pl.when(same).then(pl.col("market_day") - pl.col("market_day").shift(1) - 1)
    gaps = bars.rows.with_columns(missing=missing, since=pl.col("date").shift(1)).filter(pl.col("missing") > 0)
    hits = gaps.sort("missing", "code", descending=[True, False])
    missing_rows, n = int(hits["missing"].sum()), bars.rows.height
    severity: Severity = "fatal" if missing_rows > FATAL_GAPS * n else "info"
    if severity == "info" and missing_rows > WARN_GAPS * n:
        severity = "warning"
    hits = hits.with_columns(detail=pl.format("{} market days missing since {}", "missing", "since"))
    finding = found(
        "calendar_gaps",
        hits,
        n,
        severity=severity,
        summary=f"{missing_rows:,} missing rows in {plural(hits['code'].n_unique(), 'stock')} "
        "against the market's own calendar.",
        advice="Some sources leave out halted days; labels across them are flagged. Many: pull these stocks again.",
    )
    return finding if hits.height == 0 else replace(finding, count=missing_rows)


def calendar_holes(bars: Bars) -> Finding:
    """Dates on which most stocks did not trade, and stretches longer than any holiday without a market day."""
    day = bars.calendar
    quiet = day.filter(~pl.col("is_market_day")).select(
        "date", detail=pl.format("{} of {} stocks traded", "traded", "listed"), order=pl.lit(1)
    )
    market = day.filter(pl.col("is_market_day")).with_columns(gap=pl.col("date").diff().dt.total_days()).rechunk()
    holes = (
        market.filter(pl.col("gap") > MAX_HOLE_DAYS)
        .rechunk()
        .select(  # unchunked: pl.format panics in polars 2.1
            "date", detail=pl.format("{} days without a market day before", "gap"), order=pl.lit(0)
        )
    )
    hits = pl.concat([holes, quiet]).sort("order", "date").with_columns(code=pl.lit("market"))
    return found(
        "calendar_holes",
        hits,
        day.height,
        severity="warning",
        summary=f"{plural(quiet.height, 'date')} on which most stocks did not trade, "
        f"{plural(holes.height, 'stretch', 'stretches')} of more than {MAX_HOLE_DAYS} days without a market day.",
        advice="A holiday that was filled up does no harm. A hole means a missing file: download that time again.",
    )


def missing_days(bars: Bars) -> Finding:
    """Days on which KRX was open and the data has no market day, by the exchange's calendar.

    Data that trades on OTHER_CALENDAR or more of KRX's holidays (synthetic, another market) has a calendar of its own;
    then, and outside the years of the table, only that one is used, and the finding says so.
    """
    own = bars.calendar.filter("is_market_day")["date"].drop_nulls()
    sessions = known_sessions(own[0], own[-1]) if len(own) else None
    if sessions is None:
        return Finding("missing_days", "info", 0, len(own), "no table of holidays for these years; own calendar used")
    days = own.to_numpy()
    extra, absent = np.setdiff1d(days, sessions), np.setdiff1d(sessions, days)
    if len(extra) >= OTHER_CALENDAR:
        return found(
            "missing_days",
            _market_hits(extra, "the data trades, KRX was closed"),
            len(own),
            severity="info",
            summary=f"the data trades on {len(extra):,} days on which KRX was closed: its own calendar is used.",
            advice="Normal for a synthetic or another market. Days that are missing as a whole cannot be known then.",
        )
    hits = pl.concat(
        [
            _market_hits(absent, "KRX was open, the data has no market day"),
            _market_hits(extra, "the data trades, KRX's calendar has no session"),
        ]
    )
    return found(
        "missing_days",
        hits,
        len(sessions),
        severity="warning" if len(absent) else "info",
        summary=f"{plural(len(absent), 'day')} on which KRX was open missing from the data, {len(extra)} too many.",
        advice="Download these days again: returns and labels across them are of more days than they say. Holidays "
        "that were decreed late may be missing from the table (experiments/krx_holidays.py writes it again).",
    )


def _market_hits(days: np.ndarray, detail: str) -> pl.DataFrame:
    dates = pl.Series(days.astype("datetime64[D]"), dtype=pl.Date)
    return pl.DataFrame(
        {"code": ["market"] * len(days), "date": dates, "detail": [detail] * len(days)},
        schema={"code": pl.String, "date": pl.Date, "detail": pl.String},
    )


def unfinished_last_day(bars: Bars) -> Finding:
    """A last day that is not over, that only a part of the market has, or whose volume is a fraction of the usual."""
    moment = clock.now()
    running = bars.calendar["date"].drop_nulls().tail(1)
    running = running.filter((running > clock.last_day_over(moment)) & (running <= moment.date()))
    if len(running):
        return found(
            "unfinished_last_day",
            _market_hits(running.to_numpy(), "not over in Seoul"),
            bars.calendar.height,
            severity="warning",
            summary=f"the last day, {running[0]!s}, is not over in Seoul.",
            advice="Its bars still change: leave it out, or pull it again when it is over.",
        )
    days = bars.calendar.filter(pl.col("traded") > 0).tail(LAST_DAY_MEMORY + 1)
    if days.height <= LAST_DAY_MEMORY:
        return found("unfinished_last_day", _market_hits(np.empty(0), ""), days.height, severity="info", summary="")
    usual = float(days["traded"].head(LAST_DAY_MEMORY).median() or 0)  # type: ignore[arg-type]
    last, traded = days.select("date", "traded").row(-1)
    recent = bars.traded.filter(pl.col("date") >= days["date"][0])
    before = recent.filter(pl.col("date") < last).group_by("code").agg(usual=pl.col("volume").median())
    today = recent.filter(pl.col("date") == last).join(before, on="code")
    volume = float(today.select((pl.col("volume") / pl.col("usual")).median()).item() or 1.0)
    unfinished = traded < WHOLE_MARKET * usual or volume < WHOLE_VOLUME
    detail = f"{traded:,} of usually {usual:,.0f} stocks traded, {volume:.2f} of the usual volume"
    hits = _market_hits(np.array([last] if unfinished else [], dtype="datetime64[D]"), detail)
    return found(
        "unfinished_last_day",
        hits,
        days.height,
        severity="warning",
        summary=f"the last day, {last}, is not whole: {detail}.",
        advice="It was pulled while the exchange was open, or before all stocks were there. Pull it again.",
    )


FATAL_HALTED = 0.5
"""Share of halted rows from which the volume column must be wrong. Guess: real files have 0.005 to 0.03."""
FROZEN_ROWS = 10
"""Equal closes in a row, each with volume. Guess, not tuned: a dozen cases in three million real rows."""
WARN_FROZEN, FATAL_FROZEN = 0.001, 0.1
"""Shares of rows inside frozen stretches. Guess: real files have 4e-5."""
REPEATED_SHARE, REPEATED_CODES = 0.5, 5
"""Share (and number) of a day's traded stocks whose bars repeat the day before from which the day was filled up."""
WARN_REPEATED, FATAL_REPEATED = 5e-4, 0.05
"""Shares of single repeated bars. Guess: real files have 1e-5."""


def halts(bars: Bars) -> Finding:
    """Days without trading (volume 0, or open = high = low = 0): not errors, but they are no rows of the panel."""
    halted = bars.rows.filter(pl.col("halted"))
    by_code = halted.group_by("code").agg(n=pl.len(), first=pl.col("date").min(), date=pl.col("date").max())
    by_code = by_code.sort("n", "code", descending=[True, False])
    hits = by_code.with_columns(detail=pl.format("{} halted days from {}", "n", "first"))
    n = bars.rows.height
    finding = found(
        "halts",
        hits,
        n,
        severity="fatal" if halted.height > FATAL_HALTED * n else "info",
        summary=f"{percent(halted.height, n)} rows in {plural(hits.height, 'stock')} are days without trading.",
        advice="Normal; the panel leaves them out and labels across them are flagged. "
        "If most rows are halted, the volume column is empty or was not read.",
    )
    return finding if hits.height == 0 else _recount(finding, halted.height)


def frozen_prices(bars: Bars) -> Finding:
    """FROZEN_ROWS or more equal closes in a row although shares were traded: a feed that repeats its last price."""
    stretch = ((pl.col("code") != pl.col("code").shift(1)) | (pl.col("close") != pl.col("close").shift(1))).cum_sum()
    runs = bars.traded.group_by(run=stretch).agg(
        pl.col("code", "close").first(), date=pl.col("date").min(), last=pl.col("date").max(), n=pl.len()
    )
    hits = runs.filter(pl.col("n") >= FROZEN_ROWS).sort("n", "code", "date", descending=[True, False, False])
    share = float(hits["n"].sum()) / max(bars.traded.height, 1)
    severity: Severity = "fatal" if share > FATAL_FROZEN else "warning" if share > WARN_FROZEN else "info"
    hits = hits.with_columns(detail=pl.format("{} closes of {} until {}", "n", pl.col("close").round(2), "last"))
    return found(
        "frozen_prices",
        hits,
        bars.traded.height,
        severity=severity,
        summary=f"{plural(hits.height, 'stretch', 'stretches')} of {FROZEN_ROWS} or more equal closes with volume.",
        advice="A few are quiet stocks. Many are a feed that repeated its last price: mask those days.",
    )


def repeated_bars(bars: Bars) -> Finding:
    """Bars equal to the stock's bar before in all prices and in volume: a holiday or a hole that was filled up."""
    equal = [pl.col(name) == pl.col(name).shift(1) for name in ("close", "volume", "open", "high", "low", "code")]
    same = bars.traded.filter(pl.all_horizontal(equal).fill_null(False))
    days = same.group_by("date").agg(n=pl.len()).join(bars.calendar.select("date", "traded"), on="date")
    filled = days.filter((pl.col("n") >= REPEATED_CODES) & (pl.col("n") >= REPEATED_SHARE * pl.col("traded")))["date"]
    # A stock that trades a few shares at one price may repeat itself; one with a range cannot.
    hits = same.filter(pl.col("date").is_in(filled.implode()) | (pl.col("high") > pl.col("low")))
    hits = hits.sort(~pl.col("date").is_in(filled.implode()), "date", "code")
    share = hits.height / max(bars.traded.height, 1)
    severity: Severity = "warning" if share > WARN_REPEATED else "info"
    if len(filled) or share > FATAL_REPEATED:
        severity = "fatal"
    first = f", first {filled.sort()[0]}" if len(filled) else ""
    return found(
        "repeated_bars",
        hits.with_columns(detail=pl.format("the bar of {} again", "previous_date")),
        bars.traded.height,
        severity=severity,
        repairs=mask_days(hits),
        summary=f"{plural(hits.height, 'bar')} equal to the day before's in prices and volume; on "
        f"{plural(len(filled), 'day')} most of the market repeats itself{first}.",
        advice="A holiday or a missing day was filled with the day before. Mask these bars; they become halts.",
    )


def short_histories(bars: Bars, window: int, horizon: int) -> Finding:
    """Stocks with too few traded rows for a single sample."""
    need = window + horizon
    rows = bars.traded.group_by("code").agg(n=pl.len(), date=pl.col("date").min()).sort("n", "code")
    hits = rows.filter(pl.col("n") < need).with_columns(detail=pl.format("{} traded rows", "n"))
    return found(
        "short_histories",
        hits,
        rows.height,
        severity="fatal" if hits.height == rows.height else "info",
        summary=f"{percent(hits.height, rows.height)} stocks have fewer than {need} traded rows "
        f"(window {window} + horizon {horizon}) and give no labelled sample.",
        advice="New listings. If nearly all are short, the file covers too little time.",
    )


def _recount(finding: Finding, count: int) -> Finding:
    return replace(finding, count=count)
