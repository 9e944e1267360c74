"""Building a market of two million rows: time, memory and disk, against one window after the other in plain loops."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl

from experiments.benchmarks.markets import borders_of, random_panel, rate_row
from experiments.benchmarks.measure import peak_anonymous_memory, row, timed
from experiments.benchmarks.reference_charts import draw
from experiments.benchmarks.reference_features import all_features
from lasps.data.build import build_dataset
from lasps.data.datasets.description import load_split
from lasps.data.scaling import RobustScaler
from lasps.data.spec import DatasetSpec

STOCKS, DAYS = 1429, 1390
"""As many as krx_2010_2016 has: 2.0 million rows, every window a sample."""

SMALL_STOCKS, SMALL_DAYS = 12, 240
COMPARED = 512
SEED_BYTES = 609_000
"""Bytes per sample in the team's arrays before: 3 x 224 x 224 float32 and the series."""

SERIES_TOLERANCE = 1e-5


def run() -> list[dict[str, Any]]:
    """Seconds (the reference scaled from 512 windows), peak anonymous memory and bytes per sample."""
    with tempfile.TemporaryDirectory() as folder:
        reference_seconds = compare_with_loops(Path(folder) / "small")
        panel = random_panel(STOCKS, DAYS)
        out = Path(folder) / "large"
        (description, seconds), peak = peak_anonymous_memory(lambda: timed(lambda: build(panel, out)))
        samples = sum(counts["n"] for counts in description["counts"].values())
        size = sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    rows = [row(f"build {panel.height:,} rows, {samples:,} windows", seconds, reference_seconds * samples, "s")]
    if peak is not None:
        rows.append(row("peak anonymous memory above the panel's", peak / 1e9, None, "GB"))
    rows.append(row("disk per sample", size / samples, SEED_BYTES, "bytes"))
    rows.append(rate_row("rows per second", panel.height / seconds, None, "rows/s"))
    return rows


def build(panel: pl.DataFrame, out: Path) -> dict[str, Any]:
    """Every window of the panel, default features."""
    return build_dataset(panel, out, DatasetSpec(borders=borders_of(panel)), source={"name": "random walks"})


def compare_with_loops(out: Path) -> float:
    """Build a small market both ways, assert 512 windows equal; the loops' seconds per window."""
    panel = random_panel(SMALL_STOCKS, SMALL_DAYS)
    description = build(panel, out)
    dataset = load_split(out, "train")
    assert dataset.samples is not None
    keys = dataset.samples.select("code", "date").to_pandas().iloc[:COMPARED]
    names, scaler = description["features"], RobustScaler.from_dict(description["scaler"])
    plain = panel.to_pandas()
    (series, charts), seconds = timed(lambda: windows_in_loops(plain, keys, names, scaler))
    ours = dataset.batch(np.arange(len(keys)))
    np.testing.assert_array_equal(ours[1].numpy(), charts)
    np.testing.assert_allclose(ours[0].numpy(), series, rtol=SERIES_TOLERANCE, atol=SERIES_TOLERANCE)
    return seconds / len(keys)


def windows_in_loops(
    panel: pd.DataFrame, keys: pd.DataFrame, names: list[str], scaler: RobustScaler
) -> tuple[np.ndarray, np.ndarray]:
    """Series (n,60,F) and charts (n,3,96,180) of the samples `keys`, one after the other."""
    features = all_features(panel, names)
    columns = panel[["open", "high", "low", "close", "volume"]].to_numpy(dtype=np.float32)
    series, charts = [], []
    for code, day in keys.itertuples(index=False):
        rows = np.flatnonzero((panel["code"] == code) & (panel["date"] <= day))[-60:]
        scaled = (features[rows] - scaler.center) / scaler.scale
        series.append(np.nan_to_num(np.clip(scaled, -scaler.clip, scaler.clip)))
        charts.append(draw(columns[rows], 96, 180))
    return np.stack(series).astype(np.float32), np.stack(charts)
