"""A tiny dataset, model and trainer, for the tests of training."""

from __future__ import annotations

import numpy as np
import torch

from lasps.models.sector_aware_model import SectorAwareFusionModel
from lasps.training.batches import BatchLoader
from lasps.training.trainer import ThreePhaseTrainer, TrainerOptions

WIDTHS = {
    "encoder": {"hidden_dim": 16, "num_layers": 1, "num_heads": 2, "dropout": 0.1},
    "cnn": {"conv_channels": (4, 8), "output_dim": 8},
    "fusion": {"shared_dim": 16, "head_hidden": 8},
}


class TinyDataset:
    """Samples of two sectors whose label hangs on the last day's first feature."""

    def __init__(self, n: int = 60, seed: int = 0) -> None:
        rng = np.random.default_rng(seed)
        self.series = torch.from_numpy(rng.standard_normal((n, 20, 4)).astype(np.float32))
        self.charts = torch.from_numpy(rng.integers(0, 256, (n, 3, 32, 60), dtype=np.uint8))
        self.sector_ids = torch.from_numpy(rng.integers(0, 2, n))
        self.labels = torch.bucketize(self.series[:, -1, 0].contiguous(), torch.tensor([-0.6, 0.8]))
        self.fingerprint = f"tiny-{n}-{seed}"

    def __len__(self) -> int:
        return len(self.labels)

    def batch(self, indices):
        rows = torch.as_tensor(np.asarray(indices))
        return self.series[rows], self.charts[rows], self.sector_ids[rows], self.labels[rows]

    def __getitem__(self, index):
        return tuple(part[0] for part in self.batch([index]))


def make_model(seed: int = 11) -> SectorAwareFusionModel:
    torch.manual_seed(seed)
    return SectorAwareFusionModel(num_sectors=2, ts_input_dim=4, **WIDTHS)


def make_loaders(n: int = 60, batch_size: int = 16):
    return BatchLoader(TinyDataset(n), batch_size, shuffle=True, seed=5), BatchLoader(TinyDataset(50, 1), 32)


def make_trainer(model=None, **options) -> ThreePhaseTrainer:
    own = {name: options.pop(name) for name in list(options) if name in TrainerOptions.__dataclass_fields__}
    return ThreePhaseTrainer(
        make_model() if model is None else model, **options, options=TrainerOptions(**{"autocast": "off"} | own)
    )


def train_both(folder=None, resume=False, epochs=2, train=None, val=None) -> dict[str, torch.Tensor]:
    """Phases 1 and 3 of a fresh tiny model; its weights."""
    default_train, default_val = make_loaders()
    trainer = make_trainer(resume_dir=folder, resume=resume)
    for phase in (trainer.train_phase1, trainer.train_phase3):
        phase(train or default_train, val or default_val, epochs=epochs, lr=3e-3, patience=epochs)
    return trainer.state_dict()


def same(one, other) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
