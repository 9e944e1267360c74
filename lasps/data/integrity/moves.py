"""Checks of moves from one day to the next: price limits, breaks of scale, single days on another scale."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import polars as pl

from lasps.data.exchange import OLD_TICK_BORDERS, RELATIVE_SLACK, beyond_limit, price_limit, tick_size
from lasps.data.integrity.bars import SPLIT_FACTOR, Bars
from lasps.data.integrity.findings import Finding, Severity, found, mask_days, percent, plural

LIQUIDATION_ROWS = 7
"""KRX lets a stock that leaves the exchange trade for seven days without a limit."""
FIRST_LISTING_ROWS = 5
"""Traded rows after a listing inside the file that are listed apart, not counted. Guess, not tuned."""
RELISTING_GAP = 3
"""Market days without trading after which the base price may be set anew: a split halted Samsung three days in 2018."""

FATAL_MOVE_SHARE = 5e-4
"""Share of moves beyond the limit from which the adjustment as a whole is wrong. Guess: real files have 3e-5."""
FATAL_CODE_SHARE = 0.0025
"""Share of stocks with a large break or stray day from which a build stops. Guess: real files have 0.0014."""
LARGE_RATIO = 1.6
"""Overnight factor that no stock under a 30 % limit can reach, with room for reset base prices. Guess, not tuned."""
HALT_RATIO = 1.8
"""Factor across a halt that is worth a look: capital reductions and splits that nobody adjusted. Guess, not tuned."""
STAY_DAYS = 5
"""Rows on both sides whose median closes tell a new level from a stray day. Guess, not tuned."""
SAME_DATE_CODES = 5
"""So many stocks breaking on one date point to two pulls joined there. Guess, not tuned."""
SPLIT_TOLERANCE = 0.02
"""A median factor this close to a split's is the split's. Guess, not tuned."""
SIMPLE_RATIOS = tuple(
    sorted({a / b for a in range(1, 11) for b in range(1, 11)} | {n**s for n in (15, 20, 25, 50, 100) for s in (1, -1)})
)


def jumps_beyond_limit(traded: pl.DataFrame) -> pl.DataFrame:
    """Rows whose close lies beyond the limit around the previous traded close by more than rounding, with `exempt`."""
    columns = (traded[name].to_numpy() for name in ("close", "previous_close", "date"))
    hits = traded.filter(pl.Series(beyond_limit(*columns)))
    return hits.with_columns(exempt=_exemption(traded, hits)).with_columns(detail=_move())


def _exemption(traded: pl.DataFrame, hits: pl.DataFrame) -> pl.Series:
    """Why a move may be larger than the limit, or null."""
    start, end = pl.lit(traded["date"].min(), pl.Date), pl.lit(traded["date"].max(), pl.Date)
    life = traded.group_by("code").agg(
        first=pl.col("date").min(), last=pl.col("date").max(),
        late_halt=((pl.col("skipped") > RELISTING_GAP) & (pl.col("from_end") < LIQUIDATION_ROWS)).any(),
    )  # fmt: skip
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


def limit_moves(bars: Bars) -> Finding:
    """Moves beyond the limit of their date that nothing explains."""
    moves = bars.traded.filter(pl.col("previous_close").is_not_null())
    hits = jumps_beyond_limit(moves).filter(pl.col("exempt").is_null())
    hits = hits.sort(pl.col("change").log().abs(), descending=True)
    severity: Severity = "fatal" if hits.height > FATAL_MOVE_SHARE * moves.height else "warning"
    return found(
        "limit_moves", hits, moves.height, severity=severity,
        summary=f"{percent(hits.height, moves.height)} moves beyond the price limit of their date "
        f"in {plural(hits['code'].n_unique(), 'stock')}.",
        advice="Rights issues, splits or dividends that were not adjusted, or prices from before the listing. "
        "Rescale the segment before the day, or drop it (repair drop_segment); labels across them are wrong.",
    )  # fmt: skip


def limit_moves_exempt(bars: Bars) -> Finding:
    """Moves beyond the limit that the exchange allows: first listing days, relistings, liquidation trading."""
    hits = jumps_beyond_limit(bars.traded).filter(pl.col("exempt").is_not_null())
    kinds = hits.group_by(kind=pl.col("exempt").str.replace(r"after \d+", "after")).len().sort("kind")
    table = tuple({"why": r["kind"], "moves": r["len"]} for r in kinds.iter_rows(named=True))
    hits = hits.sort(pl.col("change").log().abs(), descending=True)
    return found(
        "limit_moves_exempt", hits.with_columns(detail=pl.format("{}, {}", _move(), "exempt")), bars.traded.height,
        severity="info", table=table, summary=f"{plural(hits.height, 'move')} beyond the limit where none applies.",
        advice="Normal in themselves; scale_breaks lists those that look like a missed adjustment.",
    )  # fmt: skip


def impossible_ranges(bars: Bars) -> Finding:
    """Days whose high / low exceeds what the limits allow on one day, outside relistings and liquidation."""
    rows = bars.traded.filter(pl.col("previous_close").is_not_null())
    limit, low = price_limit(rows["date"].to_numpy()), rows["low"].to_numpy()
    slack = (1 + 2 * tick_size(low, OLD_TICK_BORDERS) / low) * (1 + RELATIVE_SLACK)
    hits = rows.filter(pl.Series(rows["high"].to_numpy() / low > (1 + limit) / (1 - limit) * slack))
    hits = hits.with_columns(exempt=_exemption(rows, hits)).filter(pl.col("exempt").is_null())
    detail = pl.format("low {} to high {} in one day", pl.col("low").round(2), pl.col("high").round(2))
    return found(
        "impossible_ranges", hits.with_columns(detail=detail), rows.height, severity="warning",
        summary=f"{plural(hits.height, 'day')} with a range wider than the price limits allow.",
        advice="One of the four prices is on another scale; mask the day.",
    )  # fmt: skip


def level_changes(traded: pl.DataFrame) -> pl.DataFrame:
    """Jumps beyond the limit with `ratio` and `kind`: overnight or halt (the level stays), stray day, passing."""
    jumps = jumps_beyond_limit(traded.with_columns(position=pl.int_range(pl.len())))
    jumps = jumps.with_columns(
        after=_median_close(traded, jumps, range(STAY_DAYS)),
        before=_median_close(traded, jumps, range(-STAY_DAYS, 0)),
    )
    jumps = jumps.filter(pl.col("exempt").fill_null("") != "liquidation trading")
    log_jump, log_level = pl.col("change").log(), (pl.col("after") / pl.col("before")).log()
    stays = (log_level * log_jump.sign()) > 0.5 * log_jump.abs()
    returns = (log_jump + pl.col("next_change").log()).abs() < 0.25 * log_jump.abs()
    halted = pl.col("skipped") >= RELISTING_GAP
    return jumps.with_columns(ratio=pl.col("change"), factor=log_jump.abs().exp()).with_columns(
        kind=pl.when(returns.fill_null(False)).then(pl.lit("stray day"))
        .when(~stays).then(pl.lit("passing"))
        .when(halted).then(pl.lit("halt")).otherwise(pl.lit("overnight"))
    )  # fmt: skip


def _median_close(traded: pl.DataFrame, jumps: pl.DataFrame, offsets: range) -> pl.Series:
    """Median close over the rows at `offsets` from each jump that belong to the same stock."""
    if jumps.height == 0:
        return pl.Series([], dtype=pl.Float64)
    steps = np.asarray(offsets)
    inside = (steps >= -jumps["rank"].to_numpy()[:, None]) & (steps <= jumps["from_end"].to_numpy()[:, None])
    rows = np.where(inside, jumps["position"].to_numpy()[:, None] + steps, 0)
    closes = np.where(inside, traded["close"].to_numpy()[rows], np.nan)
    return pl.Series(np.nanmedian(closes, axis=1))


def scale_breaks(bars: Bars) -> Finding:
    """Levels that jump by a ratio and stay: adjustments that were missed, or two pulls joined.

    Overnight jumps beyond the limit all count; across a halt only factors of at least HALT_RATIO.
    """
    jumps = level_changes(bars.traded)
    across_halt = (pl.col("kind") == "halt") & (pl.col("factor") >= HALT_RATIO)
    hits = jumps.filter((pl.col("kind") == "overnight") | across_halt).sort("factor", descending=True)
    large = hits.filter((pl.col("kind") == "overnight") & (pl.col("factor") >= LARGE_RATIO))
    n_codes = bars.traded["code"].n_unique()
    date_hit, same = _busiest_date(hits)
    joined = same >= max(SAME_DATE_CODES, FATAL_CODE_SHARE * n_codes)
    fatal = joined or large["code"].n_unique() > FATAL_CODE_SHARE * n_codes
    joined_at = f" {same} of them on {date_hit}: two different pulls were joined there." if joined else ""
    n_large, n_halt = large.height, hits.filter(pl.col("kind") == "halt").height
    return found(
        "scale_breaks", hits.with_columns(detail=_break()), bars.traded.height,
        severity="fatal" if fatal else "warning", repairs=_rescale(bars.traded, hits),
        summary=f"{plural(hits['code'].n_unique(), 'stock')} of {n_codes:,} change their level by a ratio and stay: "
        f"{n_large} overnight by {LARGE_RATIO} or more, {n_halt} across a halt.{joined_at}",
        advice="Pull these stocks again in one go, or rescale the segment before the day (repair rescale_segment; the "
        "suggested ratio takes the night's own move with it, put the true one in its place where you know it).",
    )  # fmt: skip


def stray_days(bars: Bars) -> Finding:
    """Single days on another scale: the level jumps beyond the limit and is back the next day."""
    hits = level_changes(bars.traded).filter(pl.col("kind") == "stray day").sort("factor", descending=True)
    n_codes = bars.traded["code"].n_unique()
    large = hits.filter(pl.col("factor") >= LARGE_RATIO)["code"].n_unique()
    return found(
        "stray_days", hits.with_columns(detail=pl.format("{}, back the next day", _move())), bars.traded.height,
        severity="fatal" if large > FATAL_CODE_SHARE * n_codes else "warning",
        summary=f"{plural(hits.height, 'day')} in {plural(hits['code'].n_unique(), 'stock')} on another scale.",
        advice="Mask the day; it becomes a halt.",
        repairs=mask_days(hits),
    )  # fmt: skip


def nearest_simple_ratio(ratio: float, tolerance: float = 0.10) -> str:
    """'1/5' or '3/2' when the ratio is that close to a split's, else ''; the night's own move blurs it."""
    best = min(SIMPLE_RATIOS, key=lambda simple: abs(math.log(ratio / simple)))
    if abs(math.log(ratio / best)) > tolerance:
        return ""
    nice = Fraction(best).limit_denominator(100)
    return f"{nice.numerator}/{nice.denominator}" if nice.denominator > 1 else str(nice.numerator)


def _busiest_date(hits: pl.DataFrame) -> tuple[str, int]:
    if hits.height == 0:
        return "", 0
    top = hits.group_by("date").agg(n=pl.col("code").n_unique()).sort("n", "date", descending=[True, False]).row(0)
    return str(top[0]), int(top[1])


def _rescale(traded: pl.DataFrame, hits: pl.DataFrame) -> tuple[dict[str, object], ...]:
    """A rescale_segment per break; of the closes alone where these alone are off their bars' scale.

    A break's ratio is the jump that was seen, so the night's own move goes with it; that of closes off their bars is
    the median over the segment, or the split's ratio within SPLIT_TOLERANCE.
    """
    closes_off = _segments_of_closes(traded, hits).filter(pl.col("factor").log().abs() > math.log(SPLIT_FACTOR))
    off = set(closes_off["code"])
    repairs: list[dict[str, object]] = [
        {"repair": "rescale_segment", "code": r["code"], "since": str(r["since"]), "before": str(r["before"]),
         "ratio": _split_ratio(r["factor"]), "columns": ["close"]}
        for r in closes_off.iter_rows(named=True)
    ]  # fmt: skip
    whole = hits.filter(~pl.col("code").is_in(off))
    repairs += [
        {"repair": "rescale_segment", "code": r["code"], "before": str(r["date"]), "ratio": round(r["ratio"], 6)}
        for r in whole.iter_rows(named=True)
    ]
    return tuple(repairs)


def _segments_of_closes(traded: pl.DataFrame, hits: pl.DataFrame) -> pl.DataFrame:
    """code, since, before and factor (middle of the bar over its close, median) of the stretches between breaks."""
    breaks = hits.select("code", "date", first=pl.lit(1))
    rows = traded.filter(pl.col("code").is_in(hits["code"].unique().implode())).join(
        breaks, on=["code", "date"], how="left", maintain_order="left"
    )
    segment = pl.col("first").fill_null(0).cum_sum().over("code")
    middle = (pl.col("high") + pl.col("low")) / 2
    return (
        rows.group_by("code", segment=segment, maintain_order=True)
        .agg(since=pl.col("date").min(), last=pl.col("date").max(), factor=(middle / pl.col("close")).median())
        .with_columns(before=pl.col("last") + pl.duration(days=1))
    )


def _split_ratio(factor: float) -> float:
    best = min(SIMPLE_RATIOS, key=lambda simple: abs(math.log(factor / simple)))
    return round(best if abs(math.log(factor / best)) < SPLIT_TOLERANCE else factor, 6)


def _move() -> pl.Expr:
    percent_move = (100 * (pl.col("change") - 1)).round(1)
    close, last = pl.col("close").round(2), pl.col("previous_close").round(2)
    return pl.format("{} -> {} ({} %) since {}", last, close, percent_move, "previous_date")


def _break() -> pl.Expr:
    simple = pl.col("ratio").map_elements(nearest_simple_ratio, return_dtype=pl.String)
    near = pl.when(simple != "").then(pl.format(", near {}", simple)).otherwise(pl.lit(""))
    return pl.format("{}: x {}{}, {}", _move(), pl.col("ratio").round(3), near, "kind")
