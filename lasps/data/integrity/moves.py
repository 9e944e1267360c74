"""Checks of moves from one day to the next: price limits, breaks of scale, single days on another scale."""

from __future__ import annotations

import math
from fractions import Fraction

import polars as pl

from lasps.data.exchange import OLD_TICK_BORDERS, RELATIVE_SLACK, price_limit, tick_size
from lasps.data.integrity.bars import Bars
from lasps.data.integrity.findings import Finding, Severity, found, mask_days, percent, plural
from lasps.data.integrity.jumps import exemption, move
from lasps.data.integrity.rows import SPLIT_FACTOR

FATAL_MOVE_SHARE = 5e-4
"""Share of moves beyond the limit from which the adjustment as a whole is wrong. Guess: real files have 3e-5."""
FATAL_CODE_SHARE = 0.0025
"""Share of stocks with a large break or stray day from which a build stops. Guess: real files have 0.0014."""
LARGE_RATIO = 1.6
"""Overnight factor that no stock under a 30 % limit can reach, with room for reset base prices. Guess, not tuned."""
HALT_RATIO = 1.8
"""Factor across a halt that is worth a look: capital reductions and splits that nobody adjusted. Guess, not tuned."""
FATAL_HALT_SHARE, FATAL_SPLIT_SHARE = 0.01, 0.005
"""Shares of stocks with a break across a halt, and with one near a whole ratio (1/5, 10), from which a build stops.
Guess: capital reductions and relistings make 0.003 to 0.005 and 0.0014 to 0.003 in real files. One is never fatal."""
SAME_DATE_CODES = 5
"""So many stocks breaking on one date point to two pulls joined there. Guess, not tuned."""
SPLIT_TOLERANCE = 0.02
"""A median factor this close to a split's is the split's. Guess, not tuned."""
WHOLE_TOLERANCE = 0.10
"""A factor across a halt this close (in logarithms) to a whole number may be a split's. Guess: a day's own move."""
SIMPLE_RATIOS = tuple(
    sorted({a / b for a in range(1, 11) for b in range(1, 11)} | {n**s for n in (15, 20, 25, 50, 100) for s in (1, -1)})
)


def limit_moves(bars: Bars) -> Finding:
    """Moves beyond the limit of their date that nothing explains."""
    hits = bars.jumps.filter(pl.col("exempt").is_null()).sort("factor", descending=True)
    n = bars.traded.height - bars.traded["previous_close"].null_count()
    severity: Severity = "fatal" if hits.height > FATAL_MOVE_SHARE * n else "warning"
    return found(
        "limit_moves",
        hits,
        n,
        severity=severity,
        summary=f"{percent(hits.height, n)} moves beyond the price limit of their date "
        f"in {plural(hits['code'].n_unique(), 'stock')}.",
        advice="Rights issues, splits or dividends that were not adjusted, or prices from before the listing. "
        "Rescale the segment before the day, or drop it (repair drop_segment); labels across them are wrong.",
    )


def limit_moves_exempt(bars: Bars) -> Finding:
    """Moves beyond the limit that the exchange allows: first listing days, relistings, liquidation trading."""
    hits = bars.jumps.filter(pl.col("exempt").is_not_null())
    kinds = hits.group_by(kind=pl.col("exempt").str.replace(r"after \d+", "after")).len().sort("kind")
    table = tuple({"why": r["kind"], "moves": r["len"]} for r in kinds.iter_rows(named=True))
    hits = hits.sort("factor", descending=True)
    return found(
        "limit_moves_exempt",
        hits.with_columns(detail=pl.format("{}, {}", move(), "exempt")),
        bars.traded.height,
        severity="info",
        table=table,
        summary=f"{plural(hits.height, 'move')} beyond the limit where none applies.",
        advice="Normal in themselves; scale_breaks lists those that look like a missed adjustment.",
    )


def impossible_ranges(bars: Bars) -> Finding:
    """Days whose high / low exceeds what the limits allow on one day, outside relistings and liquidation."""
    low, high, dates = (bars.traded[name].to_numpy() for name in ("low", "high", "date"))
    limit = price_limit(dates)
    slack = (1 + 2 * tick_size(low, OLD_TICK_BORDERS) / low) * (1 + RELATIVE_SLACK)
    hits = bars.traded.filter(pl.Series(high / low > (1 + limit) / (1 - limit) * slack))
    hits = hits.filter(pl.col("previous_close").is_not_null())
    hits = hits.filter(exemption(hits, bars.lives).is_null())
    detail = pl.format("low {} to high {} in one day", pl.col("low").round(2), pl.col("high").round(2))
    return found(
        "impossible_ranges",
        hits.with_columns(detail=detail),
        bars.traded.height,
        severity="warning",
        summary=f"{plural(hits.height, 'day')} with a range wider than the price limits allow.",
        advice="One of the four prices is on another scale; mask the day.",
    )


