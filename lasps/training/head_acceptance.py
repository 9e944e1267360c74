"""Which trained heads are kept: the stopping epoch is pooled over sectors, but each sector's head must earn its place.

Losses are of corrected probabilities (`lasps.evaluation.calibration`): a focal model's own softmax is not a forecast.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from lasps.evaluation.calibration import corrected_log_probabilities
from lasps.training.head_data import HeadData, HeadResult, HeadSamples

BLOCK_DAYS = 10  # twice the label's horizon of 5 days: neighbouring blocks share at most their seam
BLOCKS_WITHOUT_DATES = 10  # guess, not tuned; samples are assumed to lie in order of time


@dataclass(frozen=True)
class Acceptance:
    """A sector's val gain: mean over its n samples of (start's log loss - head's), its standard error over blocks."""

    n: int
    blocks: int
    gain: float
    standard_error: float

    @property
    def accepted(self) -> bool:
        """The gain exceeds one standard error; with fewer than two blocks there is none and the start is kept."""
        return self.blocks >= 2 and self.gain > self.standard_error


def accept_heads(data: HeadData, result: HeadResult) -> dict[int, Acceptance]:
    """Judge each trained sector's best head against its start on the sector's val samples, each corrected for the loss
    it was trained with. A sector without val samples gets 0 blocks and is not accepted.
    """
    assert data.val is not None
    rows, blocks = data.val.rows_by_sector(), blocks_of(data.val)
    judged = {}
    for sector, head in result.best_heads.items():
        own = rows.get(sector, np.empty(0, dtype=np.int64))
        features, labels = data.val.features[own], data.val.labels[own].numpy()
        start, start_gamma = data.start_head(sector)
        before = log_losses(logits_of(start, features), labels, start_gamma, data.class_weights)
        after = log_losses(logits_of(head, features), labels, result.settings.gamma, data.class_weights)
        own_blocks = equal_blocks(len(own)) if blocks is None else blocks[own]
        judged[sector] = judge(before - after, own_blocks)
    return judged


def judge(gains: np.ndarray, blocks: np.ndarray) -> Acceptance:
    """Mean gain and its standard error from the spread of block sums around their share of the mean.

    The mean is a ratio (sum of gains / number of samples) of block totals; its linearised variance is
    M / (M - 1) * sum over blocks (G_b - mean * n_b)^2 / n^2 (Cochran, Sampling Techniques, 1977, ch. 6).
    """
    n = len(gains)
    if n == 0:
        return Acceptance(0, 0, float("nan"), float("nan"))
    _, block = np.unique(blocks, return_inverse=True)
    sums, counts = np.bincount(block, gains), np.bincount(block)
    count, mean = len(counts), float(gains.mean())
    if count < 2:
        return Acceptance(n, count, mean, float("nan"))
    variance = count / (count - 1) * np.square(sums - mean * counts).sum() / n**2
    return Acceptance(n, count, mean, float(np.sqrt(variance)))


def blocks_of(val: HeadSamples) -> np.ndarray | None:
    """Each sample's block of BLOCK_DAYS consecutive trading days (N,), the same for all sectors; None without dates.

    A shorter rest at the end joins the block before it.
    """
    if val.days is None:
        return None
    _, day = np.unique(val.days, return_inverse=True)
    last = max(int(day.max(initial=0) + 1) // BLOCK_DAYS - 1, 0)
    return np.minimum(day // BLOCK_DAYS, last)


def equal_blocks(n: int) -> np.ndarray:
    """BLOCKS_WITHOUT_DATES contiguous blocks of n samples, as equal as can be."""
    return np.arange(n) * min(BLOCKS_WITHOUT_DATES, n) // max(n, 1)


def logits_of(head: Mapping[str, Tensor], features: Tensor) -> Tensor:
    """Logits (N, C) of one head without dropout, or (K, N, C) of K stacked ones, on features (N, D)."""
    hidden = (features @ head["fc1.weight"].mT).add_(head["fc1.bias"].unsqueeze(-2)).relu_()
    return (hidden @ head["fc2.weight"].mT).add_(head["fc2.bias"].unsqueeze(-2))


def log_losses(logits: Tensor, labels: np.ndarray, gamma: float, class_weights: tuple[float, ...]) -> np.ndarray:
    """-log of the corrected probability of each label: logits (..., N, C), labels (N,) -> (..., N) float64."""
    if len(labels) == 0:
        return np.zeros(logits.shape[:-1])
    log_p = corrected_log_probabilities(logits.to("cpu", torch.float64).numpy(), gamma, class_weights)
    return -log_p[..., np.arange(len(labels)), labels]
