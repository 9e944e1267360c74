"""What every dataset here shares: items, batches, sector subsets and how a loader collates them.

Shapes: B batch, T days, F features, S sectors, H x W chart.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor
from torch.utils.data import Dataset

from lasps.data.datasets.scan import frame_digest
from lasps.data.errors import explained
from lasps.window_parts import SKIP_DAYS, Reads, WindowParts, parts_of

Tensors = tuple[Tensor, Tensor, Tensor, Tensor]
"""time series float32 (B,T,F), charts (B,3,H,W) uint8 or float32 in 0..1, sector ids int64 (B,), labels int64 (B,)"""

ReadTensors = tuple[WindowParts, Tensor, Tensor, Tensor]
"""As `Tensors`, the time series reduced to what a model reads; charts (B,0) for a model that reads none"""


def no_charts(samples: int) -> Tensor:
    """What stands for the charts of a model that reads none: uint8 (B,0)."""
    return torch.empty((samples, 0), dtype=torch.uint8)


class SampleBatch(Sequence[dict[str, Tensor]]):
    """A batch that is already stacked and still reads as a list of items, for collate functions of any origin."""

    def __init__(self, tensors: Tensors) -> None:
        self.tensors = (tensors[0], charts_to_float(tensors[1]), tensors[2], tensors[3])

    def __len__(self) -> int:
        return len(self.tensors[3])

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        if not -len(self) <= index < len(self):
            raise IndexError(f"sample {index} of a batch of {len(self)}")
        series, chart, sector, label = (tensor[index] for tensor in self.tensors)
        return {"time_series": series, "chart_image": chart, "sector_id": sector, "label": label}

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        return (self[i] for i in range(len(self)))


def charts_to_float(charts: Tensor) -> Tensor:
    """uint8 charts -> float32 in 0..1; float charts as they are."""
    return charts.float().div_(255) if charts.dtype == torch.uint8 else charts


def stock_collate_fn(batch: Sequence[Mapping[str, Tensor]]) -> Tensors:
    """Items -> (time_series (B,T,F), chart_image (B,3,H,W), sector_id (B,), label (B,))."""
    if isinstance(batch, SampleBatch):
        return batch.tensors
    series, charts, sectors, labels = (
        torch.stack([item[key] for item in batch]) for key in ("time_series", "chart_image", "sector_id", "label")
    )
    return series, charts, sectors, labels


class SampleDataset(Dataset[dict[str, Tensor]]):
    """Samples with a sector and a label each. A subclass fills the attributes and says how a batch is made."""

    sector_ids: np.ndarray
    """int64 (N,), 0..S-1"""
    labels: np.ndarray
    """int64 (N,), 0 SELL, 1 HOLD, 2 BUY"""
    fingerprint: str
    """SHA-256 of everything a sample is made from"""
    num_features: int
    window: int
    chart_size: tuple[int, int]
    samples_path: Path
    samples_digest: str | None = None
    """What dataset.json says of samples.parquet (`scan.frame_digest`); None for data without a description"""

    def batch(self, indices: Sequence[int] | np.ndarray | Tensor) -> Tensors:
        """The samples of `indices` as stacked tensors, charts left as they are stored (uint8: no conversion)."""
        raise NotImplementedError

    def read(self, indices: Sequence[int] | np.ndarray | Tensor, reads: Reads) -> ReadTensors:
        """As `batch`, but only what a model reads."""
        series, charts, sector_ids, labels = self.batch(indices)
        parts = parts_of(series, torch.tensor(reads.columns))
        return parts, charts if reads.charts else no_charts(len(labels)), sector_ids, labels

    def last_days_means(self, days: Sequence[int] = SKIP_DAYS) -> np.ndarray:
        """The features' means over each window's last days, one number of days after the other: float32 (N, 3 F)."""
        raise NotImplementedError

    def last_day_features(self) -> np.ndarray:
        """The features of each window's last day: float32 (N,F)."""
        return self.last_days_means((1,))

    @cached_property
    def samples(self) -> pl.DataFrame | None:
        """samples.parquet beside the arrays: code, date, forward returns ... one row per sample. None: not there.

        Raises:
            ValueError: it is not the table that dataset.json describes, has another number of rows than there are
                samples, or other labels or sectors, as rows that were shifted have.
        """
        if not self.samples_path.is_file():
            return None
        with explained(self.samples_path, "one row per sample", "The file is damaged: build the dataset again"):
            table = pl.read_parquet(self.samples_path)
        if table.height != len(self):
            raise ValueError(
                f"{self.samples_path}: expected {len(self)} rows, one per sample, found {table.height}. "
                "The file belongs to another build: remove it or build the dataset again"
            )
        for column, expected in (("label", self.labels), ("sector", self.sector_ids)):
            if column not in table.columns:
                continue
            differ = np.flatnonzero(table[column].to_numpy() != expected)
            if len(differ):
                i = int(differ[0])
                raise ValueError(
                    f"{self.samples_path}: expected {column} {expected[i]} in row {i}, as in the arrays "
                    f"beside it, found {table[column][i]} ({len(differ)} of {len(self)} rows "
                    "differ). Its rows are in another order or of another build: build the dataset again"
                )
        if self.samples_digest is not None and frame_digest(table) != self.samples_digest:
            raise ValueError(
                f"{self.samples_path}: expected the table that dataset.json describes, found other values "
                "(dates, returns, ...). It was changed or is of another build: build the dataset again"
            )
        return table

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        """One sample: time_series float32 (T,F), chart_image float32 (3,H,W) in 0..1, sector_id and label int64 ()."""
        return self.__getitems__([int(index)])[0]

    def __getitems__(self, indices: Sequence[int]) -> SampleBatch:
        """Many samples at once: what a DataLoader calls, and much faster than one by one."""
        return SampleBatch(self.batch(indices))

    def get_sector_indices(self, sector_id: int) -> np.ndarray:
        """The indices of one sector's samples, ascending: int64 (n,)."""
        return np.flatnonzero(self.sector_ids == sector_id)

    def get_sector_subset(self, sector_id: int) -> SectorSubset:
        """The samples of one sector."""
        return SectorSubset(self, self.get_sector_indices(sector_id), sector_id)

    def _positions(self, indices: Sequence[int] | np.ndarray | Tensor) -> np.ndarray:
        positions = np.asarray(indices, dtype=np.int64).reshape(-1)
        if len(positions) and not (-len(self) <= positions.min() and positions.max() < len(self)):
            worst = positions.max() if positions.max() >= len(self) else positions.min()
            raise IndexError(f"sample {worst}: this dataset has {len(self)} samples")
        return np.where(positions < 0, positions + len(self), positions)


