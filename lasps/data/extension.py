"""A dataset grows by new days: options, borders and scaler stay, and whatever of the old samples moved is said."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from loguru import logger

from lasps.config.sectors import SECTORS
from lasps.data.build import Check, Oracle, build_dataset
from lasps.data.datasets.description import read_description
from lasps.data.datasets.scan import MissingFileError
from lasps.data.overlap import compare_overlap
from lasps.data.spec import DatasetSpec
from lasps.data.splits import SPLITS
from lasps.data.universe import market_of, of_other_market


def extend_dataset(
    data_dir: str | Path,
    panel: pl.DataFrame,
    *,
    source: Mapping[str, Any],
    out_dir: str | Path | None = None,
    test_end: date | None = None,
    listing: pl.DataFrame | None = None,
    oracle: Oracle | None = None,
    check: Check | None = None,
) -> dict[str, Any]:
    """Build a dataset again with new days: same options, same borders, same scaler, so old samples stay bit-equal.

    Stocks that were adjusted since are read again as the new bars have them, and so are a few stocks with another
    history (`overlap.MAX_REREAD`); both are named. A stock that ended is extended with nothing.

    Args:
        data_dir: the dataset to extend.
        panel: its bars and the new ones, with `sector`.
        source, listing, oracle, check: as in `build_dataset`, of the new bars.
        out_dir: where to write; `data_dir` itself if not given.
        test_end: a later last day of test; the other borders never move.

    Raises:
        ValueError: `test_end` is earlier than before, stocks are missing or many have another history (bars adjusted
            in another way), or as in `build_dataset`.
    """
    old = read_description(data_dir)
    if old is None:
        raise MissingFileError(
            f"{data_dir}: expected a dataset with a dataset.json to extend. Build it first: `make data`"
        )
    spec = DatasetSpec.from_description(old)
    if test_end is not None:
        if test_end < spec.span().test_end:
            raise ValueError(
                f"test_end: expected {spec.span().test_end} or later, as borders only grow, got {test_end}"
            )
        spec = replace(spec, borders=replace(spec.span(), test_end=test_end))
    overlap = compare_overlap(Path(data_dir), panel, spec.horizon, spec.threshold)
    overlap.warn()

    def compared(folder: Path) -> dict[str, Any] | None:
        _warn_of_changed_features(Path(data_dir), folder)
        return None if check is None else check(folder)

    return build_dataset(
        panel,
        data_dir if out_dir is None else out_dir,
        spec,
        source=dict(source) | {"extension": overlap.to_dict()},
        listing=listing,
        force=out_dir is None,
        oracle=oracle,
        check=compared,
    )


def with_former_stocks(
    listing: pl.DataFrame, data_dir: str | Path, markets: Sequence[str] | None = None
) -> pl.DataFrame:
    """The listing, with the stocks of the dataset as they were where it no longer tells their name, sector or market.

    A listing knows the stocks of its day; those that left the exchange, their market or their industry's list since
    stay in the dataset that is extended.

    Args:
        listing: code, name, industry; market where it is known.
        data_dir: the dataset; without one the listing comes back as it is.
        markets: those of the dataset, as in `select_universe`.
    """
    samples = [Path(data_dir) / split / "samples.parquet" for split in SPLITS]
    if not all(path.is_file() for path in samples):
        return listing
    korean = {sector.id: sector.korean for sector in SECTORS}  # sector_of_industry knows these names too
    known = pl.concat((pl.read_parquet(path) for path in samples), how="diagonal_relaxed").unique("code", keep="last")
    known = known.sort("code").select(
        "code",
        name=pl.col("name") if "name" in known.columns else pl.lit(None, pl.String),
        industry=pl.col("sector").replace_strict(korean, return_dtype=pl.String),
    )
    return with_former(listing, known, markets)


def with_former(listing: pl.DataFrame, known: pl.DataFrame, markets: Sequence[str] | None = None) -> pl.DataFrame:
    """As `with_former_stocks`, from an earlier listing: code, name, industry."""
    known = known.select("code", former_name="name", former_industry="industry")
    if "market" not in listing.columns:
        listing = listing.with_columns(market=pl.lit(None, pl.String))
    listing = listing.with_columns(market=market_of(pl.col("market")))
    both = listing.join(known, on="code", how="full", coalesce=True, maintain_order="left_right")
    former = {
        "former_left": pl.col("name").is_null() & pl.col("industry").is_null() & pl.col("market").is_null(),
        "former_blank": pl.col("industry").is_null(),
        "former_moved": of_other_market(markets),
    }
    both = both.with_columns(**{name: expr & pl.col("former_industry").is_not_null() for name, expr in former.items()})
    _say_who_stays(both)
    market = pl.lit(markets[0] if markets else None, pl.String)
    return both.select(
        "code",
        name=pl.coalesce("name", "former_name"),
        industry=pl.coalesce("industry", "former_industry"),
        market=pl.when("former_moved").then(market).otherwise("market"),
    )


def _say_who_stays(both: pl.DataFrame) -> None:
    for name, what in (
        ("former_left", "are no longer in the listing"),
        ("former_moved", "are in another market now"),
        ("former_blank", "have no industry in the listing"),
    ):
        codes = both.filter(pl.col(name) & (pl.col("former_left") == (name == "former_left")))["code"].to_list()
        if codes:
            logger.warning(
                f"{len(codes)} stocks that were known before {what}; they stay with name and sector as they were: "
                f"{', '.join(codes[:20])}{' ...' if len(codes) > 20 else ''}"
            )


def _warn_of_changed_features(old_dir: Path, new_dir: Path) -> None:
    """Warn where the last day of an old sample has other features: new rows on old days move ranks and look-backs."""
    stored = [
        [np.load(folder / "rows" / f"{name}.npy", mmap_mode="r") for folder in (old_dir, new_dir)]
        for name in ("features", "scores")
    ]
    changed = []
    for split in SPLITS:
        before, after = (
            pl.read_parquet(folder / split / "samples.parquet", columns=["code", "date"]).with_columns(
                pl.Series(name, np.load(folder / split / "ends.npy"))
            )
            for folder, name in ((old_dir, "old_row"), (new_dir, "new_row"))
        )
        both = before.join(after, on=["code", "date"], how="inner", maintain_order="left")
        before_row, now_row = both["old_row"].to_numpy(), both["new_row"].to_numpy()
        differ = np.any([(old[before_row] != new[now_row]).any(axis=1) for old, new in stored], axis=0)
        changed.append(both.filter(pl.Series(differ)))
    rows = pl.concat(changed)
    if rows.height:
        logger.warning(
            f"{rows.height} old samples of {rows['code'].n_unique()} stocks (first: {rows.row(0)[:2]}) have other "
            "features than before: the new bars have rows or prices on old days that were not there. Metrics of the "
            "old dataset do not hold for them"
        )
