"""Samples cut from rows that are stored once: windows and charts are made when a batch is asked for.

600,000 windows of 60 days would be 370 GB in the interchange format's four arrays; their rows are 300 MB. Nothing is
held in memory but memory maps, so a window costs no anonymous memory, and shuffled reading is as fast as sequential.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor

from lasps.config.dataset_config import CHART_SIZE, WINDOW
from lasps.config.model_config import MODEL_CONFIG
from lasps.config.settings import CLASS_NAMES
from lasps.data.charts import render
from lasps.data.datasets.row_windows import RowWindows
from lasps.data.datasets.samples import ReadTensors, SampleDataset, Tensors, no_charts
from lasps.data.datasets.scan import combine, digest, open_array, stamped
from lasps.data.datasets.stock_dataset import check_finite, check_integers, check_same_length
from lasps.data.features.scores import LARGEST_CODE
from lasps.window_parts import SKIP_DAYS, Reads

BAR_FIELDS = 5
ROWS = {
    "features": (np.float32, None, ""),
    "scores": (np.int8, None, " of {rows} rows, a row for each of features.npy"),
    "bars": (np.float32, BAR_FIELDS, " of {rows} rows, a row for each of features.npy"),
}
S = TypeVar("S")


class WindowDataset(SampleDataset):
    """Windows of `window` rows that end at `ends`, with charts drawn on demand.

    Args:
        rows_dir: features.npy float32 (R,V), scores.npy int8 (R,F-V), bars.npy float32 (R,5), stock_starts.npy int64
            (stocks,).
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
        self.row_paths = {name: rows / f"{name}.npy" for name in ("features", "scores", "bars", "stock_starts")}
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
        for name, (dtype, width, note) in ROWS.items():
            _check_rows(rows[name], len(rows["features"]), dtype, width, note, self.row_paths[name])
        self.features, self.scores, self.bars = (rows[name] for name in ROWS)
        self.stock_starts = rows["stock_starts"]
        self.ends = check_integers(arrays["ends"], len(self.features), self.paths["ends"], "window end")
        self.sector_ids = check_integers(arrays["sector_ids"], self.num_sectors, self.paths["sector_ids"], "sector id")
        self.labels = check_integers(arrays["labels"], len(CLASS_NAMES), self.paths["labels"], "label")
        self.windows = RowWindows(self.features, self.scores, self.window)
        self.num_features = self.windows.num_features
        self._bar_windows = RowWindows(self.bars, self.scores[:, :0], self.window)

    def _scan_rows(self) -> dict[str, str]:
        features, bars = self.row_paths["features"], self.row_paths["bars"]
        return {
            "features": digest(self.features, lambda i, x: check_finite(i, x, features), "scan features"),
            "scores": digest(self.scores, lambda i, x: _check_codes(i, x, self.row_paths["scores"]), "scan scores"),
            "bars": digest(self.bars, lambda i, x: _check_bars(i, x, bars), "scan bars"),
            "stock_starts": digest(self.stock_starts),
        }

    def _scan_samples(self) -> dict[str, str]:
        check_one_stock(self.ends, self.stock_starts, self.window, self.paths["ends"])
        return {name: digest(getattr(self, name)) for name in ("ends", "sector_ids", "labels")}

    def batch(self, indices: Sequence[int] | np.ndarray | Tensor) -> Tensors:
        """As `SampleDataset.batch`: charts are uint8."""
        return self._read(indices, lambda ends: self.windows.whole(ends), charts=True)

    def read(self, indices: Sequence[int] | np.ndarray | Tensor, reads: Reads) -> ReadTensors:
        """As `SampleDataset.read`, without making the whole windows."""
        return self._read(indices, lambda ends: self.windows.parts(ends, reads.columns), reads.charts)

    def _read(self, indices: Any, series: Callable[[np.ndarray], S], charts: bool) -> tuple[S, Tensor, Tensor, Tensor]:
        samples = self._positions(indices)
        ends = self.ends[samples]
        return (
            series(ends),
            render(self._bar_windows.whole(ends), self.chart_size) if charts else no_charts(len(samples)),
            torch.from_numpy(self.sector_ids[samples]),
            torch.from_numpy(self.labels[samples]),
        )

    def last_days_means(self, days: Sequence[int] = SKIP_DAYS) -> np.ndarray:
        """As `SampleDataset.last_days_means`."""
        return self.windows.means(self.ends, days)

    def __getstate__(self) -> dict[str, Any]:
        mapped = {*self.row_paths, *self.paths, "windows", "_bar_windows"}
        return {name: value for name, value in self.__dict__.items() if name not in mapped}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()  # a worker maps the files itself: pickling a memory map would copy it


def _check_rows(array: np.ndarray, rows: int, dtype: type, width: int | None, note: str, path: Path) -> None:
    expected = (rows, array.shape[-1] if array.ndim and width is None else width)
    if array.shape != expected or array.dtype != dtype or not array.flags.c_contiguous:
        shape = f"(R,{'F' if width is None else width})"
        raise ValueError(
            f"{path}: expected {np.dtype(dtype)} {shape}{note.format(rows=rows)}, found {array.dtype} {array.shape}. "
            "Build the dataset again"
        )


def _check_codes(start: int, chunk: np.ndarray, path: Path) -> None:
    bad = np.argwhere(chunk < -LARGEST_CODE)
    if len(bad):
        row, column = bad[0].tolist()
        raise ValueError(
            f"{path}: expected scores from -{LARGEST_CODE} to {LARGEST_CODE}, found {chunk[row, column]} at index "
            f"{[start + row, column]}. Build the dataset again"
        )


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
