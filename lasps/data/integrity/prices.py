"""Checks of single rows (keys, codes, prices inside their range) and of moves (limits, breaks of scale, stray days)."""

from __future__ import annotations

import math
from fractions import Fraction

import polars as pl

from lasps.data.exchange import OLD_TICK_BORDERS, RELATIVE_SLACK, price_limit, tick_size
from lasps.data.integrity.bars import Bars, exemption, is_valid, move, out_of_order
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
