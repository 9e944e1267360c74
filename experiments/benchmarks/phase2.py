"""The whole of Phase 2 against the specified loop, which runs the frozen backbone for every batch of every epoch.

Both sides read charts and series through the same dataset, evaluate on val after every epoch, and keep nothing on disk.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from experiments.benchmarks.heads import sector_sizes
from experiments.benchmarks.measure import row, timed
from lasps.config.dataset_config import CHART_SIZE, WINDOW
from lasps.config.model_config import MODEL_CONFIG
from lasps.config.settings import settings
from lasps.data.datasets.stock_dataset import StockDataset, stock_collate_fn
from lasps.models.sector_aware_model import SectorAwareFusionModel
from lasps.training.heads.independent import train_heads
from lasps.training.heads.settings import HeadSettings
from lasps.training.heads.stack import epoch_order
from lasps.training.loss_functions import FocalLoss
from lasps.training.phase2 import head_data, train_phase2


def random_dataset(folder: Path, sizes: list[int], seed: int, window: int = WINDOW) -> StockDataset:
    """The four arrays of the interchange format: random windows and charts of the default sizes."""
    rng, n = np.random.default_rng(seed), sum(sizes)
    width = MODEL_CONFIG["linear_transformer"]["input_dim"]
    arrays: dict[str, np.ndarray] = {
        "time_series": rng.standard_normal((n, window, width), dtype=np.float32),
        "chart_images": rng.integers(0, 256, (n, 3, *CHART_SIZE), dtype=np.uint8),
        "sector_ids": rng.permutation(np.repeat(np.arange(len(sizes)), sizes)),
        "labels": rng.integers(0, 3, n),
    }
    folder.mkdir(parents=True)
    for name, values in arrays.items():
        np.save(folder / f"{name}.npy", values)
    paths = {f"{name}_path": folder / f"{name}.npy" for name in arrays}
    return StockDataset(**paths)  # type: ignore[arg-type]


def sector_loaders(dataset: StockDataset, batch_size: int) -> dict[int, DataLoader[Any]]:
    """As the plan builds them."""
    return {
        sector: DataLoader(dataset.get_sector_subset(sector), batch_size, shuffle=True, collate_fn=stock_collate_fn)
        for sector in range(MODEL_CONFIG["num_sectors"])
        if len(dataset.get_sector_indices(sector))
    }


def plain_phase2(
    model: SectorAwareFusionModel, train: StockDataset, val: StockDataset, setting: HeadSettings
) -> dict[int, list[float]]:
    """Phase 2 as specified: sector by sector, epoch by epoch, the whole model for every batch; val losses per epoch."""
    model.eval()
    model.freeze_backbone()
    criterion = FocalLoss(gamma=setting.gamma, weight=torch.tensor(settings.CLASS_WEIGHTS))
    val_losses = {}
    for sector in range(model.num_sectors):
        own = train.get_sector_subset(sector)
        if len(own) < setting.min_samples:
            continue
        head = model.sector_heads[sector]
        start = [parameter.detach().clone() for parameter in head.parameters()]
        optimizer = torch.optim.AdamW(head.parameters(), lr=setting.lr, weight_decay=setting.weight_decay)
        losses = []
        for epoch in range(1, setting.epochs + 1):
            order = epoch_order(setting.seed, sector, epoch, len(own)).tolist()
            for batch in DataLoader(own, setting.batch_size, sampler=order, collate_fn=stock_collate_fn):
                loss = criterion(model(*batch[:3], phase=2)["logits"], batch[3])
                loss = loss + setting.l2_sp / (2 * len(own)) * _distance(head, start)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            losses.append(_val_loss(model, val.get_sector_subset(sector), criterion, setting.batch_size))
        val_losses[sector] = losses
    return val_losses


def _distance(head: nn.Module, start: list[Tensor]) -> Tensor:
    return torch.stack([(p - s).square().sum() for p, s in zip(head.parameters(), start, strict=True)]).sum()


@torch.no_grad()
def _val_loss(model: nn.Module, subset: Any, criterion: FocalLoss, batch_size: int) -> float:
    total = 0.0
    for batch in DataLoader(subset, batch_size, collate_fn=stock_collate_fn):
        total += float(criterion(model(*batch[:3], phase=2)["logits"], batch[3])) * len(batch[3])
    return total / max(len(subset), 1)


def run(samples: int = 1_200, val_samples: int = 400, epochs: int = 10) -> list[dict[str, Any]]:
    """20 uneven sectors; the ratio hardly depends on the number of samples, which is small so that it takes minutes."""
    setting = HeadSettings(epochs=epochs, dropout=0.0, min_samples=1, rank=0)
    with tempfile.TemporaryDirectory() as folder:
        train = random_dataset(Path(folder) / "train", sector_sizes(samples, smallest=10), seed=1)
        val = random_dataset(Path(folder) / "val", sector_sizes(val_samples, smallest=5), seed=2)
        torch.manual_seed(0)
        model = SectorAwareFusionModel().eval()
        state = {name: value.clone() for name, value in model.state_dict().items()}
        ours = train_heads(head_data(model, train, val, cache=False), setting)
        _, reference = timed(lambda: plain_phase2(model, train, val, setting))
        difference = max(
            float((ours.heads[sector][name] - value.detach()).abs().max())
            for sector in ours.heads
            for name, value in model.sector_heads[sector].named_parameters()
        )
        assert difference < 1e-3, f"Phase 2 and the plain loop differ by {difference} after {epochs} epochs"
        model.load_state_dict(state)
        trainer = SimpleNamespace(model=model, device="cpu")
        loaders = sector_loaders(train, setting.batch_size), sector_loaders(val, setting.batch_size)
        _, fast = timed(lambda: train_phase2(trainer, loaders[0], epochs, val_loaders=loaders[1], cache=False))
    what = f"Phase 2, {sum(sector_sizes(samples, 10)):,} samples with charts and val, 20 sectors, {epochs} epochs"
    return [
        row(f"{what}, against the backbone in every epoch", fast, reference),
        row("largest difference of a weight to the plain loop, rank 0 without dropout", difference, unit="weight"),
    ]
