"""Several datasets of one kind as one: the samples of the first, then those of the next."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any

import numpy as np
import polars as pl
import torch
from torch import Tensor

from lasps.data.datasets.samples import ReadTensors, SampleDataset, Tensors
from lasps.window_parts import SKIP_DAYS, Reads, WindowParts


class JoinedDataset(SampleDataset):
    """The samples of all parts, one part after the other.

    Raises:
        ValueError: no part, or parts of other features, windows or charts than the first.
    """

    def __init__(self, parts: Sequence[SampleDataset]) -> None:
        shapes = {(part.num_features, part.window, part.chart_size) for part in parts}
        if len(shapes) != 1:
            raise ValueError(f"expected datasets of the same features, window and chart size, got {sorted(shapes)}")
        self.parts = tuple(parts)
        self.num_features, self.window, self.chart_size = shapes.pop()
        self.labels = np.concatenate([part.labels for part in parts])
        self.sector_ids = np.concatenate([part.sector_ids for part in parts])
        self.starts = np.cumsum([0, *(len(part) for part in parts)])

    @property
    def fingerprint(self) -> str:  # type: ignore[override]
        """SHA-256 of the parts' fingerprints."""
        return hashlib.sha256("|".join(part.fingerprint for part in self.parts).encode()).hexdigest()

    @cached_property
    def samples(self) -> pl.DataFrame | None:
        """The parts' samples.parquet, one after the other; None where a part has none."""
        tables = [part.samples for part in self.parts if part.samples is not None]
        return pl.concat(tables, how="diagonal") if len(tables) == len(self.parts) else None

    def batch(self, indices: Sequence[int] | np.ndarray | Tensor) -> Tensors:
        """As `SampleDataset.batch`."""
        series, charts, sector_ids, labels = self._gathered(indices, lambda part, rows: part.batch(rows))
        return series, charts, sector_ids, labels

    def read(self, indices: Sequence[int] | np.ndarray | Tensor, reads: Reads) -> ReadTensors:
        """As `SampleDataset.read`."""
        found = self._gathered(indices, lambda part, rows: _flat(part.read(rows, reads)))
        days, means, charts, sector_ids, labels = found
        return WindowParts(days, means), charts, sector_ids, labels

    def last_days_means(self, days: Sequence[int] = SKIP_DAYS) -> np.ndarray:
        """As `SampleDataset.last_days_means`."""
        return np.concatenate([part.last_days_means(days) for part in self.parts])

    def _gathered(self, indices: Any, read: Callable[[SampleDataset, np.ndarray], Sequence[Tensor]]) -> list[Tensor]:
        positions = self._positions(indices)
        owner = np.searchsorted(self.starts, positions, side="right") - 1
        found, order = [], []
        for number, part in enumerate(self.parts):
            own = np.flatnonzero(owner == number)
            if len(own) or not len(positions):
                found.append(read(part, positions[own] - self.starts[number]))
                order.append(own)
        back = torch.from_numpy(np.argsort(np.concatenate(order), kind="stable"))
        return [torch.cat(tensors)[back] for tensors in zip(*found, strict=True)]


def _flat(read: ReadTensors) -> list[Tensor]:
    parts, charts, sector_ids, labels = read
    return [*parts, charts, sector_ids, labels]
