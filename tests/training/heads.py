"""Small markets of shared features, as head training sees them."""

from __future__ import annotations

import numpy as np
import torch

from lasps.models.sector_aware_model import ClassificationHead
from lasps.training.heads.data import HeadData, as_samples, stacked_heads_of
from lasps.training.heads.settings import HeadSettings

BASE = HeadSettings(
    lr=2e-3, epochs=10, min_samples=1, l2_sp=0.0, weight_decay=0.0, batch_size=32, gamma=2.0, dropout=0.0, seed=3
)


CLASS_WEIGHTS = (1.0, 0.8, 1.2)


def head_market(sizes, val_sizes=None, width=16, hidden=8, dtype=torch.float64, seed=0, signal=0.3, days=120):
    """Features whose labels follow a linear rule of the sector's own; `sizes` samples per sector, shuffled."""
    generator = torch.Generator().manual_seed(seed)
    rules = signal * torch.randn(len(sizes), width, 3, generator=generator)

    def samples(counts, with_days):
        sectors = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
        sectors = sectors[torch.randperm(len(sectors), generator=generator)]
        features = torch.randn(len(sectors), width, generator=generator)
        noise = torch.randn(len(sectors), 3, generator=generator)
        labels = (torch.einsum("nd,ndc->nc", features, rules[sectors]) + noise).argmax(1)
        day = np.sort(np.arange(len(sectors)) % days) if with_days else None
        return as_samples(features.to(dtype), labels, sectors, day)

    torch.manual_seed(seed)
    start = stacked_heads_of(ClassificationHead(width, hidden) for _ in sizes)
    val = None if val_sizes is None else samples(val_sizes, with_days=True)
    return HeadData(samples(sizes, False), {n: v.to(dtype) for n, v in start.items()}, val, CLASS_WEIGHTS)
