"""Batches: a fast loader in a repeatable order, and one shape for whatever a loader yields."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from lasps.config.settings import CLASS_NAMES
from lasps.data.datasets.samples import ReadTensors, Tensors
from lasps.reproducibility import derived_seed
from lasps.training.ranks import Ranks
from lasps.window_parts import Reads, WindowParts

KEYS = ("time_series", "chart_image", "sector_id", "label")


class BatchedDataset(Protocol):
    """A dataset that stacks a batch itself."""

    def __len__(self) -> int: ...

    def batch(self, indices: np.ndarray) -> Tensors: ...

    def read(self, indices: np.ndarray, reads: Reads) -> ReadTensors: ...


class BatchLoader:
    """Batches of a dataset with a `batch(indices)` method, without a Python call per sample.

    The order of epoch e is drawn from (seed, e) alone: the e-th pass of two loaders is the same, whatever ran before.
    `set_epoch(e)` chooses e; without it, e counts the passes. The last batch may be short; nothing is dropped.

    With `epoch_samples`, an epoch is that many samples of a shuffled pass and the next epoch goes on where it ended, so
    that on a large market the weights are evaluated, and kept, as often as on a small one.

    With `ranks`, each batch is this rank's share of it.

    Yields:
        time series float32 (B,T,F), charts uint8 or float32 (B,3,H,W), sector ids int64 (B,), labels int64 (B,).
    """

    def __init__(
        self,
        dataset: BatchedDataset,
        batch_size: int,
        shuffle: bool = False,
        seed: int = 0,
        epoch_samples: int | None = None,
    ) -> None:
        for name, value in (("batch_size", batch_size), ("epoch_samples", epoch_samples)):
            if value is not None and value < 1:
                raise ValueError(f"{name}: expected at least 1, got {value}")
        if epoch_samples is not None and not shuffle:
            raise ValueError("epoch_samples: expected shuffle=True with it: a part of an ordered pass is no sample")
        self.dataset, self.batch_size, self.shuffle, self.seed = dataset, batch_size, shuffle, seed
        self.samples = len(dataset) if epoch_samples is None else min(epoch_samples, len(dataset))
        self.epoch = 0
        self.ranks = Ranks()

    def __len__(self) -> int:
        return -(-self.samples // self.batch_size)

    def size_of(self, number: int) -> int:
        """Samples of the `number`-th batch, those of other ranks included."""
        return min(self.batch_size, self.samples - number * self.batch_size)

    def set_epoch(self, epoch: int) -> None:
        """The next pass is epoch `epoch`."""
        self.epoch = epoch

    def order(self, epoch: int) -> np.ndarray:
        """The sample indices of one epoch, int64 (samples,): a stretch of one shuffled pass after the other."""
        if not self.shuffle or not self.samples:
            return np.arange(len(self.dataset))
        start, stop = epoch * self.samples, (epoch + 1) * self.samples
        first, last = start // len(self.dataset), -(-stop // len(self.dataset))
        passes = np.concatenate([self._shuffled(number) for number in range(first, last)])
        return passes[start - first * len(self.dataset) : stop - first * len(self.dataset)]

    def _shuffled(self, number: int) -> np.ndarray:
        return np.random.default_rng(derived_seed(self.seed, "order", number)).permutation(len(self.dataset))

    def __iter__(self) -> Iterator[Tensors]:
        return (self.dataset.batch(indices) for indices in self._parts())

    def read(self, reads: Reads) -> Iterator[ReadTensors]:
        """As iterating, but only what a model reads of each sample."""
        return (self.dataset.read(indices, reads) for indices in self._parts())

    def _parts(self) -> Iterator[np.ndarray]:
        order = self.order(self.epoch)
        self.epoch += 1
        for start in range(0, len(order), self.batch_size):
            whole = order[start : start + self.batch_size]
            own = whole[self.ranks.share(len(whole))]
            yield own if len(own) else whole[:1]  # a rank without samples has one that counts for nothing


class Batch(NamedTuple):
    """One batch on the device of the model."""

    time_series: Tensor | WindowParts
    charts: Tensor
    sector_ids: Tensor
    labels: Tensor


def iterate(loader: Iterable[Any], device: str | torch.device, reads: Reads | None = None) -> Iterator[Batch]:
    """The loader's batches on `device`: tuples of four tensors, dicts, or lists of the interchange dataset's items.

    With `reads`, a loader of this module whose dataset can do so makes only what the model reads of each sample.
    """
    quick = reads is not None and isinstance(loader, BatchLoader) and hasattr(loader.dataset, "read")
    for number, batch in enumerate(loader.read(reads) if quick else loader):  # type: ignore[attr-defined]
        tensors = _as_tensors(batch, number)
        yield Batch(*(tensor.to(device, non_blocking=True) for tensor in tensors))


def _as_tensors(batch: Any, number: int) -> Sequence[Tensor]:
    if isinstance(batch, Mapping) and all(key in batch for key in KEYS):
        return _checked_labels([torch.as_tensor(batch[key]) for key in KEYS], number)
    if (
        isinstance(batch, Sequence)
        and len(batch) == 4
        and all(isinstance(part, Tensor | WindowParts) for part in batch)
    ):
        return _checked_labels(batch, number)
    raise ValueError(
        f"batch {number}: expected a tuple (time_series, chart_image, sector_id, label) of tensors or a "
        f"dict with these keys, got {type(batch).__name__}; give the DataLoader "
        "collate_fn=stock_collate_fn (lasps.data.datasets.stock_dataset)"
    )


def _checked_labels(tensors: Sequence[Tensor], number: int) -> Sequence[Tensor]:
    labels = tensors[3]
    if len(labels) and (int(labels.min()) < 0 or int(labels.max()) >= len(CLASS_NAMES)):
        raise ValueError(
            f"batch {number}: expected labels 0 SELL, 1 HOLD, 2 BUY, got {int(labels.min())}..{int(labels.max())}"
        )
    return tensors


def as_loader(data: Any, batch_size: int) -> Iterable[Any]:
    """A dataset as an ordered loader; whatever else can be iterated, as it is.

    Raises:
        ValueError: there is nothing in it.
    """
    loader: Iterable[Any] = data
    if hasattr(data, "batch") and hasattr(data, "__len__"):
        loader = BatchLoader(data, batch_size)
    elif isinstance(data, Dataset):
        loader = DataLoader(data, batch_size=batch_size, shuffle=False)
    if isinstance(loader, Sized) and not len(loader):
        raise ValueError("expected at least one sample, got an empty dataset or loader")
    return loader


def checked_loader(loader: Any, name: str) -> None:
    """Raise ValueError unless `loader` has a length above 0."""
    if not hasattr(loader, "__len__") or not hasattr(loader, "__iter__"):
        raise ValueError(f"{name}: expected a DataLoader or BatchLoader with a length, got {type(loader).__name__}")
    if not len(loader):
        raise ValueError(f"{name}: expected at least one batch, got an empty loader")


def set_epoch(loader: Any, epoch: int, seed: int) -> None:
    """Make the coming pass depend on (seed, epoch) alone: tell whoever has a `set_epoch`, seed a loader's generator."""
    sampler = getattr(loader, "sampler", None)
    for part in (loader, sampler, getattr(loader, "batch_sampler", None)):
        if part is not None and hasattr(part, "set_epoch"):
            part.set_epoch(epoch)
    for generator in {getattr(loader, "generator", None), getattr(sampler, "generator", None)}:
        if generator is not None:
            generator.manual_seed(derived_seed(seed, "generator", epoch))
