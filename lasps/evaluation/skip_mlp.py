"""The cheapest network there is: an MLP on the means that the fusion model's skip carries, no sequence, no chart."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from tqdm import tqdm

from lasps.evaluation.fitted import Array, BaselineSplit, Fitted
from lasps.evaluation.metrics import N_CLASSES
from lasps.reproducibility import derived_seed

if TYPE_CHECKING:
    from torch import Tensor, nn

HIDDEN, DROPOUT = 256, 0.1  # guesses, not tuned
BATCH, LEARNING_RATE, WEIGHT_DECAY = 512, 1e-3, 0.01
SMALLEST_STEPS = 300
"""A small data set is read more than once, until so many steps are done."""
LINEAR_UP_TO = 8.0
"""As the skip of the fusion model."""


def fit_mlp(train: BaselineSplit, val: BaselineSplit | None, seed: int = 0) -> Fitted:
    """Cross-entropy, AdamW, the rate falling to zero over one pass; nothing is decided on val."""
    import torch
    from torch import nn

    x, labels = train.all_means(), torch.from_numpy(train.labels)
    with torch.random.fork_rng():
        torch.manual_seed(derived_seed(seed, "mlp"))
        model = nn.Sequential(
            *(nn.Linear(x.shape[1], HIDDEN), nn.GELU(), nn.Dropout(DROPOUT)),
            *(nn.Linear(HIDDEN, HIDDEN), nn.GELU(), nn.Dropout(DROPOUT)),
            nn.Linear(HIDDEN, N_CLASSES),
        )
        optimizer = torch.optim.AdamW(model.parameters(), LEARNING_RATE, weight_decay=WEIGHT_DECAY)
        passes = max(1, math.ceil(SMALLEST_STEPS * BATCH / len(x)))
        steps = passes * math.ceil(len(x) / BATCH)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        rows = np.concatenate([torch.randperm(len(x)).numpy() for _ in range(passes)])
        starts = range(0, len(rows), BATCH)
        for start in tqdm(starts, desc=f"mlp, seed {seed}", disable=None, leave=False):
            part = rows[start : start + BATCH]
            loss = nn.functional.cross_entropy(model(_inputs(x[part])), labels[part])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            if schedule.last_epoch < steps:
                schedule.step()
    model.eval()
    return Fitted(lambda split: _probabilities(model, split))


def _inputs(x: np.ndarray) -> Tensor:
    import torch

    return LINEAR_UP_TO * torch.asinh(torch.from_numpy(x) / LINEAR_UP_TO)


def _probabilities(model: nn.Module, split: BaselineSplit) -> Array:
    import torch

    x = split.all_means()
    chunks = (x[start : start + 16 * BATCH] for start in range(0, len(x), 16 * BATCH))
    with torch.inference_mode():
        return torch.cat([torch.softmax(model(_inputs(part)).double(), dim=1) for part in chunks]).numpy()
