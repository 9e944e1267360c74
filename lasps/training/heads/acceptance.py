"""Which trained heads are accepted: the stopping epoch is pooled over sectors, but each head must earn its place.

Losses are of calibrated probabilities (`lasps.evaluation.focal_calibration`); a focal model's own softmax is no
forecast.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from lasps.config.dataset_config import HORIZON
from lasps.evaluation.focal_calibration import calibrated_log_probabilities
from lasps.training.heads.data import HeadData, HeadResult, HeadSamples
from lasps.training.heads.stack import one_thread_on_a_processor

BLOCK_DAYS = 2 * HORIZON  # twice the label's horizon: neighbouring blocks share at most their seam
LEVEL = 0.05  # one-sided, of the whole sector part and of the common change
BLOCKS_WITHOUT_DATES = 10  # guess, not tuned; samples are assumed to lie in order of time


@dataclass(frozen=True)
class Acceptance:
    """A gain on val: mean over n samples of (log loss before - after), its standard error over blocks of days."""

    n: int
    blocks: int
    gain: float
    standard_error: float

    @property
    def accepted(self) -> bool:
        """The gain exceeds one standard error; with fewer than two blocks there is none and the start is kept."""
        return self.blocks >= 2 and self.gain > self.standard_error

    @property
    def significant(self) -> bool:
        """The gain is above zero at one-sided LEVEL, by Student's t over blocks."""
        if self.blocks < 2:
            return False
        return bool(self.gain > stats.t.ppf(1 - LEVEL, self.blocks - 1) * self.standard_error)


def accept_heads(
    data: HeadData, result: HeadResult, gains: Mapping[int, np.ndarray] | None = None
) -> dict[int, Acceptance]:
    """Compare each trained sector's best head with its initial one on the sector's val samples, each calibrated for the
    loss it was trained with. A sector without val samples gets 0 blocks and is not accepted.

    Args:
        gains: `gains_of` the same, if known.
    """
    assert data.val is not None
    rows, blocks = data.val.rows_by_sector(), blocks_of(data.val)
    found, gains = {}, gains_of(data, result) if gains is None else gains
    for sector in result.best_heads:
        own = rows.get(sector, np.empty(0, dtype=np.int64))
        own_blocks = equal_blocks(len(own)) if blocks is None else blocks[own]
        found[sector] = acceptance_of(gains.get(sector, np.empty(0)), own_blocks)
    return found


def accept_together(data: HeadData, result: HeadResult, gains: Mapping[int, np.ndarray] | None = None) -> Acceptance:
    """The gain of all trained sectors' best heads over their initial ones, on all of their val samples."""
    assert data.val is not None
    rows, blocks = data.val.rows_by_sector(), blocks_of(data.val)
    trained = [sector for sector in result.best_heads if sector in rows]
    if not trained:
        return acceptance_of(np.empty(0), np.empty(0))
    own = np.concatenate([rows[sector] for sector in trained])
    gains = gains_of(data, result) if gains is None else gains
    all_gains = np.concatenate([gains[sector] for sector in trained])
    order = np.argsort(own)  # without dates, blocks are made of neighbours in the file
    return acceptance_of(all_gains[order], equal_blocks(len(own)) if blocks is None else blocks[own[order]])


def gains_of(data: HeadData, result: HeadResult) -> dict[int, np.ndarray]:
    """sector -> what its best head takes off the log loss of each of its val samples; trained sectors with any."""
    assert data.val is not None
    with one_thread_on_a_processor(data.val.features.device):  # twenty small products: two threads wait, not compute
        return {
            sector: _gains(data, result, sector, rows)
            for sector, rows in data.val.rows_by_sector().items()
            if sector in result.best_heads
        }


def _gains(data: HeadData, result: HeadResult, sector: int, rows: np.ndarray) -> np.ndarray:
    """What the sector's best head takes off the log loss of each of its val samples at `rows`."""
    assert data.val is not None
    features, labels = data.val.features[rows], data.val.labels[rows].numpy()
    start, start_gamma = data.initial_head(sector)
    gamma = result.gammas.get(sector, result.settings.gamma)
    before = log_losses(logits_of(start, features), labels, start_gamma, data.class_weights)
    after = log_losses(logits_of(result.best_heads[sector], features), labels, gamma, data.class_weights)
    gain: np.ndarray = before - after
    return gain


def acceptance_of(gains: np.ndarray, blocks: np.ndarray) -> Acceptance:
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
    logits = (hidden @ head["fc2.weight"].mT).add_(head["fc2.bias"].unsqueeze(-2))
    if "linear.weight" in head:
        logits += (features @ head["linear.weight"].mT).add_(head["linear.bias"].unsqueeze(-2))
    return logits


def log_losses(logits: Tensor, labels: np.ndarray, gamma: float, class_weights: tuple[float, ...]) -> np.ndarray:
    """-log of the calibrated probability of each label: logits (..., N, C), labels (N,) -> (..., N) float64."""
    if len(labels) == 0:
        return np.zeros(logits.shape[:-1])
    log_p = calibrated_log_probabilities(logits.to("cpu", torch.float64).numpy(), gamma, class_weights)
    losses: np.ndarray = -log_p[..., np.arange(len(labels)), labels]
    return losses
