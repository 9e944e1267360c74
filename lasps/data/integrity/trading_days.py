"""Checks of what trades when: halts, frozen prices, volume outliers, gaps, short histories, the market's calendar."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import polars as pl

from lasps.data.integrity.bars import Bars
from lasps.data.integrity.findings import Finding, Severity, found, percent, plural

FATAL_HALTED = 0.5
"""Share of halted rows from which the volume column must be wrong. Guess: real files have 0.005 to 0.03."""
FROZEN_ROWS = 10
"""Equal closes in a row, each with volume. Guess, not tuned: a dozen cases in three million real rows."""
WARN_FROZEN, FATAL_FROZEN = 0.001, 0.1
"""Shares of rows inside frozen stretches. Guess: real files have 4e-5."""
VOLUME_FACTOR, VOLUME_DAYS = 200.0, 60
"""Volume against the median of the 60 traded rows before. Guess: 5e-4 to 2e-3 of real rows."""
WARN_VOLUME = 0.01
"""Share of volume outliers from which the unit may have changed. Guess, not tuned."""
WARN_GAPS, FATAL_GAPS = 0.01, 0.2
"""Shares of missing rows. Guess: real files have 0 and 0.0012."""
MAX_HOLE_DAYS = 11
"""Calendar days between two market days: the longest KRX holidays (autumn 2017 and 2025) made 11."""


def halts(bars: Bars) -> Finding:
    """Days without trading (volume 0, or open = high = low = 0): not errors, but they are no rows of the panel."""
    halted = bars.rows.filter(pl.col("halted"))
    by_code = halted.group_by("code").agg(n=pl.len(), first=pl.col("date").min(), date=pl.col("date").max())
    by_code = by_code.sort("n", "code", descending=[True, False])
    hits = by_code.with_columns(detail=pl.format("{} halted days from {}", "n", "first"))
    n = bars.rows.height
    finding = found(
        "halts", hits, n, severity="fatal" if halted.height > FATAL_HALTED * n else "info",
        summary=f"{percent(halted.height, n)} rows in {plural(hits.height, 'stock')} are days without trading.",
        advice="Normal; the panel leaves them out and labels across them are flagged. "
        "If most rows are halted, the volume column is empty or was not read.",
    )  # fmt: skip
    return finding if hits.height == 0 else _recount(finding, halted.height)


def frozen_prices(bars: Bars) -> Finding:
    """FROZEN_ROWS or more equal closes in a row although shares were traded: a feed that repeats its last price."""
    stretch = pl.struct("code", "close").rle_id()
    runs = bars.traded.group_by(run=stretch).agg(
        pl.col("code", "close").first(), date=pl.col("date").min(), last=pl.col("date").max(), n=pl.len()
    )  # fmt: skip
    hits = runs.filter(pl.col("n") >= FROZEN_ROWS).sort("n", "code", "date", descending=[True, False, False])
    share = float(hits["n"].sum()) / max(bars.traded.height, 1)
    severity: Severity = "fatal" if share > FATAL_FROZEN else "warning" if share > WARN_FROZEN else "info"
    hits = hits.with_columns(detail=pl.format("{} closes of {} until {}", "n", pl.col("close").round(2), "last"))
    return found(
        "frozen_prices", hits, bars.traded.height, severity=severity,
        summary=f"{plural(hits.height, 'stretch', 'stretches')} of {FROZEN_ROWS} or more equal closes with volume.",
        advice="A few are quiet stocks. Many are a feed that repeated its last price: mask those days.",
    )  # fmt: skip


def volume_outliers(bars: Bars) -> Finding:
    """Volume VOLUME_FACTOR times the median of the stock's 60 traded rows before."""
    traded = bars.traded.with_columns(position=pl.int_range(pl.len()))
    lowest = pl.col("volume").shift(1).rolling_min(VOLUME_DAYS)  # below the median, and quick: few rows are left
    rows = traded.filter((pl.col("rank") >= VOLUME_DAYS) & (pl.col("volume") > VOLUME_FACTOR * lowest))
    before = rows["position"].to_numpy()[:, None] - np.arange(1, VOLUME_DAYS + 1)
    usual = np.median(traded["volume"].to_numpy()[before], axis=1) if rows.height else np.empty(0)
    rows = rows.with_columns(factor=pl.col("volume") / np.maximum(usual, 1.0))
    hits = rows.filter(pl.col("factor") > VOLUME_FACTOR).sort("factor", descending=True)
    detail = pl.format("{} shares, {} x the usual", *(pl.col(c).round(0).cast(pl.Int64) for c in ("volume", "factor")))
    n = bars.traded.height
    severity: Severity = "warning" if hits.height > WARN_VOLUME * n else "info"
    return found(
        "volume_outliers", hits.with_columns(detail=detail), n, severity=severity,
        summary=f"{percent(hits.height, n)} rows with more than {VOLUME_FACTOR:g} times the usual volume.",
        advice="News does that to quiet stocks. Many on one date: the unit changed (shares, thousand shares, KRW).",
    )  # fmt: skip


