"""Checks of the listing and the sector map."""

from __future__ import annotations

from collections.abc import Callable

import polars as pl

from lasps.data.integrity.findings import Finding, Severity, found, percent, plural

FATAL_UNKNOWN = 0.5
"""Share of stocks without a listing row or industry from which the two files do not belong together. Guess."""
MIN_SECTOR_STOCKS = 10
"""Stocks below which a sector's head learns single companies. Guess, not tuned."""
WARN_DOMINANT, FATAL_DOMINANT = 0.3, 0.5
"""Share of the stocks in the largest sector. Guess: KRX's largest of 20 holds 0.1 to 0.2."""


def codes_without_industry(codes: pl.Series, listing: pl.DataFrame) -> Finding:
    """Codes that the listing lacks or lists without an industry; the universe leaves them out."""
    listed = listing.select("code", "name", "industry", listed=pl.lit(True)).unique("code", keep="first")
    known = pl.DataFrame({"code": codes}).join(listed, on="code", how="left")
    empty = pl.col("industry").fill_null("").str.strip_chars() == ""
    hits = known.filter(empty).sort("code").with_columns(date=pl.lit(None, pl.Date))
    why = pl.when(pl.col("listed").is_null()).then(pl.lit("not in the listing"))
    hits = hits.with_columns(detail=why.otherwise(pl.format("{}: no industry", pl.col("name").fill_null("unnamed"))))
    return found(
        "codes_without_industry",
        hits,
        len(codes),
        severity="fatal" if hits.height > FATAL_UNKNOWN * len(codes) else "warning",
        summary=f"{percent(hits.height, len(codes))} codes have no industry; the universe leaves them out.",
        advice="Funds and new listings have none. Most missing: the listing is not this market's or lost its zeros.",
    )


def industries_without_sector(
    codes: pl.Series, listing: pl.DataFrame, sector_of_industry: Callable[[str], int | None]
) -> Finding:
    """Industry names of the stocks at hand that the sector map does not know."""
    held = listing.filter(pl.col("code").is_in(codes.implode())).with_columns(pl.col("industry").str.strip_chars())
    names = (
        held.filter(pl.col("industry").fill_null("") != "")
        .group_by("industry")
        .agg(n=pl.len(), code=pl.col("code").min())
    )
    unknown = [name for name in names["industry"] if sector_of_industry(name) is None]
    hits = names.filter(pl.col("industry").is_in(unknown)).sort("n", "industry", descending=[True, False])
    hits = hits.with_columns(date=pl.lit(None, pl.Date), detail=pl.format("{}: {} stocks", "industry", "n"))
    lost, total = int(hits["n"].sum()), int(names["n"].sum())
    severity: Severity = "fatal" if lost > FATAL_UNKNOWN * total else "warning"
    return found(
        "industries_without_sector",
        hits,
        names.height,
        severity=severity,
        summary=f"{plural(hits.height, 'industry', 'industries')} with {plural(lost, 'stock')} map to no sector.",
        advice="Add them to lasps/config/industries.csv. If most are unknown, the industry column was read wrongly.",
    )


def sector_values(panel: pl.DataFrame, num_sectors: int) -> Finding:
    """Rows whose sector is null or not in 0..num_sectors-1, and stocks that change their sector."""
    by_code = panel.group_by("code").agg(
        date=pl.col("date").min(),
        low=pl.col("sector").min(),
        high=pl.col("sector").max(),
        nulls=pl.col("sector").null_count(),
    )
    outside = (pl.col("low") < 0) | (pl.col("high") >= num_sectors)
    bad = (pl.col("nulls") > 0) | outside.fill_null(True) | (pl.col("low") != pl.col("high"))
    hits = by_code.filter(bad).sort("code")
    low, high = pl.col("low").fill_null(-1), pl.col("high").fill_null(-1)
    detail = pl.format("sectors {} to {}, {} rows without", low, high, "nulls")
    return found(
        "sector_values",
        hits.with_columns(detail=detail),
        by_code.height,
        severity="fatal",
        summary=f"{plural(hits.height, 'stock')} without one sector in 0..{num_sectors - 1}.",
        advice="Select the universe again: a stock has one sector for all its days or is left out.",
    )


def small_sectors(panel: pl.DataFrame, num_sectors: int) -> Finding:
    """Sectors with no or too few stocks."""
    sizes = sector_sizes(panel, num_sectors)
    few = sizes.filter(pl.col("stocks") < MIN_SECTOR_STOCKS).sort("stocks", "sector")
    hits = few.with_columns(
        code=pl.format("sector {}", "sector"), date=pl.lit(None, pl.Date), detail=pl.format("{} stocks", "stocks")
    )
    empty = few.filter(pl.col("stocks") == 0).height
    return found(
        "small_sectors",
        hits,
        num_sectors,
        severity="warning",
        table=_rows(sizes),
        summary=f"{plural(hits.height, 'sector')} with fewer than {MIN_SECTOR_STOCKS} stocks, {empty} of them empty.",
        advice="Their heads keep Phase 3's weights or learn single companies. Merge sectors, or accept it.",
    )


def dominant_sector(panel: pl.DataFrame, num_sectors: int) -> Finding:
    """One sector that holds most of the market: the sign of a broken sector map."""
    sizes = sector_sizes(panel, num_sectors).sort("stocks", descending=True)
    total = int(sizes["stocks"].sum())
    sector, largest = sizes.row(0)
    severity: Severity = "fatal" if largest > FATAL_DOMINANT * total else "warning"
    share = 100 * largest / max(total, 1)
    top = sizes.head(1).filter(pl.col("stocks") > WARN_DOMINANT * total)
    top = top.with_columns(
        code=pl.format("sector {}", "sector"), date=pl.lit(None, pl.Date), detail=pl.lit(f"{share:.0f} %")
    )
    kind = "all stocks are in one sector" if largest == total else f"sector {sector} holds {share:.0f} % of the stocks"
    return found(
        "dominant_sector",
        top,
        num_sectors,
        severity=severity,
        summary=f"{kind} ({largest:,} of {total:,}).",
        advice="The sector map is probably broken: compare the listing's industries with lasps/config/industries.csv.",
    )


def sector_sizes(panel: pl.DataFrame, num_sectors: int) -> pl.DataFrame:
    """sector, stocks; every sector 0..num_sectors-1 has a row."""
    held = panel.group_by(pl.col("sector").cast(pl.Int64)).agg(stocks=pl.col("code").n_unique().cast(pl.Int64))
    every = pl.DataFrame({"sector": pl.Series(range(num_sectors), dtype=pl.Int64)})
    return every.join(held, on="sector", how="left").with_columns(pl.col("stocks").fill_null(0)).sort("sector")


def _rows(sizes: pl.DataFrame) -> tuple[dict[str, int], ...]:
    return tuple(sizes.iter_rows(named=True))
