"""Checks of single rows of the raw table: keys, codes, prices inside their range."""

from __future__ import annotations

import polars as pl

from lasps.data.integrity.bars import Bars, is_valid, out_of_order
from lasps.data.integrity.findings import Finding, Severity, found, mask_days, percent, plural
from lasps.data.panel import PRICES, ROUNDING
from lasps.data.signs import SIGNS, carries_signs

FATAL_OUTSIDE = 0.01
"""Share of rows with a price outside low..high from which a file is unusable. Guess: real files have 1e-4."""
FATAL_OUTSIDE_YEAR = 0.05
"""The same within one calendar year of at least MIN_YEAR_ROWS rows. Guess, not tuned."""
MIN_YEAR_ROWS = 100
MOST_ROWS = 0.5
"""Share of unusable rows from which single days are not the matter. Guess, not tuned."""
INTRADAY_SHARE, INTRADAY_BARS = 0.5, 3
"""Share of stock days with several bars, and how many at the median, that make a file intraday. Guess, not tuned."""
FLOAT32_SLACK = 1e-6
"""Relative slack of a comparison of prices that were stored as float32."""
SPLIT_FACTOR = 1.2
"""A close this far from the middle of its bar is on another scale. Guess; the price limit allows 1.3 within a day."""


def duplicate_keys(bars: Bars) -> Finding:
    """Two rows of one (code, date)."""
    n_keys = bars.rows.height
    if n_keys == bars.raw.height:
        return found("duplicate_keys", bars.raw.head(0), n_keys, severity="info", summary="")
    keys = bars.raw.group_by("code", "date").agg(n=pl.len(), closes=pl.col("close").n_unique())
    hits = keys.filter(pl.col("n") > 1).sort("closes", "code", "date", descending=[True, False, False])
    differ = hits.filter(pl.col("closes") > 1).height
    hits = hits.with_columns(detail=pl.format("{} rows, {} different closes", "n", "closes"))
    usual = float(hits["n"].median() or 0)  # type: ignore[arg-type]
    if differ > INTRADAY_SHARE * n_keys and usual >= INTRADAY_BARS:
        return found(
            "duplicate_keys",
            hits,
            n_keys,
            severity="fatal",
            summary=f"{percent(hits.height, n_keys)} days of a stock have several bars, half of them "
            f"{usual:g} or more.",
            advice="These are bars of hours or minutes. Make daily bars of them first: the first open, the highest "
            "high, the lowest low, the last close and the sum of the volume of each stock and day.",
        )
    return found(
        "duplicate_keys",
        hits,
        n_keys,
        severity="fatal",
        summary=f"{plural(hits.height, 'key')} (code, date) more than once, {differ} of them with different closes.",
        advice="Two files were probably joined; keep one (repair drop_row with keep_first) or read only one of them.",
        repairs=tuple(
            {"repair": "drop_row", "code": r["code"], "date": str(r["date"]), "keep_first": True}
            for r in hits.iter_rows(named=True)
        ),
    )


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
        "unsorted_keys",
        hits,
        bars.raw.height,
        severity="warning",
        summary=f"{plural(hits['code'].n_unique(), 'stock')} with dates that run forwards and backwards.",
        advice="The panel sorts them. Check that the file is one pull and not several put together.",
    )


def malformed_codes(bars: Bars) -> Finding:
    """Codes that are not six characters of digits and capitals, as an index that slipped into the file."""
    codes = bars.rows.group_by("code").agg(date=pl.col("date").min(), n=pl.len()).sort("code")
    hits = codes.filter(~pl.col("code").str.contains(r"^[0-9A-Z]{6}$").fill_null(False))
    hits = hits.with_columns(detail=pl.format("{} rows", "n"))
    severity: Severity = "fatal" if hits.height * 2 > codes.height else "warning"
    return found(
        "malformed_codes",
        hits,
        codes.height,
        severity=severity,
        summary=f"{plural(hits.height, 'code')} not six characters long.",
        advice="Indices and the like leave with the universe (no industry). Codes that lost their zeros: --pad-codes.",
    )


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
        "non_positive_prices",
        hits,
        n,
        severity="fatal",
        summary=f"{percent(hits.height, n)} rows have a price that is missing, zero or negative on a traded day.",
        advice=advice,
        repairs=() if most or advice == SIGNS else mask_days(hits),
    )


def prices_outside_range(bars: Bars) -> Finding:
    """Open or close outside low..high on a traded day, or low above high; says by how much and, if it can, why."""
    slack = FLOAT32_SLACK * pl.col("high")
    excess = pl.max_horizontal(
        pl.col("close") - pl.col("high"),
        pl.col("low") - pl.col("close"),
        pl.col("open") - pl.col("high"),
        pl.col("low") - pl.col("open"),
        pl.col("low") - pl.col("high"),
    )
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
    return found(
        "prices_outside_range",
        hits.with_columns(detail=details),
        n,
        severity=severity,
        summary=summary,
        advice=advice,
        repairs=repairs,
    )


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


def _bar() -> pl.Expr:
    values = (pl.col(c).cast(pl.String).fill_null("none") for c in (*PRICES, "volume"))
    return pl.format("o {} h {} l {} c {} v {}", *values)
