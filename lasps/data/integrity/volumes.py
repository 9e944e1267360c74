"""Checks of volume: outliers, levels that change with a price adjustment, volume that is missing on traded days."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import polars as pl

from lasps.data.exchange import OLD_TICK_BORDERS, TICK_BORDERS, tick_size
from lasps.data.integrity.bars import RELISTING_GAP, Bars
from lasps.data.integrity.findings import Finding, Severity, found, percent, plural

VOLUME_FACTOR, VOLUME_DAYS = 200.0, 60
"""Volume against the median of the 60 traded rows before. Guess: 5e-4 to 2e-3 of real rows."""
WARN_VOLUME = 0.01
"""Share of volume outliers from which the unit may have changed. Guess, not tuned."""

LEVEL_ROWS = 20
"""Rows on either side whose median volumes are compared. Guess, not tuned."""
STEP_BLOCK, STEP_BLOCKS = 10, 3
"""Levels are looked for by the medians of blocks of 10 rows, three on either side. Guess, not tuned."""
FATAL_EVENTS, FATAL_STEPS = 0.02, 0.2
"""Shares of stocks from which a build stops (never for one stock). Guess: clean real files have 0.003 to 0.006 and
0.01 to 0.05."""
LAST_OLD_TICK = np.datetime64("2023-01-25")
KOSDAQ_LARGEST_TICK = 100.0
"""Before 2023 KOSDAQ's ticks ended at 100 won; a file seldom says which market a row is of."""
SPLITS = (2, 3, 4, 5, 8, 10, 15, 20, 25, 30, 40, 50, 100)
"""Factors of splits and capital reductions, for the suggested repair."""

WARN_UNREAD, FATAL_UNREAD = 5e-4, 0.01
"""Shares of rows with volume 0 and prices that moved. Guess: real files have 0 and 1.2e-4."""


@dataclass(frozen=True)
class Rule:
    """How large and how clear a change of level must be: by `least` at the medians of `rows` rows on either side, and
    the `quantile` of the higher side above the opposite one of the lower side by at least the share `apart` of it.
    """

    least: float
    rows: int
    quantile: float
    apart: float
    why: str


ADJUSTED = Rule(8.0, LEVEL_ROWS, 0.25, 0.5, "where prices were adjusted or the stock had rested")
"""95 % of some 900 inferred adjustments in real files change volume by less than 6. Guess after looking at the rest."""
UNEXPLAINED = Rule(12.0, STEP_BLOCK * STEP_BLOCKS, 0.0, 0.2, "nothing in the prices says why")
"""News makes large steps too, so no row may overlap: 1 to 5 % of the stocks of real files remain. Guess."""


def volume_outliers(bars: Bars) -> Finding:
    """Volume VOLUME_FACTOR times the median of the stock's 60 traded rows before."""
    volume = bars.traded["volume"].to_numpy()
    lowest = pl.Series(volume).shift(1).rolling_min(VOLUME_DAYS).to_numpy()  # below the median, and quick
    rows = np.flatnonzero((bars.place >= VOLUME_DAYS) & (volume > VOLUME_FACTOR * lowest))
    usual = np.median(volume[rows[:, None] - np.arange(1, VOLUME_DAYS + 1)], axis=1) if len(rows) else np.empty(0)
    hits = bars.traded[rows].with_columns(factor=pl.col("volume") / np.maximum(usual, 1.0))
    hits = hits.filter(pl.col("factor") > VOLUME_FACTOR).sort("factor", descending=True)
    detail = pl.format("{} shares, {} x the usual", *(pl.col(c).round(0).cast(pl.Int64) for c in ("volume", "factor")))
    n = bars.traded.height
    severity: Severity = "warning" if hits.height > WARN_VOLUME * n else "info"
    return found(
        "volume_outliers",
        hits.with_columns(detail=detail),
        n,
        severity=severity,
        summary=f"{percent(hits.height, n)} rows with more than {VOLUME_FACTOR:g} times the usual volume.",
        advice="News does that to quiet stocks. Many on one date: the unit changed (shares, thousand shares, KRW).",
    )


