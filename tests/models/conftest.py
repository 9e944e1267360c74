"""A tiny model and one batch for it."""

import pytest
import torch

from lasps.models.sector_aware_model import SectorAwareFusionModel

TINY = {
    "encoder": {"hidden_dim": 16, "num_layers": 1, "num_heads": 2, "dropout": 0.1},
    "cnn": {"conv_channels": (4, 8), "output_dim": 8},
}


@pytest.fixture
def tiny_model():
    torch.manual_seed(0)
    return SectorAwareFusionModel(num_sectors=3, ts_input_dim=5, **TINY)


@pytest.fixture
def tiny_batch():
    generator = torch.Generator().manual_seed(1)
    return (
        torch.randn(7, 20, 5, generator=generator),
        torch.randint(0, 256, (7, 3, 32, 60), generator=generator, dtype=torch.uint8),
        torch.tensor([2, 0, 1, 1, 2, 0, 1]),
    )
