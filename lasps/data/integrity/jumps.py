"""Closes that jump beyond the price limit: what the exchange allows, and which of them set a new level."""

from __future__ import annotations

import numpy as np
import polars as pl

from lasps.data.exchange import beyond_limit

LIQUIDATION_ROWS = 7
"""KRX lets a stock that leaves the exchange trade for seven days without a limit."""
FIRST_LISTING_ROWS = 5
"""Traded rows after a listing inside the file that are listed apart, not counted. Guess, not tuned."""
RELISTING_GAP = 3
"""Market days without trading after which the base price may be set anew: a split halted Samsung three days in 2018."""
STAY_DAYS = 5
"""Rows on both sides whose median closes tell a new level from a stray day. Guess, not tuned."""


def lives(traded: pl.DataFrame) -> pl.DataFrame:
    """Per code: first and last traded day, and whether a long halt lies within its last rows (`late_halt`)."""
    return traded.group_by("code").agg(
        first=pl.col("date").min(),
        last=pl.col("date").max(),
        late_halt=((pl.col("skipped") > RELISTING_GAP) & (pl.col("from_end") < LIQUIDATION_ROWS)).any(),
    )


def exemption(hits: pl.DataFrame, life: pl.DataFrame) -> pl.Series:
    """Why a move may be larger than the limit, or null."""
    start, end = pl.lit(life["first"].min(), pl.Date), pl.lit(life["last"].max(), pl.Date)
    known = hits.join(life, on="code", how="left", maintain_order="left")
    leaves = (pl.col("last") < end) | pl.col("late_halt").fill_null(False)
    return known.select(
        exempt=pl.when((pl.col("from_end") < LIQUIDATION_ROWS) & leaves)
        .then(pl.lit("liquidation trading"))
        .when(pl.col("skipped") >= RELISTING_GAP)
        .then(pl.format("after {} market days without trading", "skipped"))
        .when((pl.col("rank") < FIRST_LISTING_ROWS) & (pl.col("first") > start))
        .then(pl.lit("first listing days"))
    )["exempt"]


def level_changes(traded: pl.DataFrame, life: pl.DataFrame) -> pl.DataFrame:
    """Rows whose close lies beyond the limit around the previous traded close by more than rounding.

    Returns:
        The rows with `exempt` (why the limit did not hold, or null), `detail`, `ratio`, `factor` >= 1, and `kind`:
        overnight or halt (the level stays), stray day (it is back the next day), passing, or liquidation.
    """
    columns = (traded[name].to_numpy() for name in ("close", "previous_close", "date"))
    rows = np.flatnonzero(beyond_limit(*columns))
    jumps = traded[rows].with_columns(exempt=exemption(traded[rows], life), detail=move())
    closes = traded["close"].to_numpy()
    jumps = jumps.with_columns(
        after=_median_close(closes, rows, jumps, range(STAY_DAYS)),
        before=_median_close(closes, rows, jumps, range(-STAY_DAYS, 0)),
    )
    log_jump, log_level = pl.col("change").log(), (pl.col("after") / pl.col("before")).log()
    stays = (log_level * log_jump.sign()) > 0.5 * log_jump.abs()
    returns = (log_jump + pl.col("next_change").log()).abs() < 0.25 * log_jump.abs()
    return jumps.with_columns(ratio=pl.col("change"), factor=log_jump.abs().exp()).with_columns(
        kind=pl.when(pl.col("exempt").fill_null("") == "liquidation trading")
        .then(pl.lit("liquidation"))
        .when(returns.fill_null(False))
        .then(pl.lit("stray day"))
        .when(~stays)
        .then(pl.lit("passing"))
        .when(pl.col("skipped") >= RELISTING_GAP)
        .then(pl.lit("halt"))
        .otherwise(pl.lit("overnight"))
    )


def _median_close(closes: np.ndarray, at: np.ndarray, jumps: pl.DataFrame, offsets: range) -> pl.Series:
    """Median close over the rows at `offsets` from each jump that belong to the same stock."""
    if len(at) == 0:
        return pl.Series([], dtype=pl.Float64)
    steps = np.asarray(offsets)
    inside = (steps >= -jumps["rank"].to_numpy()[:, None]) & (steps <= jumps["from_end"].to_numpy()[:, None])
    rows = np.where(inside, at[:, None] + steps, 0)
    return pl.Series(np.nanmedian(np.where(inside, closes[rows], np.nan), axis=1))


def move() -> pl.Expr:
    """A jump in words: "1000.0 -> 500.0 (-50.0 %) since 2020-03-02"."""
    percent_move = (100 * (pl.col("change") - 1)).round(1)
    close, last = pl.col("close").round(2), pl.col("previous_close").round(2)
    return pl.format("{} -> {} ({} %) since {}", last, close, percent_move, "previous_date")