def volume_levels(bars: Bars) -> Finding:
    """Volume whose level changes many-fold and stays: raw volume beside prices that were adjusted for a split.

    Where a price adjustment can be inferred (prices leave the exchange's ticks before a day and keep them from it on,
    or the stock rested for days as at a split) a smaller step is enough than elsewhere (`ADJUSTED`, `UNEXPLAINED`).
    """
    volume = np.log(np.maximum(bars.traded["volume"].to_numpy(), 1.0))
    adjusted = _levels(bars, volume, _adjustments(bars), ADJUSTED)
    others = _levels(bars, volume, _steps(volume, bars), UNEXPLAINED).join(adjusted, on="code", how="anti")
    hits = pl.concat([table.sort("size", descending=True) for table in (adjusted, others)])
    n_codes = len(bars.starts) - 1
    counts = [table["code"].n_unique() for table in (adjusted, others)]
    fatal = any(n > max(1, share * n_codes) for n, share in zip(counts, (FATAL_EVENTS, FATAL_STEPS), strict=True))
    severity: Severity = "fatal" if fatal else "warning" if counts[0] else "info"
    return found(
        "volume_levels",
        hits,
        n_codes,
        severity=severity,
        repairs=_volume_repairs(hits if fatal else adjusted),
        summary=f"{plural(sum(counts), 'stock')} of {n_codes:,} with volume on another level from a day on: "
        f"{counts[0]} where prices were adjusted or the stock had rested, {counts[1]} elsewhere.",
        advice="Sources that adjust prices for a split often leave the volume as it was. Pull adjusted volume, or "
        "rescale it before the day (repair rescale_segment with columns=['volume']; put the split's true ratio in "
        "place of the suggested one). A few elsewhere are news.",
    )


def _adjustments(bars: Bars) -> np.ndarray:
    """Rows in `traded` on which a price adjustment can be inferred to end."""
    after_halt = np.flatnonzero(bars.traded["skipped"].fill_null(0).to_numpy() >= RELISTING_GAP)
    off = np.concatenate([[0], np.cumsum(_off_the_ticks(bars))])
    row = np.arange(LEVEL_ROWS, bars.traded.height - LEVEL_ROWS + 1)
    before, after = off[row] - off[row - LEVEL_ROWS], off[row + LEVEL_ROWS] - off[row]
    turns = row[(before * 2 >= LEVEL_ROWS) & (after == 0) & (off[row] > off[row - 1])]
    return np.union1d(after_halt, turns)


def _off_the_ticks(bars: Bars) -> np.ndarray:
    """Closes that no order could have made: bool (R,)."""
    close, dates = bars.traded["close"].to_numpy(), bars.traded["date"].to_numpy()
    old = np.minimum(tick_size(close, OLD_TICK_BORDERS), KOSDAQ_LARGEST_TICK)
    tick = np.where(dates < LAST_OLD_TICK, old, tick_size(close, TICK_BORDERS))
    return np.abs(close - tick * np.round(close / tick)) > 1e-6 * close


def _steps(volume: np.ndarray, bars: Bars) -> np.ndarray:
    """Rows from which on log-volume lies on another level, by the medians of blocks of STEP_BLOCK rows."""
    firsts = np.concatenate(
        [np.arange(a, b - STEP_BLOCK + 1, STEP_BLOCK) for a, b in zip(bars.starts[:-1], bars.starts[1:], strict=True)]
        or [np.empty(0, np.int64)]
    )
    if len(firsts) < 2 * STEP_BLOCKS + 1:
        return np.empty(0, np.int64)
    medians = np.median(volume[firsts[:, None] + np.arange(STEP_BLOCK)], axis=1)
    around = np.lib.stride_tricks.sliding_window_view(medians, 2 * STEP_BLOCKS + 1)
    before, after = around[:, :STEP_BLOCKS], around[:, STEP_BLOCKS + 1 :]
    up, down = after.min(1) - before.max(1), before.min(1) - after.max(1)
    one_stock = firsts[2 * STEP_BLOCKS :] - firsts[: len(around)] == 2 * STEP_BLOCKS * STEP_BLOCK
    wide = np.maximum(up, down) > np.log(UNEXPLAINED.least / 2)
    middle = firsts[STEP_BLOCKS : STEP_BLOCKS + len(around)][wide & one_stock]
    return np.unique([_sharpest(volume, first, first + STEP_BLOCK + 1) for first in middle]).astype(np.int64)


