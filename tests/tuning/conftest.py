"""Heads on made-up shared features, small enough that a trial takes milliseconds."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
import torch

from lasps.training.heads.data import HeadData, HeadSamples, as_samples

SECTORS, WIDTH, HIDDEN, DAYS = 4, 12, 8, 120


def made_up_samples(n_per_sector: list[int], seed: int, days: int = DAYS) -> HeadSamples:
    """Labels that depend on the features by a vector of each sector's own."""
    random = np.random.default_rng(seed)
    directions = np.random.default_rng(0).normal(size=(SECTORS, WIDTH, 3))
    sectors = np.repeat(np.arange(SECTORS), n_per_sector)
    features = random.normal(size=(len(sectors), WIDTH)).astype(np.float32)
    logits = np.einsum("nd,ndc->nc", features, directions[sectors]) + random.gumbel(size=(len(sectors), 3))
    dates = random.integers(0, days, len(sectors))
    return as_samples(features, logits.argmax(axis=1), sectors, dates, f"made-up-{seed}")


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Heads this small are slower on two."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def start() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    return {
        "fc1.weight": 0.1 * torch.randn(HIDDEN, WIDTH).repeat(SECTORS, 1, 1),
        "fc1.bias": torch.zeros(SECTORS, HIDDEN),
        "fc2.weight": 0.1 * torch.randn(3, HIDDEN).repeat(SECTORS, 1, 1),
        "fc2.bias": torch.zeros(SECTORS, 3),
    }


@pytest.fixture
def data(start: dict[str, torch.Tensor]) -> HeadData:
    return HeadData(made_up_samples([400, 300, 200, 30], seed=1), start, made_up_samples([200] * SECTORS, seed=2))
