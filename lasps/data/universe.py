"""Which stocks count: common shares with a known sector by default, everything else on request, always counted.

KONEX is left out unless it is asked for: its daily limit is 15 %, and most of its stocks hardly trade.

KRX codes say what a share is: a common share's code ends in 0, a preference share's in 5, 7, 9, K, L or M with the
first five characters of its company's common share. SPACs are known by their name; 98 % of their labels are HOLD, which
flatters every accuracy. A listing knows today's names and industries only: it is itself a look back from the future.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import polars as pl
from loguru import logger

from lasps.config.sectors import sector_of_industry
from lasps.terminal import in_words

UNIVERSES = ("common", "with_preference", "all")
FELL_OUT = ("not_listed", "other_market", "preference", "spac", "without_industry", "unknown_industry")
"""Why a code is not in the universe, in the order in which they are asked."""
LISTING_COLUMNS = ("code", "name", "industry")
MARKETS = {
    "KOSPI": r"^(kospi|코스피|유가증권|stk|거래소)",
    "KOSDAQ": r"^(kosdaq|코스닥|ksq)",
    "KONEX": r"^(konex|코넥스|knx)",
}
"""The exchange's markets and how listings write them; KOSDAQ GLOBAL is a segment of KOSDAQ."""
LEFT_OUT = ("KONEX",)
EVERY_MARKET: tuple[str, ...] = ()
SPAC_NAME = r"스팩|기업인수목적|(?i)\bSPAC\b"


