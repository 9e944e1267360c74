"""Phase 2's heads as anyone would write them: one sector after the other, one module, one optimiser, autograd.

The references that `lasps.training.stacked_heads` is tested and timed against. They draw the same batches.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lasps.models.sector_aware_model import ClassificationHead
from lasps.training.head_data import HeadData, HeadSettings
from lasps.training.loss_functions import focal_terms
from lasps.training.stacked_heads import epoch_order

Pair = tuple[Tensor, Tensor]
"""features (B, D), labels (B,)"""


def plain_loops(
    data: HeadData, setting: HeadSettings, through_data_loader: bool = False
) -> dict[int, tuple[list[float], dict[str, Tensor]]]:
    """Train one head after the other: sector -> (criterion's sample mean per epoch, final parameters)."""
    found = {}
    for sector, rows in data.train.rows_by_sector().items():
        if len(rows) < setting.min_samples:
            continue
        features, labels = data.train.features[rows], data.train.labels[rows]
        start = {name: value[sector] for name, value in data.start.items()}
        batches = loader_batches if through_data_loader else tensor_batches
        head = _head(start, setting.dropout).to(features.dtype)
        losses = []
        optimizer = torch.optim.AdamW(head.parameters(), lr=setting.lr, weight_decay=setting.weight_decay)
        for epoch in range(1, setting.epochs + 1):
            order = epoch_order(setting.seed, sector, epoch, len(rows))
            total = 0.0
            for x, y in batches(features, labels, order, setting.batch_size):
                terms = _weighted(focal_terms(head(x), y, setting.gamma), y, data.class_weights)
                loss = terms.sum() / len(y) + _pull(head, start, setting.l2_sp / len(rows))
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                total += float(terms.detach().sum())
            losses.append(total / len(rows))
        found[sector] = (losses, {name: value.detach() for name, value in head.named_parameters()})
    return found


def tensor_batches(features: Tensor, labels: Tensor, order: np.ndarray, batch_size: int) -> Iterator[Pair]:
    """Batches cut from tensors in memory."""
    for part in torch.from_numpy(order).split(batch_size):
        yield features[part], labels[part]


def loader_batches(features: Tensor, labels: Tensor, order: np.ndarray, batch_size: int) -> Iterator[Pair]:
    """The same batches from a DataLoader, as the seed's plan builds it."""
    yield from DataLoader(TensorDataset(features, labels), batch_size=batch_size, sampler=order.tolist())


def _head(start: Mapping[str, Tensor], dropout: float) -> nn.Module:
    hidden, width = start["fc1.weight"].shape
    head = ClassificationHead(width, hidden, len(start["fc2.bias"]), dropout)
    head.load_state_dict(dict(start))
    return head.train()


def _weighted(terms: Tensor, labels: Tensor, class_weights: tuple[float, ...]) -> Tensor:
    return terms * torch.tensor(class_weights, dtype=terms.dtype)[labels]


def _pull(head: nn.Module, start: Mapping[str, Tensor], strength: float) -> Tensor | float:
    """strength / 2 * ||w - w0||^2 over all parameters of the head (Xuhong et al. 2018)."""
    if strength == 0:
        return 0.0
    distance = sum((value - start[name].to(value.dtype)).square().sum() for name, value in head.named_parameters())
    return strength / 2 * distance