class SampleSubset(SampleDataset):
    """The samples of `dataset` at `indices`."""

    def __init__(self, dataset: SampleDataset, indices: np.ndarray) -> None:
        self.dataset = dataset
        self.indices = np.asarray(indices, dtype=np.int64)
        self.sector_ids = dataset.sector_ids[self.indices]
        self.labels = dataset.labels[self.indices]
        self.num_features = dataset.num_features
        self.window = dataset.window
        self.chart_size = dataset.chart_size

    @property
    def fingerprint(self) -> str:  # type: ignore[override]
        """SHA-256 of the whole dataset's fingerprint and the indices."""
        return hashlib.sha256(self.dataset.fingerprint.encode() + self.indices.tobytes()).hexdigest()

    @cached_property
    def samples(self) -> pl.DataFrame | None:
        """The rows of the whole dataset's samples.parquet at `indices`."""
        table = self.dataset.samples
        return None if table is None else table[self.indices]

    def batch(self, indices: Sequence[int] | np.ndarray | Tensor) -> Tensors:
        """As the whole dataset's `batch`, with indices into this subset."""
        return self.dataset.batch(self.indices[self._positions(indices)])

    def read(self, indices: Sequence[int] | np.ndarray | Tensor, reads: Reads) -> ReadTensors:
        """As the whole dataset's `read`, with indices into this subset."""
        return self.dataset.read(self.indices[self._positions(indices)], reads)

    def last_days_means(self, days: Sequence[int] = SKIP_DAYS) -> np.ndarray:
        """float32 (n, 3 F), the subset's rows."""
        return self.dataset.last_days_means(days)[self.indices]


class SectorSubset(SampleSubset):
    """The samples of `dataset` at `indices`, all of sector `sector_id`."""

    def __init__(self, dataset: SampleDataset, indices: np.ndarray, sector_id: int) -> None:
        super().__init__(dataset, indices)
        self.sector_id = sector_id


def whole_days(dataset: SampleDataset, at_most: int) -> SampleDataset:
    """Every k-th day of a dataset, with all its samples: about `at_most` of them, the whole one where it has no more.

    Days that are seen whole keep what ranks and means across a day's stocks are made of; always the same days, so that
    two looks differ by the weights alone. Without dates it is every k-th sample.
    """
    step = -(-len(dataset) // at_most)
    if step == 1:
        return dataset
    day = np.arange(len(dataset))
    if dataset.samples is not None and "date" in dataset.samples.columns:
        day = dataset.samples["date"].rank("dense").to_numpy().astype(np.int64) - 1
    return SampleSubset(dataset, np.flatnonzero(day % step == step // 2))
