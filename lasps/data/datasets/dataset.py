"""A dataset folder as one object: its description, its splits, what its samples are and what they were built with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from loguru import logger

from lasps.config.sectors import SECTORS
from lasps.config.settings import CLASS_NAMES
from lasps.data.datasets.description import load_described, read_description
from lasps.data.datasets.stock_dataset import StockDataset
from lasps.data.datasets.window_dataset import WindowDataset
from lasps.data.spec import DatasetSpec


@dataclass(frozen=True)
class Dataset:
    """What lies in a dataset folder, each file read and checked once.

    Attributes:
        folder: where it lies.
        description: the content of dataset.json; empty for four bare arrays per split (the interchange format).
    """

    folder: Path
    description: Mapping[str, Any] = field(repr=False)

    @classmethod
    def open(cls, folder: str | Path) -> Dataset:
        """Read dataset.json; the splits are opened when they are asked for.

        Raises:
            ValueError: dataset.json cannot be read, is of another schema version, or is not as the build wrote it.
        """
        return cls(Path(folder), read_description(folder) or {})

    @cached_property
    def _splits(self) -> dict[str, StockDataset | WindowDataset]:
        return {}

    def split(self, name: str) -> StockDataset | WindowDataset:
        """Samples of "train", "val" or "test". Raises as `description.load_split`."""
        if name not in self._splits:
            self._splits[name] = load_described(self.folder, name, self.description or None)
        return self._splits[name]

    @property
    def train(self) -> StockDataset | WindowDataset:
        """The training samples."""
        return self.split("train")

    @property
    def val(self) -> StockDataset | WindowDataset:
        """The samples that choices are made on."""
        return self.split("val")

    @property
    def test(self) -> StockDataset | WindowDataset:
        """The samples that alone are evidence."""
        return self.split("test")

    @cached_property
    def spec(self) -> DatasetSpec | None:
        """What it was built with; None for bare arrays."""
        return DatasetSpec.from_description(self.description) if self.description else None

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what the dataset is; of bare arrays, of train's."""
        return str(self.description["fingerprint"]) if self.description else self.train.fingerprint

    @property
    def sector_names(self) -> list[str]:
        """English names, by sector id."""
        return list(self.description.get("sectors") or [sector.english for sector in SECTORS])

    def feature_names(self) -> list[str]:
        """Names of the feature columns; of bare arrays, as many empty ones."""
        return list(self.description.get("features") or [""] * self.train.num_features)

    def training_shares(self) -> tuple[float, ...] | None:
        """Class frequencies of train's labels, from dataset.json or the labels themselves; None without train."""
        known = self.description.get("train_class_frequencies")
        if known:
            return tuple(float(share) for share in known)
        labels = self.folder / "train" / "labels.npy"
        if not labels.is_file():
            return None
        counts = np.bincount(np.load(labels), minlength=len(CLASS_NAMES))
        return tuple(float(share) for share in counts / counts.sum())

    def prior_for(self, split: str) -> tuple[float, ...]:
        """The forecast of someone who knows class frequencies alone: those of train.

        Of the split itself, with a warning, where there is no train.
        """
        shares = self.training_shares()
        if shares is None:
            logger.warning(
                f"{self.folder / 'train' / 'labels.npy'} does not exist: the prior is the split's own class "
                "frequencies (in-sample)"
            )
            labels = self.split(split).labels
            shares = tuple(float(n) for n in np.bincount(labels, minlength=len(CLASS_NAMES)) / len(labels))
        return shares
