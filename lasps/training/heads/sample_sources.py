"""The samples behind a loader, in a fixed order, however the loader shuffles them.

Phase 2 needs each sample once and always in the same order: features are kept between runs, and heads draw their own
order. So a loader is asked for its dataset and read from that; only a loader that hides its dataset is iterated.

Shapes: B batch, N samples.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset, Subset
from torch.utils.data.sampler import BatchSampler, RandomSampler, SequentialSampler

from lasps.training.batches import KEYS, Batch
from lasps.window_parts import Reads, WindowParts


@dataclass(frozen=True)
class SampleSource:
    """Samples of one dataset at `indices` (N,), ascending, or, with indices None, whatever `dataset` yields, once.

    expected: the sector each sample must be of (N,) or one for all; -1 takes the sample's own sector id.
    """

    dataset: Any
    indices: np.ndarray | None
    expected: np.ndarray
    collate_fn: Any = None
    num_workers: int = 0

    @property
    def fingerprint(self) -> str | None:
        """The dataset's own fingerprint, if it has one."""
        value = getattr(self.dataset, "fingerprint", None)
        return value if self.indices is not None and isinstance(value, str) and value else None

    def batches(self, batch_size: int, reads: Reads | None = None) -> Iterator[Batch]:
        """All samples in order, `batch_size` at a time; with `reads`, of our datasets only what a model reads.

        Raises:
            ValueError: a sample is not of the sector whose loader it came from, or a batch is not four arrays.
        """
        done = 0
        for raw in self._raw_batches(batch_size, reads):
            batch = as_batch(raw)
            self.check_sectors(batch[2], done)
            done += len(batch[3])
            yield batch

    def _raw_batches(self, batch_size: int, reads: Reads | None) -> Iterable[Any]:
        if self.indices is None:
            whole: Iterable[Any] = self.dataset
            return whole
        if callable(getattr(self.dataset, "batch", None)):
            parts = (self.indices[i : i + batch_size] for i in range(0, len(self.indices), batch_size))
            if reads is not None and hasattr(self.dataset, "read"):
                return (self.dataset.read(part, reads) for part in parts)
            return (self.dataset.batch(part) for part in parts)
        subset = Subset(self.dataset, self.indices.tolist())
        return DataLoader(subset, batch_size, num_workers=self.num_workers, collate_fn=self.collate_fn)

    def check_sectors(self, found: Tensor, done: int = 0) -> None:
        """Raise ValueError unless the samples from number `done` on have the sectors they must be of."""
        expected = self.expected if self.expected.ndim == 0 else self.expected[done : done + len(found)]
        wrong = (expected >= 0) & (found.numpy() != expected)
        if np.any(wrong):
            at = int(np.flatnonzero(wrong)[0])
            wanted = int(np.broadcast_to(expected, wrong.shape)[at])
            raise ValueError(
                f"expected only samples of sector {wanted} from its loader, got one of sector {int(found[at])}: build "
                "each sector's loader from get_sector_subset(sector)"
            )


def sources_of(loaders: Any) -> list[SampleSource]:
    """Sources of `{sector: loader}`, or of one loader or dataset over many sectors.

    Sectors that share a dataset become one source in the dataset's order, so that it is read from front to back.
    """
    pairs = sorted(loaders.items()) if isinstance(loaders, Mapping) else [(-1, loaders)]
    merged: dict[int, list[SampleSource]] = {}
    for sector, loader in pairs:
        source = source_of(loader, sector)
        key = id(source.dataset) if source.indices is not None else id(loader)
        merged.setdefault(key, []).append(source)
    return [_merge(group) for group in merged.values()]


def source_of(loader: Any, sector: int = -1) -> SampleSource:
    """The samples of one loader: a DataLoader, any object with a `dataset`, a dataset, or an iterable of batches."""
    expected = np.asarray(sector)
    dataset = getattr(loader, "dataset", None) if not hasattr(loader, "indices") else loader
    if dataset is None and hasattr(loader, "__getitem__") and not isinstance(loader, Sequence):
        dataset = loader
    if dataset is None or isinstance(dataset, IterableDataset) or not hasattr(dataset, "__getitem__"):
        return SampleSource(loader, None, expected)
    base, indices = unwrap(dataset, _visited(loader, len(dataset)))
    return SampleSource(base, indices, expected, getattr(loader, "collate_fn", None), getattr(loader, "num_workers", 0))


def unwrap(dataset: Any, indices: np.ndarray) -> tuple[Any, np.ndarray]:
    """Through any number of subsets (objects with `dataset` and `indices`) to the dataset that holds the samples."""
    while hasattr(dataset, "dataset") and hasattr(dataset, "indices"):
        indices = np.asarray(dataset.indices, dtype=np.int64)[indices]
        dataset = dataset.dataset
    return dataset, np.sort(indices)


def as_batch(raw: Any) -> Batch:
    """A loader's batch, tuple or dict, as four tensors; sector ids and labels int64 (B,)."""
    values = [raw[key] for key in KEYS] if isinstance(raw, Mapping) else list(raw)
    if len(values) != len(KEYS):
        raise ValueError(f"expected batches of {KEYS}, got {len(values)} values: see stock_collate_fn")
    series = values[0] if isinstance(values[0], WindowParts) else torch.as_tensor(values[0])
    charts, sectors, labels = (torch.as_tensor(value) for value in values[1:])
    return Batch(series, charts, sectors.long().reshape(-1), labels.long().reshape(-1))


def _visited(loader: Any, n: int) -> np.ndarray:
    """The indices that a loader visits in an epoch, ascending, each once; all n unless it has a sampler of its own."""
    if not isinstance(loader, DataLoader):
        return np.arange(n)
    plain = type(loader.batch_sampler) is BatchSampler or loader.batch_sampler is None
    if plain and isinstance(loader.sampler, SequentialSampler):
        return np.arange(n)
    if plain and isinstance(loader.sampler, RandomSampler) and len(loader.sampler) >= n:
        return np.arange(n)
    visited = loader.sampler if plain else (index for batch in loader.batch_sampler for index in batch)  # type: ignore[union-attr]
    return np.unique(np.fromiter((int(index) for index in visited), dtype=np.int64))


def _merge(group: list[SampleSource]) -> SampleSource:
    if len(group) == 1:
        return group[0]
    indices = np.concatenate([source.indices for source in group if source.indices is not None])
    expected = np.concatenate([np.full(len(s.indices), int(s.expected)) for s in group if s.indices is not None])
    order = np.argsort(indices, kind="stable")
    return SampleSource(group[0].dataset, indices[order], expected[order], group[0].collate_fn, group[0].num_workers)
