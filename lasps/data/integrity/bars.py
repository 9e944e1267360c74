"""The raw table made ready for the checks, and the checks of single rows: keys, ranges, prices."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date, datetime

import polars as pl

from lasps.data.integrity.findings import Finding, Severity, found, mask_days, percent, plural
from lasps.data.panel import BAR_COLUMNS, PRICES, ROUNDING, is_empty, is_halted, market_calendar
from lasps.data.signs import SIGNS, carries_signs

FATAL_OUTSIDE = 0.01
"""Share of rows with a price outside low..high from which a file is unusable. Guess: real files have 1e-4."""
FATAL_OUTSIDE_YEAR = 0.05
"""The same within one calendar year of at least MIN_YEAR_ROWS rows. Guess, not tuned."""
MIN_YEAR_ROWS = 100
MOST_ROWS = 0.5
"""Share of unusable rows from which single days are not the matter. Guess, not tuned."""
FLOAT32_SLACK = 1e-6
"""Relative slack of a comparison of prices that were stored as float32."""
SPLIT_FACTOR = 1.2
"""A close this far from the middle of its bar is on another scale. Guess; the price limit allows 1.3 within a day."""


@dataclass(frozen=True)
class Bars:
    """Everything the checks of prices look at.

    raw: all rows with a value (`panel.is_empty`), in their order, prices Float64, with the columns `halted` and `row`.
    rows: raw sorted by (code, date), duplicates dropped, with `market_day` (index of the market's own day).
    traded: rows that traded at valid prices, with the previous traded row's close and what lies between.
    calendar: one row per date: traded and listed codes, is it a market day.
    """

    raw: pl.DataFrame
    rows: pl.DataFrame
    traded: pl.DataFrame
    calendar: pl.DataFrame


def prepare(raw: pl.DataFrame) -> Bars:
    """Sort and annotate the raw long table once for all checks.

    Args:
        raw: code, date, open, high, low, close (KRW), volume (shares); other columns are ignored.

    Raises:
        ValueError: missing columns, no rows, or a column whose values are no dates or numbers.
    """
    missing = [c for c in BAR_COLUMNS if c not in raw.columns]
    if missing:
        raise ValueError(f"bars need the columns {list(BAR_COLUMNS)}; missing: {missing}; found: {raw.columns}")
    if raw.height == 0:
        raise ValueError("bars have no rows: the source is empty, or the selection left nothing")
    try:
        typed = raw.select(
            pl.col("code").cast(pl.String), pl.col("date").cast(pl.Date),
            pl.col(*PRICES, "volume").cast(pl.Float64).fill_nan(None),
        )  # fmt: skip
    except pl.exceptions.PolarsError as error:
        raise ValueError(f"bars need dates in `date` and numbers in the other columns: {error}") from error
    typed = typed.with_row_index("row").filter(~is_empty()).with_columns(halted=is_halted())
    if typed.height == 0:
        raise ValueError(f"bars have no values: all {raw.height} rows are without prices and volume")
    rows = sort_once(typed)
    calendar = day_table(rows)
    rows = rows.join(calendar.select("date", "market_day"), on="date", maintain_order="left")
    return Bars(typed, rows, with_previous(rows), calendar)


def sort_once(typed: pl.DataFrame) -> pl.DataFrame:
    """Sorted by (code, date), the first row of every key; a table that is in order already is not sorted again."""
    unsorted = typed.select(out_of_order().any()).item()
    ordered = typed.sort("code", "date", maintain_order=True) if unsorted else typed
    again = (pl.col("code") == pl.col("code").shift(1)) & (pl.col("date") == pl.col("date").shift(1))
    return ordered.filter(~again.fill_null(False))


def out_of_order() -> pl.Expr:
    """True for a row whose key is smaller than that of the row before it."""
    code, day = pl.col("code"), pl.col("date")
    return ((code < code.shift(1)) | ((code == code.shift(1)) & (day < day.shift(1)))).fill_null(False)


def is_valid() -> pl.Expr:
    """True for a row whose four prices are finite and positive."""
    return pl.all_horizontal(pl.col(c).is_finite() & (pl.col(c) > 0) for c in PRICES).fill_null(False)


def day_table(rows: pl.DataFrame) -> pl.DataFrame:
    """Per date: codes that have a row, traded, are between their first and last row; is it a market day, its number.

    Market days are those of `market_calendar`, as for the labels.
    """
    per_date = rows.group_by("date").agg(present=pl.len(), traded=(~pl.col("halted")).sum()).sort("date")
    life = rows.group_by("code").agg(first=pl.col("date").min(), last=pl.col("date").max())
    starts = life.group_by(date="first").agg(starts=pl.len())
    ends = life.group_by(date="last").agg(ends=pl.len())
    counts = (
        per_date.join(starts, on="date", how="left")
        .join(ends, on="date", how="left")
        .sort("date")
        .with_columns(pl.col("starts", "ends").fill_null(0).cast(pl.Int64))
    )
    listed = pl.col("starts").cum_sum() - pl.col("ends").cum_sum() + pl.col("ends")
    days = pl.Series(market_calendar(rows.filter(~pl.col("halted"))), dtype=pl.Date)
    open_then = pl.col("date").is_in(days.implode())
    return counts.with_columns(listed=listed, is_market_day=open_then, market_day=open_then.cast(pl.Int64).cum_sum())


def with_previous(rows: pl.DataFrame) -> pl.DataFrame:
    """Traded rows with previous_close and _date, skipped market days between, rank, from_end, change, next_change."""
    traded = rows.filter(~pl.col("halted") & is_valid())
    by_code = {"previous_close": pl.col("close").shift(1), "previous_date": pl.col("date").shift(1)}
    traded = traded.with_columns(
        **{name: value.over("code") for name, value in by_code.items()},
        skipped=(pl.col("market_day") - pl.col("market_day").shift(1).over("code") - 1).clip(lower_bound=0),
        rank=pl.int_range(pl.len()).over("code"),
        from_end=(pl.len().over("code") - 1).cast(pl.Int64) - pl.int_range(pl.len()).over("code"),
    ).with_columns(change=pl.col("close") / pl.col("previous_close"))
    return traded.with_columns(next_change=pl.col("change").shift(-1).over("code"))


# --- checks -----------------------------------------------------------------------------------------------------


def duplicate_keys(bars: Bars) -> Finding:
    """Two rows of one (code, date)."""
    n_keys = bars.rows.height
    if n_keys == bars.raw.height:
        return found("duplicate_keys", bars.raw.head(0), n_keys, severity="info", summary="")
    keys = bars.raw.group_by("code", "date").agg(n=pl.len(), closes=pl.col("close").n_unique())
    hits = keys.filter(pl.col("n") > 1).sort("closes", "code", "date", descending=[True, False, False])
    differ = hits.filter(pl.col("closes") > 1).height
    hits = hits.with_columns(detail=pl.format("{} rows, {} different closes", "n", "closes"))
    return found(
        "duplicate_keys", hits, n_keys, severity="fatal",
        summary=f"{plural(hits.height, 'key')} (code, date) more than once, {differ} of them with different closes.",
        advice="Two files were probably joined; keep one (repair drop_row with keep_first) or read only one of them.",
        repairs=tuple({"repair": "drop_row", "code": r["code"], "date": str(r["date"]), "keep_first": True}
                      for r in hits.iter_rows(named=True)),
    )  # fmt: skip


def unsorted_keys(bars: Bars) -> Finding:
    """Stocks whose dates run both ways in the file: the sign of joined files. The panel is sorted anyway.

    Newest first, or one block of all stocks per day, is an order too and asks nobody anything.
    """
    keys = bars.raw.select("code", "date", "row")
    if not keys.select(out_of_order().any()).item():
        return found("unsorted_keys", keys.head(0), bars.raw.height, severity="info", summary="")
    step = pl.col("date").diff().over("code").dt.total_days()
    down, up = (pl.col("step") < 0).sum().over("code"), (pl.col("step") > 0).sum().over("code")
    rarer = pl.when(down <= up).then(pl.col("step") < 0).otherwise(pl.col("step") > 0)
    hits = keys.with_columns(step=step).filter((down > 0) & (up > 0) & rarer.fill_null(False))
    hits = hits.with_columns(detail=pl.format("row {}: its dates turn back here", "row"))
    return found(
        "unsorted_keys", hits, bars.raw.height, severity="warning",
        summary=f"{plural(hits['code'].n_unique(), 'stock')} with dates that run forwards and backwards.",
        advice="The panel sorts them. Check that the file is one pull and not several put together.",
    )  # fmt: skip


def malformed_codes(bars: Bars) -> Finding:
    """Codes that are not six characters of digits and capitals, as an index that slipped into the file."""
    codes = bars.rows.group_by("code").agg(date=pl.col("date").min(), n=pl.len()).sort("code")
    hits = codes.filter(~pl.col("code").str.contains(r"^[0-9A-Z]{6}$").fill_null(False))
    hits = hits.with_columns(detail=pl.format("{} rows", "n"))
    severity: Severity = "fatal" if hits.height * 2 > codes.height else "warning"
    return found(
        "malformed_codes", hits, codes.height, severity=severity,
        summary=f"{plural(hits.height, 'code')} not six characters long.",
        advice="Indices and the like leave with the universe (no industry). Codes that lost their zeros: --pad-codes.",
    )  # fmt: skip


def non_positive_prices(bars: Bars) -> Finding:
    """Null, NaN, infinite, zero or negative prices on a day that traded, or such a volume; halted days are exempt."""
    bad_volume = ~(pl.col("volume").is_finite() & (pl.col("volume") >= 0)).fill_null(False)
    hits = bars.rows.filter(~pl.col("halted") & (~is_valid() | bad_volume)).with_columns(detail=_bar())
    n = bars.rows.height
    most = hits.height > MOST_ROWS * n
    advice = "Mask the day (it becomes a halt) or pull the stock again."
    if carries_signs(bars.rows):
        advice = SIGNS
    elif most:
        advice = "That is no matter of single days: the columns or the source are wrong. Read the file again."
    return found(
        "non_positive_prices", hits, n, severity="fatal",
        summary=f"{percent(hits.height, n)} rows have a price that is missing, zero or negative on a traded day.",
        advice=advice, repairs=() if most or advice == SIGNS else mask_days(hits),
    )  # fmt: skip


def prices_outside_range(bars: Bars) -> Finding:
    """Open or close outside low..high on a traded day, or low above high; says by how much and, if it can, why."""
    slack = FLOAT32_SLACK * pl.col("high")
    excess = pl.max_horizontal(
        pl.col("close") - pl.col("high"), pl.col("low") - pl.col("close"),
        pl.col("open") - pl.col("high"), pl.col("low") - pl.col("open"), pl.col("low") - pl.col("high"),
    )  # fmt: skip
    hits = bars.traded.with_columns(excess=excess, relative=excess / pl.col("close")).filter(pl.col("excess") > slack)
    hits = hits.sort("relative", descending=True)
    n, severity = bars.traded.height, _outside_severity(bars.traded, hits)
    mid = 100 * float(hits["relative"].median() or 0) if hits.height else 0.0  # type: ignore[arg-type]
    summary = f"{percent(hits.height, n)} traded rows have open or close outside low..high, by {mid:.2g} % (median)."
    advice = "A won of rounding is harmless. Larger: the row mixes adjusted and unadjusted prices; mask the day."
    repairs = mask_days(hits.filter(pl.col("relative") > ROUNDING))
    if _splits_missed_the_close(hits):
        advice = (
            "Diagnosis: splits were applied to open, high and low only, the closes are on the old scale (known of "
            "Yahoo's KRX files). Use another source, or rescale the closes before each split (rescale_segment with "
            "columns=['close']; scale_breaks suggests the ratios)."
        )
        repairs = ()
    details = pl.format("{} (outside by {} %)", _bar(), (100 * pl.col("relative")).round(2))
    return found("prices_outside_range", hits.with_columns(detail=details), n, severity=severity,
                 summary=summary, advice=advice, repairs=repairs)  # fmt: skip


def _outside_severity(traded: pl.DataFrame, hits: pl.DataFrame) -> Severity:
    if hits.height > FATAL_OUTSIDE * traded.height:
        return "fatal"
    rows = traded.group_by(year=pl.col("date").dt.year()).agg(n=pl.len())
    bad = hits.group_by(year=pl.col("date").dt.year()).agg(bad=pl.len())
    by_year = rows.join(bad, on="year").filter(pl.col("n") >= MIN_YEAR_ROWS)
    share = (by_year["bad"] / by_year["n"]).max() or 0.0
    return "fatal" if float(share) > FATAL_OUTSIDE_YEAR else "warning"  # type: ignore[arg-type]


def _splits_missed_the_close(hits: pl.DataFrame) -> bool:
    """True where it is nearly always the close alone that lies outside, by far more than a day can move."""
    if hits.height == 0:
        return False
    open_inside = (pl.col("open") <= pl.col("high") * (1 + FLOAT32_SLACK)) & (
        pl.col("open") >= pl.col("low") * (1 - FLOAT32_SLACK)
    )
    ratio = pl.col("close") / ((pl.col("high") + pl.col("low")) / 2)
    far = (ratio > SPLIT_FACTOR) | (ratio < 1 / SPLIT_FACTOR)
    return float(hits.select((open_inside & far).mean()).item()) > 0.8


def stray_dates(bars: Bars, today: date | None = None) -> Finding:
    """Rows on a Saturday or Sunday or in the future."""
    today = today or datetime.now().date()
    hits = bars.rows.filter((pl.col("date").dt.weekday() > 5) | (pl.col("date") > today) | pl.col("date").is_null())
    hits = hits.with_columns(detail=pl.when(pl.col("date") > today).then(pl.lit("future")).otherwise(pl.lit("weekend")))
    return found(
        "stray_dates", hits, bars.rows.height, severity="warning",
        summary=f"{plural(hits.height, 'row')} on a weekend or in the future.",
        advice="Time zones shifted the dates, or day and month were swapped. Read the source's dates again.",
    )  # fmt: skip


def _bar() -> pl.Expr:
    values = (pl.col(c).cast(pl.String).fill_null("none") for c in (*PRICES, "volume"))
    return pl.format("o {} h {} l {} c {} v {}", *values)
