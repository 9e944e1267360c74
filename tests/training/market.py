"""A small market with charts, its loaders and a trainer: what Phase 2 is tested on."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import polars as pl
import torch
from torch.utils.data import DataLoader, Dataset, Subset

from lasps.models.sector_aware_model import SectorAwareFusionModel

SIZES = [30, 17, 0, 9]  # batches of 8: a last batch of 6, of one, an empty sector, of one


def arrays(sizes, seed):
    generator = torch.Generator().manual_seed(seed)
    sectors = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes))
    sectors = sectors[torch.randperm(len(sectors), generator=generator)]
    series = torch.randn(len(sectors), 10, 5, generator=generator)
    charts = torch.randint(0, 256, (len(sectors), 3, 16, 20), generator=generator, dtype=torch.uint8)
    labels = (series[:, -1, 0] * (sectors - 1)).sign().long() + 1
    return series, charts, sectors, labels


class Market(Dataset):
    """A dataset as the project's own: a fast `batch`, a fingerprint, dates."""

    def __init__(self, sizes=tuple(SIZES), seed=1):
        self.tensors, self.reads = arrays(list(sizes), seed), 0
        self.fingerprint = f"market-{sizes}-{seed}"
        dates = np.datetime64("2024-01-01") + np.sort(np.arange(len(self)) % 40)
        self.samples = pl.DataFrame({"date": dates})

    def __len__(self):
        return len(self.tensors[3])

    def batch(self, indices):
        self.reads += len(indices)
        return tuple(tensor[torch.as_tensor(np.asarray(indices))] for tensor in self.tensors)

    def __getitem__(self, index):
        return tuple(tensor[index] for tensor in self.tensors)

    def of_sector(self, sector):
        return Subset(self, torch.nonzero(self.tensors[2] == sector)[:, 0].tolist())


def loaders(market, shuffle=True, **options):
    subsets = {sector: market.of_sector(sector) for sector in range(4)}
    return {
        sector: DataLoader(part, batch_size=8, shuffle=shuffle and len(part) > 0, **options)
        for sector, part in subsets.items()
    }


def make_trainer(**attributes):
    torch.manual_seed(0)
    model = SectorAwareFusionModel(
        num_sectors=4,
        ts_input_dim=5,
        encoder={"hidden_dim": 8, "num_layers": 1, "num_heads": 2},
        cnn={"conv_channels": (4, 4), "output_dim": 4},
    )
    return SimpleNamespace(model=model, device="cpu", seed=7, tracker=None, resume_dir=None, **attributes)


def heads_of(model):
    return {name: value.clone() for name, value in model.state_dict().items() if name.startswith("sector_heads.")}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