def scale_breaks(bars: Bars) -> Finding:
    """Levels that jump by a ratio and stay: adjustments that were missed, or two pulls joined.

    Overnight jumps beyond the limit all count; across a halt only factors of at least HALT_RATIO.
    """
    across_halt = (pl.col("kind") == "halt") & (pl.col("factor") >= HALT_RATIO)
    hits = bars.jumps.filter((pl.col("kind") == "overnight") | across_halt).sort("factor", descending=True)
    large = hits.filter((pl.col("kind") == "overnight") & (pl.col("factor") >= LARGE_RATIO))
    n_codes = len(bars.starts) - 1
    date_hit, same = _busiest_date(hits)
    joined = same >= max(SAME_DATE_CODES, FATAL_CODE_SHARE * n_codes)
    fatal = joined or large["code"].n_unique() > FATAL_CODE_SHARE * n_codes or _missed_over_halts(hits, n_codes)
    joined_at = f" {same} of them on {date_hit}: two different pulls were joined there." if joined else ""
    n_large, n_halt = large.height, hits.filter(pl.col("kind") == "halt").height
    return found(
        "scale_breaks",
        hits.with_columns(detail=_break()),
        bars.traded.height,
        severity="fatal" if fatal else "warning",
        repairs=_rescale(bars.traded, hits),
        summary=f"{plural(hits['code'].n_unique(), 'stock')} of {n_codes:,} change their level by a ratio and stay: "
        f"{n_large} overnight by {LARGE_RATIO} or more, {n_halt} across a halt.{joined_at}",
        advice="Pull these stocks again in one go, or rescale the segment before the day (repair rescale_segment; the "
        "suggested ratio takes the night's own move with it, put the true one in its place where you know it).",
    )


def stray_days(bars: Bars) -> Finding:
    """Single days on another scale: the level jumps beyond the limit and is back the next day."""
    hits = bars.jumps.filter(pl.col("kind") == "stray day").sort("factor", descending=True)
    n_codes = len(bars.starts) - 1
    large = hits.filter(pl.col("factor") >= LARGE_RATIO)["code"].n_unique()
    return found(
        "stray_days",
        hits.with_columns(detail=pl.format("{}, back the next day", move())),
        bars.traded.height,
        severity="fatal" if large > FATAL_CODE_SHARE * n_codes else "warning",
        summary=f"{plural(hits.height, 'day')} in {plural(hits['code'].n_unique(), 'stock')} on another scale.",
        advice="Mask the day; it becomes a halt.",
        repairs=mask_days(hits),
    )


def _missed_over_halts(hits: pl.DataFrame, n_codes: int) -> bool:
    """Whether so many stocks break across a halt that splits were missed: one alone may be a capital reduction."""
    halted = hits.filter(pl.col("kind") == "halt")
    whole = halted.filter(pl.col("factor").map_elements(_is_whole, return_dtype=pl.Boolean))
    n, n_whole = halted["code"].n_unique(), whole["code"].n_unique()
    return (n > 1 and n > FATAL_HALT_SHARE * n_codes) or (n_whole > 1 and n_whole > FATAL_SPLIT_SHARE * n_codes)


def _is_whole(factor: float) -> bool:
    return abs(math.log(factor / max(2, round(factor)))) < WHOLE_TOLERANCE


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
        {
            "repair": "rescale_segment",
            "code": r["code"],
            "since": str(r["since"]),
            "before": str(r["before"]),
            "ratio": _split_ratio(r["factor"]),
            "columns": ["close"],
        }
        for r in closes_off.iter_rows(named=True)
    ]
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


def _break() -> pl.Expr:
    simple = pl.col("ratio").map_elements(nearest_simple_ratio, return_dtype=pl.String)
    near = pl.when(simple != "").then(pl.format(", near {}", simple)).otherwise(pl.lit(""))
    return pl.format("{}: x {}{}, {}", move(), pl.col("ratio").round(3), near, "kind")
