"""From a validated panel to a dataset on disk: features, labels, splits, scaler, rows, windows.

The folder appears in one step when everything is written, or not at all; `dataset_files` says what stands in it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from loguru import logger

from lasps.config.sectors import SECTORS
from lasps.config.settings import CLASS_NAMES
from lasps.data.dataset_files import (
    digests_of,
    failures_told,
    materialize_split,
    refuse_unknown_folder,
    save_array,
    standing_twin,
    write_description,
)
from lasps.data.datasets.description import SCHEMA_VERSION, fingerprint
from lasps.data.datasets.panel_samples import sample_table
from lasps.data.datasets.replacement import put_in_place, staging
from lasps.data.features import compute_rows
from lasps.data.labels import FLAGS, make_labels
from lasps.data.panel import Panel, bar_rows
from lasps.data.sampling import Sampling, choose_samples
from lasps.data.scaling import RobustScaler, scaled
from lasps.data.spec import DatasetSpec
from lasps.data.splits import SPLITS
from lasps.terminal import in_words

Check = Callable[[Path], dict[str, Any] | None]
"""Looks at a finished dataset folder: its report, or an error that stops the build."""
Oracle = Callable[[pl.Series, pl.Series], Any]
"""(codes, dates) -> an object with `probabilities` (N,3), of a market whose truth is known."""
ORACLE_COLUMNS = tuple(f"oracle_p_{name.lower()}" for name in CLASS_NAMES)


def build_dataset(
    panel: Panel | pl.DataFrame,
    out_dir: str | Path,
    spec: DatasetSpec,
    *,
    source: Mapping[str, Any],
    listing: pl.DataFrame | None = None,
    force: bool = False,
    oracle: Oracle | None = None,
    check: Check | None = None,
) -> dict[str, Any]:
    """Build train, val and test in `out_dir`, in one step.

    An identical dataset that stands there already is left as it is; another one is replaced only with `force`, and a
    folder without dataset.json never.

    Args:
        panel: validated, with `sector` (`select_universe`).
        out_dir: the dataset's folder.
        spec: what decides the samples.
        source: where the bars came from (name, fingerprint, fetch date ...), and `universe`; stored unchanged.
        listing: names, added to samples.parquet.
        force: replace a dataset of another fingerprint.
        oracle: (codes, dates) -> an object with `probabilities` (N,3) and `standard_error`, for a market whose truth
            is known.
        check: looks at the finished folder before it is put in place and raises to stop the build; what it returns
            stands in dataset.json as `integrity`.

    Returns:
        The content of dataset.json.

    Raises:
        ValueError: a split without samples, unknown features, bad options, or `out_dir` holds something else.
    """
    out_dir = Path(out_dir)
    refuse_unknown_folder(out_dir)
    panel = Panel.of(panel)
    _check_sectors(panel.frame)
    labels = make_labels(panel, spec.horizon, spec.threshold)
    sampling = choose_samples(panel, labels, spec)
    with failures_told(out_dir), staging(out_dir) as folder:
        spec = replace(spec, scaler=_write_rows(folder / "rows", panel, spec, sampling))
        tables = _write_samples(folder, panel, labels, sampling, listing, oracle)
        for split in SPLITS if spec.materialize else ():
            materialize_split(folder, split, spec.window, spec.chart_size, len(SECTORS))
        description = _describe(spec, sampling, tables, source)
        description["digests"] = digests_of(folder)
        description["fingerprint"] = fingerprint(description)
        write_description(folder, description)
        if check is not None:
            description["integrity"] = check(folder)
            write_description(folder, description)
        twin = standing_twin(out_dir, description, force)
        if twin is not None:
            return twin
        put_in_place(folder, out_dir)
    logger.info("Saved: {} ({})", out_dir, in_words({name: len(rows) for name, rows in sampling.ends.items()}))
    return description


def _check_sectors(panel: pl.DataFrame) -> None:
    if "sector" not in panel.columns or panel["sector"].null_count():
        raise ValueError(
            f"panel: expected a complete column `sector` (run select_universe first), found columns {panel.columns}"
        )
    outside = panel.filter(~pl.col("sector").is_between(0, len(SECTORS) - 1))
    if outside.height:
        code, sector = outside.select("code", "sector").row(0)
        raise ValueError(f"panel: expected sectors 0..{len(SECTORS) - 1}, found {sector} for code {code}")


def _write_rows(folder: Path, panel: Panel, spec: DatasetSpec, sampling: Sampling) -> RobustScaler:
    """Write scaled features, scores, bars and stock starts; returns the scaler."""
    rows = compute_rows(panel, spec.feature_names)
    names = spec.feature_names[: rows.values.shape[1]]
    scaler = spec.scaler or RobustScaler.fit(rows.values[sampling.train_rows], names)
    rows = scaled(rows, scaler)
    save_array(folder / "features.npy", rows.values)
    save_array(folder / "scores.npy", rows.codes)
    del rows
    save_array(folder / "bars.npy", bar_rows(panel.frame))
    save_array(folder / "stock_starts.npy", panel.starts[:-1].astype(np.int64))
    return scaler


def _write_samples(
    folder: Path,
    panel: Panel,
    labels: pl.DataFrame,
    sampling: Sampling,
    listing: pl.DataFrame | None,
    oracle: Oracle | None,
) -> dict[str, pl.DataFrame]:
    """Write ends, sector ids, labels and samples.parquet of each split; returns the sample tables."""
    tables = {}
    for split, ends in sampling.ends.items():
        table = sample_table(panel, labels, ends)
        if listing is not None:
            names = listing.select("code", "name").unique("code", keep="first")
            table = table.join(names, on="code", how="left", maintain_order="left")
        if oracle is not None:
            truth = np.asarray(oracle(table["code"], table["date"]).probabilities, dtype=np.float64)
            table = table.with_columns(pl.Series(name, truth[:, i]) for i, name in enumerate(ORACLE_COLUMNS))
        save_array(folder / split / "ends.npy", ends.astype(np.int64))
        save_array(folder / split / "sector_ids.npy", table["sector"].to_numpy().astype(np.int64))
        save_array(folder / split / "labels.npy", table["label"].to_numpy().astype(np.int64))
        table.write_parquet(folder / split / "samples.parquet", compression="zstd")
        tables[split] = table
    return tables


def _describe(
    spec: DatasetSpec, sampling: Sampling, tables: dict[str, pl.DataFrame], source: Mapping[str, Any]
) -> dict[str, Any]:
    assert spec.scaler is not None
    labels = tables["train"]["label"].to_numpy()
    return {
        "schema_version": SCHEMA_VERSION,
        "universe": source.get("universe"),
        **spec.to_dict(),
        "scaler": spec.scaler.to_dict(),
        "sectors": [sector.english for sector in SECTORS],
        "classes": list(CLASS_NAMES),
        "counts": {split: _counts(table) for split, table in tables.items()},
        "left_out": sampling.left_out,
        "train_class_frequencies": (np.bincount(labels, minlength=len(CLASS_NAMES)) / len(labels)).tolist(),
        "source": dict(source),
        "integrity": None,
        "materialized": spec.materialize,
    }


def _counts(table: pl.DataFrame) -> dict[str, Any]:
    """Samples of a split: in all, by class, by sector, by flag; its stocks and days."""
    classes = np.bincount(table["label"].to_numpy(), minlength=len(CLASS_NAMES))
    return {
        "n": table.height,
        "classes": dict(zip(CLASS_NAMES, classes.tolist(), strict=True)),
        "sectors": np.bincount(table["sector"].to_numpy(), minlength=len(SECTORS)).tolist(),
        "stocks": table["code"].n_unique(),
        "days": table["date"].n_unique(),
        "first": str(table["date"].min()),
        "last": str(table["date"].max()),
        **{flag: int(table[flag].sum()) for flag in FLAGS},
    }
