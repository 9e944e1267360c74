"""Phase 2's heads as anyone would write them: one sector after the other, one module, one optimiser, autograd.

The references that `lasps.training.heads.stack` is tested and timed against. They draw the same batches.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lasps.config.model_config import TRAINING_CONFIG
from lasps.models.sector_aware_model import ClassificationHead
from lasps.training.heads.acceptance import logits_of
from lasps.training.heads.data import HeadData
from lasps.training.heads.directions import Weights, calibrated_losses, views_of
from lasps.training.heads.joint import JOINT, first_weights, joint_order, trained_sectors
from lasps.training.heads.settings import HeadSettings
from lasps.training.heads.stack import epoch_order
from lasps.training.loss_functions import focal_terms
from lasps.training.schedule import learning_rate_factor, warmup_steps_of

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
    """The same batches from a DataLoader, as the original specification builds it."""
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


def plain_joint_loop(
    data: HeadData, setting: HeadSettings, common: bool = False
) -> dict[int, tuple[list[float], Tensor, Tensor]]:
    """Shared directions as anyone would write them: sector -> (losses per epoch, linear weight, linear bias).

    One module's parameters, autograd and torch's Adam, on the batches that `lasps.training.heads.joint` draws.
    """
    own = trained_sectors(data.train, setting.min_samples)
    rows = torch.from_numpy(np.concatenate(list(own.values())))
    x, y, ids = data.train.features[rows], data.train.labels[rows], data.train.sector_ids[rows]
    mean = x.mean(dim=0)
    where = torch.zeros(data.num_sectors, dtype=torch.int64)
    if not common:
        where[list(own)] = torch.arange(len(own))
    base = torch.stack([logits_of(data.initial_head(int(s))[0], one[None])[0] for s, one in zip(ids, x, strict=True)])
    gamma = torch.tensor([[data.initial_head(int(s))[1]] for s in ids])
    alpha = torch.tensor(data.class_weights, dtype=torch.float64).log()
    shape = (1 if common else len(own), setting.rank, x.shape[1], len(data.class_weights))
    first = views_of(first_weights(setting.seed, *shape), *shape)
    weights = Weights(*(value.to(x.dtype).clone().requires_grad_() for value in first))
    batch_size, steps = setting.batch_size * JOINT, -(-len(x) // (setting.batch_size * JOINT)) * setting.epochs
    optimizer = torch.optim.Adam(weights, lr=setting.lr * JOINT)
    warmup = warmup_steps_of(steps, TRAINING_CONFIG["warmup_fraction"])
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: learning_rate_factor(step, steps, warmup))
    losses: dict[int, list[float]] = {sector: [] for sector in own}
    for epoch in range(1, setting.epochs + 1):
        found = torch.empty(len(x), dtype=torch.float64)
        for part in torch.from_numpy(joint_order(setting.seed, epoch, len(x))).split(batch_size):
            sector = where[ids[part]]
            used = (x[part] - mean) @ weights.features.T * weights.loadings[sector]
            logits = base[part] + used @ weights.classes.T + weights.biases[sector]
            found[part] = terms = calibrated_losses(logits, y[part], gamma[part], alpha)
            size = torch.stack([value.square().sum() for value in weights]).sum()
            optimizer.zero_grad()
            (terms.mean() + setting.penalty / (2 * len(x)) * size).backward()
            optimizer.step()
            schedule.step()
        for number, history in losses.items():
            history.append(float(found[ids == number].detach().mean()))
    result = {}
    for number in own:
        s = where[number]
        weight = ((weights.classes * weights.loadings[s]) @ weights.features).detach()
        result[number] = (losses[number], weight, weights.biases[s].detach() - weight @ mean)
    return result
