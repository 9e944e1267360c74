"""Checks of what trades when: halts, frozen prices, bars that repeat the day before, short histories."""

from __future__ import annotations

from dataclasses import replace

import polars as pl

from lasps.data.integrity.bars import Bars
from lasps.data.integrity.findings import Finding, Severity, found, mask_days, percent, plural

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
