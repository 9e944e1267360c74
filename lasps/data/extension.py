"""A dataset grows by new days: options, borders and scaler stay, and whatever of the old samples moved is said."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from loguru import logger

from lasps.data.build import Gate, build_dataset
from lasps.data.datasets.loading import read_description
from lasps.data.datasets.scan import MissingFileError
from lasps.data.labels import make_labels
from lasps.data.scaling import RobustScaler
from lasps.data.splits import SPLITS, Borders


def extend_dataset(
    data_dir: str | Path,
    panel: pl.DataFrame,
    *,
    source: Mapping[str, Any],
    out_dir: str | Path | None = None,
    test_end: date | None = None,
    listing: pl.DataFrame | None = None,
    oracle: Callable[[pl.Series, pl.Series], Any] | None = None,
    gate: Gate | None = None,
) -> dict[str, Any]:
    """Build a dataset again with new days: same options, same borders, same scaler, so old samples stay bit-equal.

    Args:
        data_dir: the dataset to extend.
        panel: its bars and the new ones, with `sector`.
        source, listing, oracle, gate: as in `build_dataset`, of the new bars.
        out_dir: where to write; `data_dir` itself if not given.
        test_end: a later last day of test; the other borders never move.

    Raises:
        ValueError: `test_end` is earlier than before, an old sample is missing or has another label (bars adjusted
            differently), or as in `build_dataset`.
    """
    old = read_description(data_dir)
    if old is None:
        raise MissingFileError(f"{data_dir}: expected a dataset with a dataset.json to extend. Build it first: "
                               "`make data`")
    borders = Borders.from_dict(old["borders"])
    if test_end is not None:
        if test_end < borders.test_end:
            raise ValueError(f"test_end: expected {borders.test_end} or later, as borders only grow, got {test_end}")
        borders = replace(borders, test_end=test_end)
    _check_overlap(Path(data_dir), panel, old)

    def compared(folder: Path) -> dict[str, Any] | None:
        _warn_of_changed_features(Path(data_dir), folder)
        return None if gate is None else gate(folder)

    return build_dataset(
        panel, data_dir if out_dir is None else out_dir, borders=borders, source=source, listing=listing,
        horizon=old["horizon"], threshold=old["threshold"], window=old["window"], warm_up=old["warm_up"],
        chart_size=tuple(old["chart_size"]), features=old["features"], stride=old["stride"],
        train_fraction=old["train_fraction"], embargo_days=old["embargo_days"],
        scaler=RobustScaler.from_dict(old["scaler"]), materialize=old["materialized"], force=out_dir is None,
        oracle=oracle, gate=compared,
    )  # fmt: skip


def _check_overlap(data_dir: Path, panel: pl.DataFrame, old: Mapping[str, Any]) -> None:
    """Raise ValueError if an old sample is gone or labelled differently; labels cut short may be completed."""
    labels = make_labels(panel, old["horizon"], old["threshold"])
    now = panel.select("code", "date").hstack(labels.select(now_label="label", now_return="forward_return"))
    columns = ["code", "date", "label", "forward_return", "label_cut_short"]
    before = pl.concat(pl.read_parquet(data_dir / split / "samples.parquet", columns=columns) for split in SPLITS)
    both = before.join(now, on=["code", "date"], how="left")
    moved = (pl.col("forward_return") - pl.col("now_return")).abs() > 1e-4
    other = ~pl.col("label_cut_short") & ((pl.col("label") != pl.col("now_label")) | moved)
    changed = both.filter(pl.col("now_label").is_null() | other)
    if changed.height:
        stocks = changed["code"].unique().sort()
        raise ValueError(
            f"{changed.height} of {before.height} old samples are gone or have another forward return in the new bars "
            f"({stocks.len()} stocks, e.g. {', '.join(stocks.head(5))}; first: {changed.row(0)}). The bars were "
            "adjusted differently or rows were dropped: build a new dataset from one pull"
        )


def _warn_of_changed_features(old_dir: Path, new_dir: Path) -> None:
    """Warn where the last day of an old sample has other features: new rows on old days move ranks and look-backs."""
    old, new = (np.load(folder / "rows" / "features.npy", mmap_mode="r") for folder in (old_dir, new_dir))
    changed = []
    for split in SPLITS:
        before, after = (
            pl.read_parquet(folder / split / "samples.parquet", columns=["code", "date"]).with_columns(
                pl.Series(name, np.load(folder / split / "ends.npy"))
            )
            for folder, name in ((old_dir, "old_row"), (new_dir, "new_row"))
        )
        both = before.join(after, on=["code", "date"], how="inner", maintain_order="left")
        differ = (old[both["old_row"].to_numpy()] != new[both["new_row"].to_numpy()]).any(axis=1)
        changed.append(both.filter(pl.Series(differ)))
    rows = pl.concat(changed)
    if rows.height:
        logger.warning(
            f"{rows.height} old samples of {rows['code'].n_unique()} stocks (first: {rows.row(0)[:2]}) have other "
            "features than before: the new bars have rows or prices on old days that were not there. Figures of the "
            "old dataset do not hold for them"
        )
