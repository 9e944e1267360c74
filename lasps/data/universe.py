"""Which stocks count: common shares with a known sector by default, everything else on request, always counted.

KRX codes say what a share is: a common share's code ends in 0, a preference share's in 5, 7, 9, K, L or M with the
first five characters of its company's common share. SPACs are known by their name; 98 % of their labels are HOLD, which
flatters every accuracy. A listing knows today's names and industries only: it is itself a look back from the future.
"""

from __future__ import annotations

import polars as pl
from loguru import logger

from lasps.config.sectors import sector_of_industry

UNIVERSES = ("common", "with_preference", "all")
LISTING_COLUMNS = ("code", "name", "industry")
SPAC_NAME = r"스팩|기업인수목적|(?i)\bSPAC\b"


def select_universe(
    panel: pl.DataFrame, listing: pl.DataFrame, universe: str = "common"
) -> tuple[pl.DataFrame, dict[str, int | str]]:
    """Keep the universe's stocks and give each row its sector.

    Args:
        panel: bars sorted by (code, date).
        listing: columns code, name, industry (null where unknown).
        universe: "common" (common shares, no SPACs), "with_preference" (preference shares too, in their common share's
            sector) or "all" (SPACs too). A code without a sector is never kept and never given a default.

    Returns:
        The kept rows with `sector` Int16 (0..19), and the counts: codes and rows before and after, and how many codes
        fell out as `not_listed`, `preference`, `spac`, `without_industry` or `unknown_industry` (in this order, each
        code once).

    Raises:
        ValueError: an unknown universe, a listing without its columns or with a code twice, or nothing left.
    """
    if universe not in UNIVERSES:
        raise ValueError(f"unknown universe {universe!r}; expected one of {UNIVERSES}")
    stocks = panel.group_by("code").len("rows").join(classify_listing(listing), on="code", how="left")
    reason = (
        pl.when(pl.col("kind").is_null()).then(pl.lit("not_listed"))
        .when((pl.col("kind") == "preference") & (universe == "common")).then(pl.lit("preference"))
        .when((pl.col("kind") == "spac") & (universe != "all")).then(pl.lit("spac"))
        .when(pl.col("sector").is_null() & pl.col("industry").is_null()).then(pl.lit("without_industry"))
        .when(pl.col("sector").is_null()).then(pl.lit("unknown_industry"))
        .otherwise(pl.lit("kept"))
    )  # fmt: skip
    stocks = stocks.with_columns(reason=reason)
    unknown = stocks.filter(pl.col("reason") == "unknown_industry")["industry"].unique().sort().to_list()
    if unknown:
        logger.warning("Industries without a sector (add them to lasps/config/industries.csv): {}", unknown)
    kept = stocks.filter(pl.col("reason") == "kept").select("code", "sector")
    chosen = panel.drop("sector", strict=False).join(kept, on="code", how="inner", maintain_order="left")
    counts = _counts(universe, stocks, chosen.height)
    logger.info("Universe: {}", counts)
    if chosen.is_empty():
        raise ValueError(f"no stock of the panel is in the universe {universe!r}: {counts}; is it the right listing?")
    return chosen, counts


def classify_listing(listing: pl.DataFrame) -> pl.DataFrame:
    """Kind ("common", "preference" or "spac") and sector (Int16, null if unknown) of every listed code.

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
        sector=sectors,
        kind=pl.when(pl.col("name").str.contains(SPAC_NAME).fill_null(False)).then(pl.lit("spac"))
        .when(is_preference(pl.col("code"))).then(pl.lit("preference"))
        .otherwise(pl.lit("common")),
        common_code=pl.col("code").str.head(5) + "0",
    )  # fmt: skip
    common = stocks.select(common_code="code", common_sector="sector")
    of_common = pl.when(pl.col("kind") == "preference").then(pl.coalesce("common_sector", "sector")).otherwise("sector")
    return (
        stocks.join(common, on="common_code", how="left", maintain_order="left")
        .with_columns(sector=of_common)
        .select("code", "industry", "kind", "sector")
    )


def is_preference(code: pl.Expr) -> pl.Expr:
    """Whether a KRX code (six characters) is a preference share's: it does not end in 0."""
    return (code.str.len_chars() == 6) & ~code.str.ends_with("0")


def _counts(universe: str, stocks: pl.DataFrame, rows_kept: int) -> dict[str, int | str]:
    reasons = dict(stocks.group_by("reason").len().rows())
    counts: dict[str, int | str] = {"universe": universe, "codes": stocks.height, "codes_kept": reasons.get("kept", 0)}
    counts |= {"rows": int(stocks["rows"].sum()), "rows_kept": rows_kept}
    fell_out = ("not_listed", "preference", "spac", "without_industry", "unknown_industry")
    return counts | {reason: reasons.get(reason, 0) for reason in fell_out}
