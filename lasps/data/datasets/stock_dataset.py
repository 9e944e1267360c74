"""The interchange format: four .npy arrays per split, anyone's, checked before anything is trained on them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lasps.config.model_config import MODEL_CONFIG
from lasps.config.settings import CLASS_NAMES
from lasps.data.datasets.samples import SampleBatch, SampleDataset, SectorSubset, Tensors, stock_collate_fn
from lasps.data.datasets.scan import chunks, combine, digest, open_array, stamped
from lasps.window_parts import SKIP_DAYS, means_of_last_days

__all__ = ["SampleBatch", "SectorSubset", "StockDataset", "stock_collate_fn"]


class StockDataset(SampleDataset):
    """Samples read from four memory-mapped arrays of equal length N.

    Every value is looked at once, in chunks; the result is stamped beside the arrays (see `scan`) so that opening
    them again takes milliseconds.

    Args:
        time_series_path: float (N,T,F), finite.
        chart_images_path: (N,3,H,W) uint8, or float in 0..1. No chart may be blank (all pixels equal).
        sector_ids_path: integers (N,) in 0..S-1.
        labels_path: integers (N,) in 0..2 (SELL, HOLD, BUY).
        num_sectors: S; MODEL_CONFIG["num_sectors"] if not given.

    Raises:
        ValueError: a file is missing or unreadable, lengths or shapes differ, N is 0, or a value is not as above.
            The message names the file and the first offending index.
    """

    def __init__(
        self,
        time_series_path: str | Path,
        chart_images_path: str | Path,
        sector_ids_path: str | Path,
        labels_path: str | Path,
        num_sectors: int | None = None,
    ) -> None:
        self.paths = {
            "time_series": Path(time_series_path),
            "chart_images": Path(chart_images_path),
            "sector_ids": Path(sector_ids_path),
            "labels": Path(labels_path),
        }
        self.num_sectors = MODEL_CONFIG["num_sectors"] if num_sectors is None else num_sectors
        self.samples_path = self.paths["labels"].parent / "samples.parquet"
        self._open()
        self.digests = stamped(self.paths["time_series"].parent, self.paths, self._scan)
        self.fingerprint = combine(self.digests)

    def _open(self) -> None:
        arrays = {name: open_array(path, name) for name, path in self.paths.items()}
        check_same_length(arrays, self.paths)
        _check_shapes(arrays, self.paths)
        self.time_series = arrays["time_series"]
        self.chart_images = arrays["chart_images"]
        self.sector_ids = check_integers(arrays["sector_ids"], self.num_sectors, self.paths["sector_ids"], "sector id")
        self.labels = check_integers(arrays["labels"], len(CLASS_NAMES), self.paths["labels"], "label")
        self.window, self.num_features = self.time_series.shape[1:]
        self.chart_size = (self.chart_images.shape[2], self.chart_images.shape[3])

    def _scan(self) -> dict[str, str]:
        charts, series = self.paths["chart_images"], self.paths["time_series"]
        return {
            "time_series": digest(self.time_series, lambda i, x: check_finite(i, x, series), "scan time series"),
            "chart_images": digest(self.chart_images, lambda i, x: check_charts(i, x, charts), "scan charts"),
            "sector_ids": digest(self.sector_ids),
            "labels": digest(self.labels),
        }

    def batch(self, indices: Sequence[int] | np.ndarray | Tensor) -> Tensors:
        """As `SampleDataset.batch`: charts uint8 if they are stored so, else float32."""
        rows = self._positions(indices)
        charts = self.chart_images[rows]
        if charts.dtype != np.uint8:
            charts = charts.astype(np.float32, copy=False)
        return (
            torch.from_numpy(self.time_series[rows].astype(np.float32, copy=False)),
            torch.from_numpy(charts),
            torch.from_numpy(self.sector_ids[rows]),
            torch.from_numpy(self.labels[rows]),
        )

    def last_days_means(self, days: Sequence[int] = SKIP_DAYS) -> np.ndarray:
        """As `SampleDataset.last_days_means`."""
        recent = self.time_series[:, -max(days) :]
        parts = (
            torch.from_numpy(x.astype(np.float32, copy=False)) for _, x in chunks(recent, "means of the last days")
        )
        return np.concatenate([means_of_last_days(part, days).numpy() for part in parts])

    def __getstate__(self) -> dict[str, Any]:
        mapped = {"time_series", "chart_images", "sector_ids", "labels"}
        return {name: value for name, value in self.__dict__.items() if name not in mapped}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()  # a worker maps the files itself: pickling a memory map would copy it


def check_same_length(arrays: dict[str, np.ndarray], paths: dict[str, Path]) -> None:
    """Raise ValueError unless all arrays have the same, non-zero length."""
    for name, array in arrays.items():
        if array.ndim == 0:
            raise ValueError(f"{name}: expected one entry per sample, {paths[name]} holds a single number")
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise ValueError(
            f"expected arrays of one length in {paths['labels'].parent}, found {listed}. They come from "
            "different builds: build or copy all of them again"
        )
    if 0 in lengths.values():
        raise ValueError(
            f"expected at least one sample in {paths['labels'].parent}, found an empty split. Check the "
            "split's dates against the data"
        )


def _check_shapes(arrays: dict[str, np.ndarray], paths: dict[str, Path]) -> None:
    series, charts = arrays["time_series"], arrays["chart_images"]
    if series.ndim != 3 or 0 in series.shape or series.dtype.kind != "f":
        found = f"{series.dtype} {series.shape}"
        raise ValueError(f"time_series: expected float (N,T,F), {paths['time_series']} holds {found}")
    if charts.ndim != 4 or charts.shape[1] != 3 or 0 in charts.shape:
        hint = " Channels come first: transpose with .transpose(0, 3, 1, 2)" if charts.shape[-1] == 3 else ""
        raise ValueError(f"chart_images: expected (N,3,H,W), {paths['chart_images']} has shape {charts.shape}.{hint}")
    if charts.dtype != np.uint8 and charts.dtype.kind != "f":
        raise ValueError(
            f"chart_images: expected uint8 or float in 0..1, {paths['chart_images']} holds "
            f"{charts.dtype}. Save it with .astype(np.uint8)"
        )


def check_integers(values: np.ndarray, limit: int, path: Path, what: str) -> np.ndarray:
    """`values` as int64 (N,), each in 0..limit-1; an int64 memory map stays one."""
    if values.ndim != 1 or values.dtype.kind not in "iu":
        raise ValueError(f"{what}s: expected integers (N,), {path} holds {values.dtype} {values.shape}")
    bad = np.flatnonzero((values < 0) | (values >= limit))
    if len(bad):
        raise ValueError(
            f"{path}: expected every {what} in 0..{limit - 1}, found {values[bad[0]]} at index {bad[0]} "
            f"({len(bad)} of {len(values)} are outside)"
        )
    return values.astype(np.int64, copy=False)


def check_finite(start: int, chunk: np.ndarray, path: Path) -> None:
    """Raise ValueError naming the first value of `chunk` that is not a finite float32."""
    with np.errstate(over="ignore"):
        finite = np.isfinite(chunk.astype(np.float32, copy=False))
    if not finite.all():
        first, *place = np.argwhere(~finite)[0].tolist()
        place = [start + first, *place]
        value = chunk[(first, *place[1:])]
        raise ValueError(
            f"{path}: expected finite float32 values, found {value} at index {place}. Fill missing "
            "features (0 after scaling) before saving"
        )


def check_charts(start: int, chunk: np.ndarray, path: Path) -> None:
    """Raise ValueError naming the first chart of `chunk` (n,3,H,W) that is blank or leaves 0..1."""
    flat = chunk.reshape(len(chunk), -1)
    low, high = flat.min(axis=1), flat.max(axis=1)
    if chunk.dtype != np.uint8:
        outside = np.flatnonzero(~((low >= 0) & (high <= 1)))  # NaN is outside as well
        if len(outside):
            i = outside[0]
            raise ValueError(
                f"{path}: expected float charts within 0..1, chart {start + i} spans {low[i]}..{high[i]}. "
                "Divide by 255, or save the charts as uint8"
            )
    blank = np.flatnonzero(low == high)
    if len(blank):
        raise ValueError(
            f"{path}: expected every chart to show something, chart {start + blank[0]} is blank: "
            f"every pixel is {low[blank[0]]} ({len(blank)} "
            f"such charts among {start}..{start + len(chunk) - 1}). Charts that were not found or not "
            "drawn: draw them again"
        )
