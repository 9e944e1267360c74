"""A dataset folder opened for reading, and the check that its arrays belong together."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from lasps.config.dataset_config import WINDOW
from lasps.config.settings import CLASS_NAMES
from lasps.data.integrity.findings import Finding, found, hits_without_date, plural
from lasps.data.splits import SPLITS

N_CLASSES = len(CLASS_NAMES)


@dataclass
class Split:
    """The arrays of one split; what a foreign dataset lacks is None."""

    name: str
    labels: np.ndarray
    sector_ids: np.ndarray
    ends: np.ndarray | None = None
    samples: pl.DataFrame | None = None
    time_series: np.ndarray | None = None
    chart_images: np.ndarray | None = None


@dataclass
class Dataset:
    """A dataset folder, opened for reading: {train,val,test}/, rows/ and dataset.json, whichever are there."""

    folder: Path
    splits: dict[str, Split]
    features: np.ndarray | None = None
    bars: np.ndarray | None = None
    description: dict[str, Any] = field(default_factory=dict)

    @property
    def feature_names(self) -> list[str]:
        width = self.features.shape[1] if self.features is not None else 0
        for split in self.splits.values():
            if split.time_series is not None and not width:
                width = split.time_series.shape[-1]
        names = [str(n) for n in self.description.get("features", [])]
        return names if len(names) == width else [f"feature {i}" for i in range(width)]

    @property
    def window(self) -> int:
        return int(self.description.get("window", WINDOW))


def open_dataset(folder: str | Path) -> Dataset:
    """Open a dataset folder with memory maps.

    Raises:
        ValueError: no folder, or no split with labels.npy and sector_ids.npy in it.
    """
    folder = Path(folder)
    splits = {name: split for name in SPLITS if (split := _open_split(folder / name)) is not None}
    if not splits:
        raise ValueError(
            f"{folder}: expected a dataset with {{{','.join(SPLITS)}}}/labels.npy and sector_ids.npy, found neither. "
            "Build one with `make data`."
        )
    described = folder / "dataset.json"
    description = json.loads(described.read_text(encoding="utf-8")) if described.exists() else {}
    rows = folder / "rows"
    return Dataset(folder, splits, _load(rows / "features.npy"), _load(rows / "bars.npy"), description)


def _open_split(folder: Path) -> Split | None:
    labels, sectors = _load(folder / "labels.npy"), _load(folder / "sector_ids.npy")
    if labels is None or sectors is None:
        return None
    table = folder / "samples.parquet"
    return Split(
        folder.name,
        np.asarray(labels),
        np.asarray(sectors),
        _load(folder / "ends.npy"),
        pl.read_parquet(table) if table.exists() else None,
        _load(folder / "time_series.npy"),
        _load(folder / "chart_images.npy"),
    )


def _load(path: Path) -> np.ndarray | None:
    if not path.exists():
        return None
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"{path}: expected a NumPy array, but {error}; build the dataset again") from error


def array_agreement(data: Dataset) -> Finding:
    """Arrays of one split with another length, labels or sectors out of range or other than in samples.parquet."""
    num_sectors = len(data.description.get("sectors") or []) or None
    rows = data.features.shape[0] if data.features is not None else None
    problems = [p for split in data.splits.values() for p in _disagreements(split, num_sectors, rows)]
    hits = hits_without_date(problems)
    return found(
        "array_agreement",
        hits,
        sum(len(s.labels) for s in data.splits.values()),
        severity="fatal",
        summary=f"{plural(hits.height, 'disagreement')} between the arrays of the dataset.",
        advice="The files are not of one build. Build the dataset again.",
    )


def _disagreements(split: Split, num_sectors: int | None, rows: int | None) -> list[tuple[str, str]]:
    n, out = len(split.labels), []
    arrays = {
        "sector_ids": split.sector_ids,
        "ends": split.ends,
        "samples": split.samples,
        "time_series": split.time_series,
        "chart_images": split.chart_images,
    }
    for name, array in arrays.items():
        if array is not None and len(array) != n:
            out.append((split.name, f"{name} has {len(array):,} entries, labels has {n:,}"))
    if out or n == 0:
        return out
    if not ((split.labels >= 0) & (split.labels < N_CLASSES)).all():
        out.append((split.name, f"labels outside 0..{N_CLASSES - 1}: {split.labels.min()}..{split.labels.max()}"))
    low, high = split.sector_ids.min(), split.sector_ids.max()
    if low < 0 or (num_sectors and high >= num_sectors):
        out.append((split.name, f"sector ids {low}..{high}, but there are {num_sectors} sectors"))
    if split.ends is not None and rows is not None and not 0 <= split.ends.min() <= split.ends.max() < rows:
        out.append((split.name, f"ends {split.ends.min()}..{split.ends.max()} outside the {rows:,} rows"))
    if split.samples is not None:
        for column, array in (("label", split.labels), ("sector", split.sector_ids)):
            if column in split.samples.columns:
                differ = int((split.samples[column].cast(pl.Int64).to_numpy() != array).sum())
                if differ:
                    out.append((split.name, f"{column} differs from samples.parquet in {differ:,} of {n:,} samples"))
    return out
