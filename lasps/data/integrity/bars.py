"""The raw table made ready for the checks, once: sorted, with the market's days and moves beyond the price limit."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import polars as pl

from lasps.data.errors import explained
from lasps.data.exchange import beyond_limit
from lasps.data.panel import BAR_COLUMNS, PRICES, is_empty, is_halted, market_calendar, segment_starts

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


@dataclass(frozen=True)
class Bars:
    """Everything the checks of prices look at.

    raw: all rows with a value (`panel.is_empty`), in their order, prices Float64, with the columns `halted` and `row`.
    rows: raw sorted by (code, date), duplicates dropped, with `market_day` (index of the market's own day).
    traded: rows that traded at valid prices, with the previous traded row's close and what lies between.
    starts: the first row in `traded` of every stock, and the number of rows at the end, int64 (stocks + 1,).
    calendar: one row per date: traded and listed codes, is it a market day.
    lives: first and last traded day of every code.
    jumps: moves beyond the price limit, what kind they are and what exempts them.
    """

    raw: pl.DataFrame
    rows: pl.DataFrame
    traded: pl.DataFrame
    starts: np.ndarray
    calendar: pl.DataFrame
    lives: pl.DataFrame
    jumps: pl.DataFrame

    @property
    def place(self) -> np.ndarray:
        """Of each traded row, how many rows of its stock stand before it here: int64 (R,)."""
        return np.arange(self.traded.height) - np.repeat(self.starts[:-1], np.diff(self.starts))

    def read_by_forecast(self, n_rows: int) -> Bars:
        """Only what a forecast of the last day reads: every stock's last `n_rows` traded rows, and as many market days.

        What was found out about the whole history (moves, ranks, lives) stays as it was.
        """
        days = self.calendar.filter("is_market_day")["date"]
        since = days[max(0, len(days) - n_rows)] if len(days) else self.calendar["date"].min()
        reach = self.traded.filter(pl.col("from_end") < n_rows).group_by("code").agg(reach=pl.col("date").min())
        reach = reach.with_columns(reach=pl.min_horizontal("reach", pl.lit(since, pl.Date)))

        def kept(table: pl.DataFrame) -> pl.DataFrame:
            near = table.join(reach, on="code", how="left", maintain_order="left")
            first = pl.col("reach").fill_null(pl.lit(since, pl.Date))
            return near.filter((pl.col("date") >= first).fill_null(True)).drop("reach")

        traded = kept(self.traded)
        return replace(
            self,
            raw=kept(self.raw),
            rows=kept(self.rows),
            traded=traded,
            starts=segment_starts(traded),
            calendar=self.calendar.filter(pl.col("date") >= since),
            jumps=kept(self.jumps),
        )


def prepare(raw: pl.DataFrame) -> Bars:
    """Sort and annotate the raw long table once for all checks.

    Args:
        raw: code, date, open, high, low, close (KRW), volume (shares); other columns are ignored.

    Raises:
        ValueError: missing columns, no rows, or a column whose values are no dates or numbers.
    """
    typed = _typed(raw)
    rows = sort_once(typed)
    calendar = day_table(rows)
    rows = rows.join(calendar.select("date", "market_day"), on="date", maintain_order="left", nulls_equal=True)
    traded = rows.filter(~pl.col("halted") & is_valid())
    starts = segment_starts(traded)
    traded = with_previous(traded, starts)
    life = lives(traded)
    return Bars(typed, rows, traded, starts, calendar, life, level_changes(traded, life))


def _typed(raw: pl.DataFrame) -> pl.DataFrame:
    missing = [c for c in BAR_COLUMNS if c not in raw.columns]
    if missing:
        raise ValueError(f"bars need the columns {list(BAR_COLUMNS)}; missing: {missing}; found: {raw.columns}")
    if raw.height == 0:
        raise ValueError("bars have no rows: the source is empty, or the selection left nothing")
    with explained("the bars", "dates in `date` and numbers in the other columns"):
        typed = raw.select(
            pl.col("code").cast(pl.String),
            pl.col("date").cast(pl.Date),
            pl.col(*PRICES, "volume").cast(pl.Float64).fill_nan(None),
        )
    typed = typed.with_row_index("row").filter(~is_empty()).with_columns(halted=is_halted())
    if typed.height == 0:
        raise ValueError(f"bars have no values: all {raw.height} rows are without prices and volume")
    return typed


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
    open_then = pl.col("date").is_in(days.implode()).fill_null(False)
    return counts.with_columns(listed=listed, is_market_day=open_then, market_day=open_then.cast(pl.Int64).cum_sum())


def with_previous(traded: pl.DataFrame, starts: np.ndarray) -> pl.DataFrame:
    """The rows with previous_close and _date, skipped market days between, rank, from_end, change, next_change."""
    lengths = np.diff(starts)
    rank = np.arange(traded.height) - np.repeat(starts[:-1], lengths)
    from_end = np.repeat(lengths, lengths) - 1 - rank
    traded = traded.with_columns(rank=pl.Series(rank), from_end=pl.Series(from_end))
    later, more = pl.col("rank") > 0, pl.col("from_end") > 0
    traded = traded.with_columns(
        previous_close=pl.when(later).then(pl.col("close").shift(1)),
        previous_date=pl.when(later).then(pl.col("date").shift(1)),
        skipped=pl.when(later).then((pl.col("market_day") - pl.col("market_day").shift(1) - 1).clip(lower_bound=0)),
    ).with_columns(change=pl.col("close") / pl.col("previous_close"))
    return traded.with_columns(next_change=pl.when(more).then(pl.col("change").shift(-1)))