def calendar_gaps(bars: Bars) -> Finding:
    """Market days between a stock's first and last row on which it has no row at all, not even a halted one."""
    first = {"previous": pl.col("market_day").shift(1), "since": pl.col("date").shift(1)}
    gaps = bars.rows.with_columns(**{name: value.over("code") for name, value in first.items()})
    gaps = gaps.with_columns(missing=pl.col("market_day") - pl.col("previous") - 1).filter(pl.col("missing") > 0)
    hits = gaps.sort("missing", "code", descending=[True, False])
    missing, n = int(hits["missing"].sum()), bars.rows.height
    severity: Severity = "fatal" if missing > FATAL_GAPS * n else "warning" if missing > WARN_GAPS * n else "info"
    hits = hits.with_columns(detail=pl.format("{} market days missing since {}", "missing", "since"))
    finding = found(
        "calendar_gaps", hits, n, severity=severity,
        summary=f"{missing:,} missing rows in {plural(hits['code'].n_unique(), 'stock')} "
        "against the market's own calendar.",
        advice="Some sources leave out halted days; labels across them are flagged. Many: pull these stocks again.",
    )  # fmt: skip
    return finding if hits.height == 0 else _recount(finding, missing)


def calendar_holes(bars: Bars) -> Finding:
    """Dates on which most stocks did not trade, and stretches longer than any holiday without a market day."""
    day = bars.calendar
    quiet = day.filter(~pl.col("is_market_day")).select(
        "date", detail=pl.format("{} of {} stocks traded", "traded", "listed"), order=pl.lit(1)
    )
    market = day.filter(pl.col("is_market_day")).with_columns(gap=pl.col("date").diff().dt.total_days())
    holes = market.filter(pl.col("gap") > MAX_HOLE_DAYS).select(
        "date", detail=pl.format("{} days without a market day before", "gap"), order=pl.lit(0)
    )
    hits = pl.concat([holes, quiet]).sort("order", "date").with_columns(code=pl.lit("market"))
    return found(
        "calendar_holes", hits, day.height, severity="warning",
        summary=f"{plural(quiet.height, 'date')} on which most stocks did not trade, "
        f"{plural(holes.height, 'stretch', 'stretches')} of more than {MAX_HOLE_DAYS} days without a market day.",
        advice="A holiday that was filled up does no harm. A hole means a missing file: download that time again.",
    )  # fmt: skip


def short_histories(bars: Bars, window: int, horizon: int) -> Finding:
    """Stocks with too few traded rows for a single sample."""
    need = window + horizon
    rows = bars.traded.group_by("code").agg(n=pl.len(), date=pl.col("date").min()).sort("n", "code")
    hits = rows.filter(pl.col("n") < need).with_columns(detail=pl.format("{} traded rows", "n"))
    return found(
        "short_histories", hits, rows.height, severity="fatal" if hits.height == rows.height else "info",
        summary=f"{percent(hits.height, rows.height)} stocks have fewer than {need} traded rows "
        f"(window {window} + horizon {horizon}) and give no labelled sample.",
        advice="New listings. If nearly all are short, the file covers too little time.",
    )  # fmt: skip


def _recount(finding: Finding, count: int) -> Finding:
    return replace(finding, count=count)