def select_universe(
    panel: pl.DataFrame, listing: pl.DataFrame, universe: str = "common", markets: Sequence[str] | None = None
) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Keep the universe's stocks and give each row its sector.

    Args:
        panel: bars sorted by (code, date).
        listing: columns code, name, industry (null where unknown); market where it is known.
        universe: "common" (common shares, no SPACs), "with_preference" (preference shares too, in their common share's
            sector) or "all" (SPACs too). A code without a sector is never kept and never given a default.
        markets: names of `MARKETS` to keep; None: all but LEFT_OUT; EVERY_MARKET (none named): all. Where the listing
            does not say a stock's market, it is kept unless markets are named.

    Returns:
        The kept rows with `sector` Int16 (0..19), and the counts: codes and rows before and after, and how many codes
        fell out as `not_listed`, `other_market`, `preference`, `spac`, `without_industry` or `unknown_industry` (in
        this order, each code once); `markets` as asked for.

    Raises:
        ValueError: an unknown universe or market, a listing without its columns or with a code twice, or nothing left.
    """
    if universe not in UNIVERSES:
        raise ValueError(f"unknown universe {universe!r}; expected one of {UNIVERSES}")
    if unknown_markets := [name for name in markets or () if name not in MARKETS]:
        raise ValueError(f"unknown market {unknown_markets[0]!r}; expected some of {', '.join(MARKETS)}")
    stocks = panel.group_by("code").len("rows").join(classify_listing(listing), on="code", how="left")
    reason = (
        pl.when(pl.col("kind").is_null())
        .then(pl.lit("not_listed"))
        .when(of_other_market(markets))
        .then(pl.lit("other_market"))
        .when((pl.col("kind") == "preference") & (universe == "common"))
        .then(pl.lit("preference"))
        .when((pl.col("kind") == "spac") & (universe != "all"))
        .then(pl.lit("spac"))
        .when(pl.col("sector").is_null() & pl.col("industry").is_null())
        .then(pl.lit("without_industry"))
        .when(pl.col("sector").is_null())
        .then(pl.lit("unknown_industry"))
        .otherwise(pl.lit("kept"))
    )
    stocks = stocks.with_columns(reason=reason)
    unknown = stocks.filter(pl.col("reason") == "unknown_industry")["industry"].unique().sort().to_list()
    if unknown:
        logger.warning("Industries without a sector (add them to lasps/config/industries.csv): {}", unknown)
    kept = stocks.filter(pl.col("reason") == "kept").select("code", "sector")
    chosen = panel.drop("sector", strict=False).join(kept, on="code", how="inner", maintain_order="left")
    counts = _counts(universe, stocks, chosen.height) | {"markets": None if markets is None else list(markets)}
    kept_out = {name: counts[name] for name in FELL_OUT}
    logger.info(
        "Universe {}: {:,} of {:,} stocks, {:,} of {:,} rows; left out: {}",
        universe,
        counts["codes_kept"],
        counts["codes"],
        counts["rows_kept"],
        counts["rows"],
        in_words(kept_out),
    )
    if chosen.is_empty():
        raise ValueError(f"no stock of the panel is in the universe {universe!r}: {counts}; is it the right listing?")
    return chosen, counts


def classify_listing(listing: pl.DataFrame) -> pl.DataFrame:
    """Kind ("common", "preference" or "spac"), market and sector (Int16; null if unknown) of every listed code.

    A preference share has its common share's sector; only if that is not known, its own industry's.

    Raises:
        ValueError: a missing column, or a code that occurs twice.
    """
    missing = [name for name in LISTING_COLUMNS if name not in listing.columns]
    if missing:
        raise ValueError(
            f"a listing needs the columns {list(LISTING_COLUMNS)}; missing: {missing}; found: {listing.columns}"
        )
    twice = listing.filter(pl.col("code").is_duplicated())["code"].unique().sort().to_list()
    if twice:
        raise ValueError(
            f"the listing holds {len(twice)} codes more than once, e.g. {twice[:5]}; keep one row per code"
        )
    names = listing["industry"].drop_nulls().unique().to_list()
    known = {name: sector_of_industry(name) for name in names}
    sectors = pl.col("industry").replace_strict(known, default=None, return_dtype=pl.Int16)
    stocks = listing.select(
        "code",
        "industry",
        market=market_of(pl.col("market")) if "market" in listing.columns else pl.lit(None, pl.String),
        sector=sectors,
        kind=pl.when(pl.col("name").str.contains(SPAC_NAME).fill_null(False))
        .then(pl.lit("spac"))
        .when(is_preference(pl.col("code")))
        .then(pl.lit("preference"))
        .otherwise(pl.lit("common")),
        common_code=pl.col("code").str.head(5) + "0",
    )
    common = stocks.select(common_code="code", common_sector="sector")
    of_common = pl.when(pl.col("kind") == "preference").then(pl.coalesce("common_sector", "sector")).otherwise("sector")
    return (
        stocks.join(common, on="common_code", how="left", maintain_order="left")
        .with_columns(sector=of_common)
        .select("code", "industry", "market", "kind", "sector")
    )


def market_of(names: pl.Expr) -> pl.Expr:
    """KOSPI, KOSDAQ or KONEX of a market's name as listings write it; another name as it is, null where blank."""
    name = names.cast(pl.String).str.strip_chars()
    found: pl.Expr = pl.when(name != "").then(name)
    for market, pattern in MARKETS.items():
        found = pl.when(name.str.to_lowercase().str.contains(pattern)).then(pl.lit(market)).otherwise(found)
    return found


def stored_markets(universe: Mapping[str, Any]) -> tuple[str, ...] | None:
    """`markets` of `select_universe` as a dataset's or checkpoint's description holds it; older ones took every one."""
    markets = universe.get("markets", EVERY_MARKET)
    return None if markets is None else tuple(markets)


def of_other_market(markets: Sequence[str] | None) -> pl.Expr:
    """Whether a stock's `market` (as `market_of` writes it) is none of those asked for; see `select_universe`."""
    if markets is None:
        return pl.col("market").is_in(LEFT_OUT).fill_null(False)
    return ~pl.col("market").is_in(list(markets)).fill_null(False) if markets else pl.lit(False)


def is_preference(code: pl.Expr) -> pl.Expr:
    """Whether a KRX code (six characters) is a preference share's: it does not end in 0."""
    return (code.str.len_chars() == 6) & ~code.str.ends_with("0")


def _counts(universe: str, stocks: pl.DataFrame, rows_kept: int) -> dict[str, Any]:
    reasons = dict(stocks.group_by("reason").len().rows())
    counts: dict[str, Any] = {"universe": universe, "codes": stocks.height, "codes_kept": reasons.get("kept", 0)}
    counts |= {"rows": int(stocks["rows"].sum()), "rows_kept": rows_kept}
    return counts | {reason: reasons.get(reason, 0) for reason in FELL_OUT}