def _sharpest(volume: np.ndarray, first: int, end: int) -> int:
    """The row in first..end-1 at which the means of the LEVEL_ROWS before and after it differ most."""
    rows = np.arange(first, end)
    rows = rows[(rows >= LEVEL_ROWS) & (rows + LEVEL_ROWS <= len(volume))]
    return int(rows[np.argmax(np.abs(_means(volume, rows, 0) - _means(volume, rows, -LEVEL_ROWS)))])


def _means(volume: np.ndarray, rows: np.ndarray, offset: int) -> np.ndarray:
    return np.mean(volume[rows[:, None] + np.arange(offset, offset + LEVEL_ROWS)], axis=1)


def _levels(bars: Bars, volume: np.ndarray, rows: np.ndarray, rule: Rule) -> pl.DataFrame:
    """code, date, ratio, size and detail of those rows whose level changes as the rule says; a code's largest."""
    inside = (bars.place[rows] >= rule.rows) & (bars.traded["from_end"].to_numpy()[rows] >= rule.rows - 1)
    rows = rows[inside]
    after, before = (volume[rows[:, None] + np.arange(first, first + rule.rows)] for first in (0, -rule.rows))
    low, high = rule.quantile, 1 - rule.quantile
    change = np.median(after, axis=1) - np.median(before, axis=1) if len(rows) else np.empty(0)
    apart = (
        np.maximum(
            np.quantile(after, low, axis=1) - np.quantile(before, high, axis=1),
            np.quantile(before, low, axis=1) - np.quantile(after, high, axis=1),
        )
        if len(rows)
        else np.empty(0)
    )
    chosen = (apart > rule.apart * np.abs(change)) & (np.abs(change) >= np.log(rule.least))
    ratio = pl.Series(np.exp(change[chosen]), dtype=pl.Float64)
    hits = bars.traded[rows[chosen]].select("code", "date", ratio=ratio, size=ratio.log().abs())
    hits = hits.sort("size", descending=True).unique("code", keep="first", maintain_order=True)
    times = pl.col("ratio").round(3)
    return hits.with_columns(detail=pl.format("volume x {} from here on: {}", times, pl.lit(rule.why)))


def _volume_repairs(hits: pl.DataFrame) -> tuple[dict[str, object], ...]:
    """A rescale_segment of the volume before each hit, by the nearest ratio of a split."""
    return tuple(
        {
            "repair": "rescale_segment",
            "code": r["code"],
            "before": str(r["date"]),
            "columns": ["volume"],
            "ratio": _split_near(r["ratio"]),
        }
        for r in hits.iter_rows(named=True)
    )


def _split_near(ratio: float) -> float:
    """The volume before is divided by it: 0.02 where volume became 50 times as much."""
    size = min(SPLITS, key=lambda n: abs(np.log(n) - abs(np.log(ratio))))
    return 1 / size if ratio > 1 else float(size)


def unread_volume(bars: Bars) -> Finding:
    """Rows with volume 0 whose prices moved within the day: they traded, and the panel would drop them as halts."""
    moved = (pl.col("volume") == 0) & (pl.col("low") > 0) & (pl.col("high") > pl.col("low"))
    hits = bars.rows.filter(moved.fill_null(False))
    hits = hits.with_columns(detail=pl.format("volume 0, low {} to high {}", "low", "high"))
    n = bars.rows.height
    share = hits.height / max(n, 1)
    severity: Severity = "fatal" if share > FATAL_UNREAD else "warning" if share > WARN_UNREAD else "info"
    return found(
        "unread_volume",
        hits,
        n,
        severity=severity,
        summary=f"{percent(hits.height, n)} rows have volume 0 although their prices moved.",
        advice="Days with trading lost their volume; the panel takes them for halts and drops them. Pull the volume "
        "again, or accept the halts by waiving this check.",
    )
