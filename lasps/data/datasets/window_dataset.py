"""Samples cut from rows that are stored once: windows and charts are made when a batch is asked for.

600,000 windows of 60 days would be 370 GB in the interchange format's four arrays; their rows are 300 MB. Nothing is
held in memory but memory maps, so a window costs no anonymous memory, and shuffled reading is as fast as sequential.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lasps.config.dataset_config import CHART_SIZE, WINDOW
from lasps.config.model_config import MODEL_CONFIG
from lasps.config.settings import CLASS_NAMES
from lasps.data import charts
from lasps.data.datasets.samples import SampleDataset, Tensors
from lasps.data.datasets.scan import combine, digest, open_array, stamped
from lasps.data.datasets.stock_dataset import check_finite, check_integers, check_same_length

BAR_FIELDS = 5


class WindowDataset(SampleDataset):
    """Windows of `window` rows that end at `ends`, with charts drawn on demand.

    Args:
        rows_dir: features.npy float32 (R,F), bars.npy float32 (R,5), stock_starts.npy int64 (stocks,).
        split_dir: ends.npy (row of each window's last day), sector_ids.npy, labels.npy; samples.parquet if known.
        window: T.
        chart_size: (H, W) of the charts.
        num_sectors: S; MODEL_CONFIG["num_sectors"] if not given.

    Raises:
        ValueError: a file is missing or unreadable, lengths differ, a split is empty, a value is not finite, a price
            not positive, a sector or label out of range, or a window leaves the rows of one stock.
    """

    def __init__(
        self,
        rows_dir: str | Path,
        split_dir: str | Path,
        window: int = WINDOW,
        chart_size: tuple[int, int] = CHART_SIZE,
        num_sectors: int | None = None,
    ) -> None:
        rows, split = Path(rows_dir), Path(split_dir)
        self.row_paths = {name: rows / f"{name}.npy" for name in ("features", "bars", "stock_starts")}
        self.paths = {name: split / f"{name}.npy" for name in ("ends", "sector_ids", "labels")}
        self.num_sectors = MODEL_CONFIG["num_sectors"] if num_sectors is None else num_sectors
        self.window, self.chart_size = window, (int(chart_size[0]), int(chart_size[1]))
        self.samples_path = split / "samples.parquet"
        self._open()
        self.digests = stamped(rows, self.row_paths, self._scan_rows) | self._scan_samples()
        self.fingerprint = combine(self.digests | {"window": window, "chart_size": list(self.chart_size)})

    def _open(self) -> None:
        arrays = {name: open_array(path, name) for name, path in self.paths.items()}
        check_same_length(arrays, self.paths)
        rows = {name: open_array(path, name) for name, path in self.row_paths.items()}
        features, bars = rows["features"], rows["bars"]
        if features.ndim != 2 or features.dtype != np.float32 or not features.flags.c_contiguous:
            raise ValueError(
                f"{self.row_paths['features']}: expected float32 (R,F), found {features.dtype} "
                f"{features.shape}. Build the dataset again"
            )
        if bars.shape != (len(features), BAR_FIELDS) or bars.dtype != np.float32 or not bars.flags.c_contiguous:
            raise ValueError(
                f"{self.row_paths['bars']}: expected float32 {(len(features), BAR_FIELDS)}, a row for "
                f"each of features.npy, found {bars.dtype} {bars.shape}. Build the dataset again"
            )
        self.features, self.bars, self.stock_starts = features, bars, rows["stock_starts"]
        self.ends = check_integers(arrays["ends"], len(features), self.paths["ends"], "window end")
        self.sector_ids = check_integers(arrays["sector_ids"], self.num_sectors, self.paths["sector_ids"], "sector id")
        self.labels = check_integers(arrays["labels"], len(CLASS_NAMES), self.paths["labels"], "label")
        self.num_features = features.shape[1]
        self._feature_windows, self._bar_windows = (_windows(x, self.window) for x in (features, bars))

    def _scan_rows(self) -> dict[str, str]:
        features, bars = self.row_paths["features"], self.row_paths["bars"]
        return {
            "features": digest(self.features, lambda i, x: check_finite(i, x, features), "scan features"),
            "bars": digest(self.bars, lambda i, x: _check_bars(i, x, bars), "scan bars"),
            "stock_starts": digest(self.stock_starts),
        }

    def _scan_samples(self) -> dict[str, str]:
        check_one_stock(self.ends, self.stock_starts, self.window, self.paths["ends"])
        return {name: digest(getattr(self, name)) for name in ("ends", "sector_ids", "labels")}

    def batch(self, indices: Sequence[int] | np.ndarray | Tensor) -> Tensors:
        """As `SampleDataset.batch`: charts are uint8."""
        samples = self._positions(indices)
        starts = torch.from_numpy(self.ends[samples] - (self.window - 1))
        series = self._feature_windows.index_select(0, starts)
        bars = self._bar_windows.index_select(0, starts)
        return (
            series.view(len(samples), self.window, self.num_features),
            charts.render(bars.view(len(samples), self.window, BAR_FIELDS), self.chart_size),
            torch.from_numpy(self.sector_ids[samples]),
            torch.from_numpy(self.labels[samples]),
        )

    def last_day_features(self) -> np.ndarray:
        """float32 (N,F), copied from the memory map."""
        return self.features[self.ends]

    def __getstate__(self) -> dict[str, Any]:
        mapped = {*self.row_paths, *self.paths, "_feature_windows", "_bar_windows"}
        return {name: value for name, value in self.__dict__.items() if name not in mapped}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()  # a worker maps the files itself: pickling a memory map would copy it


def _windows(rows: np.ndarray, window: int) -> Tensor:
    """Every window of `window` rows as one flat row: a view (R - window + 1, window x k) on rows (R,k), no copy."""
    count, width = rows.shape
    if count < window:
        raise ValueError(
            f"expected at least {window} rows for windows of {window} days, found {count}. Build the dataset again"
        )
    return torch.from_numpy(rows).as_strided((count - window + 1, window * width), (width, 1))


def _check_bars(start: int, chunk: np.ndarray, path: Path) -> None:
    check_finite(start, chunk, path)
    bad = np.argwhere(chunk[:, :4] <= 0)
    if len(bad):
        row, column = bad[0].tolist()
        raise ValueError(
            f"{path}: expected positive prices, found {chunk[row, column]} at index "
            f"{[start + row, column]}. Build the dataset again from a validated panel"
        )


def check_one_stock(ends: np.ndarray, stock_starts: np.ndarray, window: int, path: Path) -> None:
    """Raise ValueError if a window of `window` rows that ends at `ends` begins before its stock's first row."""
    first = stock_starts[np.searchsorted(stock_starts, ends, side="right") - 1]
    bad = np.flatnonzero(ends - (window - 1) < first)
    if len(bad):
        raise ValueError(
            f"{path}: the window of sample {bad[0]}, {window} rows up to row {ends[bad[0]]}, begins "
            f"before its stock's first row {first[bad[0]]} ({len(bad)} such windows). Build the dataset "
            "again"
        )
