"""Train directions that all sectors share, from samples of all of them at once.

`train_directions` is the fast path; `experiments/benchmarks/heads_reference.py` has the plain loop that it is tested
against. Shapes: N samples of the trained sectors, S trained sectors, D width, C classes, R rank.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lasps.config.model_config import TRAINING_CONFIG
from lasps.training.heads.acceptance import logits_of
from lasps.training.heads.data import Directions, HeadData, HeadResult, HeadSamples, with_linear
from lasps.training.heads.directions import (
    JointBatch,
    JointGradients,
    Weights,
    calibrated_losses,
    change_of,
    number_of_weights,
    views_of,
    written_out_gradients,
)
from lasps.training.heads.settings import HeadSettings
from lasps.training.heads.stack import made_ahead, one_thread_on_a_processor
from lasps.training.heads.state import EpochTraining, OnEpoch
from lasps.training.schedule import BETAS, learning_rate_factor, warmup_steps_of

JOINT = 16
"""A step over all sectors takes JOINT times a sector's batch at JOINT times its learning rate: 512 samples at 8e-3 by
default. One factor for both is the linear scaling rule (Goyal et al. 2017)."""
LARGEST_STEP = 1e37  # float32 holds no more; a rate that large ends as a loss that is not finite, which is refused
EPSILON = 1e-8  # Adam's default (Kingma & Ba 2015)
SIGNED_OF_FOUR = 3  # of four directions, three start as SELL against BUY, one as HOLD against both. Guess, not tuned
SEGMENT_SAMPLES = 2**14  # gathered at once, while the ones before are trained on: 8 MB of features, stays in the cache
VAL_ROWS = 65_536
MEAN_ROWS = 1024  # summed in the features' precision, by a product with ones (8 x as fast as float64), then exactly
STATE_VERSION = 1


def train_directions(
    data: HeadData,
    settings: HeadSettings,
    on_epoch: OnEpoch | None = None,
    *,
    common: bool = False,
    state_file: Path | None = None,
    device: str | torch.device = "cpu",
    gradients: JointGradients = written_out_gradients,
    progress: bool = False,
) -> HeadResult:
    """Train one setting of rank 1 or more.

    Args:
        data: shared features, initial heads and, for choosing epochs, val.
        common: the same change for all sectors (which still have their own initial heads): what Phase 2 gains without
            knowing sectors.
        on_epoch: called after every epoch; may stop the training (pruning).
        state_file: the state after each finished epoch, replaced atomically. A repeated call with the same data and
            settings goes on from it to the same bits; another call's state is ignored and replaced.
        gradients: `autograd_gradients` is the readable reference.

    Raises:
        ValueError: no sector reaches min_samples, or a loss is not finite.
    """
    with one_thread_on_a_processor(torch.device(device)):
        training = JointTraining(data, settings, common, torch.device(device), gradients)
        training.resume(state_file)
        desc = "common change" if common else "sector heads"
        training.run(on_epoch, state_file, desc if progress else None)
        return training.finish()


def trained_sectors(samples: HeadSamples, min_samples: int) -> dict[int, np.ndarray]:
    """sector -> its rows, of sectors with at least `min_samples` samples.

    Raises:
        ValueError: there is none.
    """
    rows = samples.rows_by_sector()
    found = {sector: own for sector, own in rows.items() if len(own) >= max(min_samples, 1)}
    if not found:
        largest = max((len(own) for own in rows.values()), default=0)
        raise ValueError(
            f"expected at least one sector with min_samples={min_samples} samples, the largest has "
            f"{largest}: lower min_samples or bring more data"
        )
    return found


def joint_order(seed: int, epoch: int, n: int) -> np.ndarray:
    """The order in which epoch `epoch` (from 1) visits the n samples: a permutation of 0..n-1."""
    return np.random.default_rng([seed, epoch]).permutation(n)


def first_weights(seed: int, sectors: int, rank: int, width: int, classes: int) -> Tensor:
    """The vector behind the first `Weights`, float64: random directions that no sector takes yet."""
    vector = torch.zeros(number_of_weights(sectors, rank, width, classes), dtype=torch.float64)
    weights = views_of(vector, sectors, rank, width, classes)
    weights.features.copy_(torch.from_numpy(np.random.default_rng(seed).standard_normal((rank, width))) / width**0.5)
    contrast = torch.linspace(-1, 1, classes, dtype=torch.float64)  # SELL, HOLD, BUY: -1, 0, 1
    middle = contrast.abs().mean() - contrast.abs()
    for direction in range(rank):
        chosen = contrast if direction % 4 < SIGNED_OF_FOUR else middle
        weights.classes[:, direction] = chosen / chosen.norm()
    return vector


class Part:
    """Rows of a split with what their initial heads say: features (N, D), labels, sector positions, base, gamma."""

    def __init__(self, data: HeadData, samples: HeadSamples, rows: np.ndarray, position: Tensor) -> None:
        self.samples, self.rows = samples, torch.from_numpy(rows)
        self.sector_ids = samples.sector_ids[self.rows]
        self.position, self.labels = position[self.sector_ids], samples.labels[self.rows]
        self.gamma = torch.tensor(np.broadcast_to(data.start_gamma, data.num_sectors).astype(float))[self.sector_ids]
        self.base = torch.empty(len(rows), len(data.class_weights), dtype=torch.float64)
        for sector in torch.unique(self.sector_ids).tolist():
            own = (self.sector_ids == sector).nonzero().squeeze(1)
            for part in torch.split(own, VAL_ROWS):
                features = samples.features.index_select(0, self.rows[part])
                self.base[part] = logits_of(data.initial_head(sector)[0], features).double()

    def __len__(self) -> int:
        return len(self.rows)

    def batch(self, index: Tensor, mean: Tensor, eye: Tensor) -> JointBatch:
        """The samples at `index`, on the device of `mean`."""

        def taken(values: Tensor) -> Tensor:
            return values.index_select(0, index).to(mean.device)

        x = self.samples.features.index_select(0, self.rows.index_select(0, index)).to(mean.device).sub_(mean)
        return JointBatch(
            x,
            taken(self.labels),
            eye.index_select(0, taken(self.position)),
            taken(self.base),
            taken(self.gamma).unsqueeze(1),
        )


class JointTraining(EpochTraining):
    """All state of `train_directions`."""

    def __init__(
        self, data: HeadData, settings: HeadSettings, common: bool, device: torch.device, gradients: JointGradients
    ) -> None:
        if settings.rank < 1:
            raise ValueError(f"expected a rank of 1 or more for shared directions, got {settings.rank}")
        self.data, self.settings, self.common, self.gradients = data, settings, common, gradients
        self.device, self.version = device, (STATE_VERSION, JOINT, common)
        own = trained_sectors(data.train, settings.min_samples)
        self.sectors = tuple(own)
        position = torch.zeros(data.num_sectors, dtype=torch.int64)
        if not common:
            position[list(own)] = torch.arange(len(own))
        self.train = Part(data, data.train, np.concatenate(list(own.values())), position)  # however sources lie
        val = (
            np.empty(0, dtype=np.int64)
            if data.val is None
            else np.flatnonzero(np.isin(data.val.sector_ids.numpy(), self.sectors))
        )
        self.val = None if data.val is None or not len(val) else Part(data, data.val, val, position)
        self._prepare(1 if common else len(own))
        self.step = 0
        self.result = HeadResult(settings, losses={sector: [] for sector in self.sectors})
        self.untrained = self._log_loss_of_untrained()
        self.best = self.vector.clone()
        self.measure_val()

    def _prepare(self, groups: int) -> None:
        device = self.device
        features, shape = (
            self.data.train.features,
            (groups, self.settings.rank, self.data.train.features.shape[1], len(self.data.class_weights)),
        )
        self.shape = shape
        self.vector = first_weights(self.settings.seed, *shape).to(device, features.dtype)
        self.grads, self.first, self.second = (torch.zeros_like(self.vector) for _ in range(3))
        self.weights, self.gradient_views = views_of(self.vector, *shape), views_of(self.grads, *shape)
        self.mean = _mean_of(features, self.train.rows).to(device, features.dtype)
        self.eye = torch.eye(groups, dtype=features.dtype, device=device)
        self.log_class_weights = torch.tensor(self.data.class_weights, dtype=torch.float64, device=device).log()
        self.batch_size = self.settings.batch_size * JOINT
        self.total_steps = -(-len(self.train) // self.batch_size) * self.settings.epochs
        self.warmup = warmup_steps_of(self.total_steps, TRAINING_CONFIG["warmup_fraction"])

    # ------------------------------------------------------------------------------------------------ one epoch

    def train_epoch(self) -> None:
        """One pass over all trained sectors' samples; the criterion's sample mean of each into the result."""
        self.epoch += 1
        order = torch.from_numpy(joint_order(self.settings.seed, self.epoch, len(self.train)))
        losses = torch.cat([self._step(batch) for batch in self._batches(order)]).cpu().numpy()
        ids = self.train.sector_ids[order].numpy()
        sums, counts = np.bincount(ids, losses), np.bincount(ids)
        for sector in self.sectors:
            self.record(sector, float(sums[sector] / counts[sector]))

    def _batches(self, order: Tensor) -> Iterator[JointBatch]:
        segments = torch.split(order, self.batch_size * max(1, SEGMENT_SAMPLES // self.batch_size))
        for gathered in made_ahead(self.train.batch(segment, self.mean, self.eye) for segment in segments):
            for begin in range(0, len(gathered.y), self.batch_size):
                yield JointBatch(*(value[begin : begin + self.batch_size] for value in gathered))

    def _step(self, batch: JointBatch) -> Tensor:
        """One step of Adam (Kingma & Ba 2015), the penalty in the gradient; the samples' losses before it."""
        losses = self.gradients(self.weights, self.gradient_views, batch, self.log_class_weights)
        self.grads.add_(self.vector, alpha=self.settings.penalty / len(self.train))
        factor = learning_rate_factor(self.step, self.total_steps, self.warmup)
        self.step += 1
        beta1, beta2 = BETAS
        self.first.lerp_(self.grads, 1 - beta1)
        self.second.mul_(beta2).addcmul_(self.grads, self.grads, value=1 - beta2)
        lr = min(self.settings.lr * JOINT * factor, LARGEST_STEP)
        scale = (self.second / (1 - beta2**self.step)).sqrt_().add_(EPSILON)
        self.vector.addcdiv_(self.first, scale, value=-lr / (1 - beta1**self.step))
        return losses

    def measure_val(self) -> None:
        """Calibrated val log loss after this epoch, by sector and pooled; remember the best weights."""
        result = self.result
        if self.val is None:
            self.best, result.best_epoch = self.vector.clone(), self.epoch
            if self.data.val is not None and len(self.data.val):
                result.val_log_loss.append(self.untrained / len(self.data.val))
            return
        assert self.data.val is not None
        losses, ids = self._val_losses(), self.val.sector_ids.numpy()
        sums, counts = np.bincount(ids, losses), np.bincount(ids)
        for sector in np.flatnonzero(counts).tolist():
            result.val_losses.setdefault(sector, []).append(float(sums[sector] / counts[sector]))
        result.val_log_loss.append((float(losses.sum()) + self.untrained) / len(self.data.val))
        if self.epoch == 0 or result.val_log_loss[-1] < result.best_val_log_loss:
            self.best, result.best_epoch = self.vector.clone(), self.epoch

    def _val_losses(self) -> np.ndarray:
        assert self.val is not None
        found = []
        for index in torch.split(torch.arange(len(self.val)), VAL_ROWS):
            batch = self.val.batch(index, self.mean, self.eye)
            logits = batch.base + change_of(self.weights, batch.x, batch.sector)
            found.append(calibrated_losses(logits, batch.y, batch.gamma, self.log_class_weights).cpu().numpy())
        return np.concatenate(found)

    def _log_loss_of_untrained(self) -> float:
        """Summed calibrated log loss of the val samples whose sectors are not trained."""
        val = self.data.val
        if val is None:
            return 0.0
        others = Part(
            self.data,
            val,
            np.flatnonzero(~np.isin(val.sector_ids.numpy(), self.sectors)),
            torch.zeros(self.data.num_sectors, dtype=torch.int64),
        )
        return float(
            calibrated_losses(others.base, others.labels, others.gamma.unsqueeze(1), self.log_class_weights.cpu()).sum()
        )

    def finish(self) -> HeadResult:
        """The heads after the last and the best epoch: initial heads with a linear path."""
        result = self.result
        result.directions = self._directions(self.best)
        result.heads, result.best_heads = self._heads(self._directions(self.vector)), self._heads(result.directions)
        result.gammas = {sector: self.data.initial_head(sector)[1] for sector in self.sectors}
        return result

    def _directions(self, vector: Tensor) -> Directions:
        weights = Weights(*(value.cpu().double() for value in views_of(vector, *self.shape)))
        loadings, biases = weights.loadings, weights.biases
        if self.common:
            loadings, biases = (value.expand(len(self.sectors), -1) for value in (loadings, biases))
        return Directions(self.sectors, loadings, weights.features, weights.classes, biases, self.mean.cpu().double())

    def _heads(self, directions: Directions) -> dict[int, dict[str, Tensor]]:
        return {
            sector: with_linear(self.data.initial_head(sector)[0], *directions.linear(position))
            for position, sector in enumerate(self.sectors)
        }

    # ------------------------------------------------------------------------------------------------ resume

    def state(self) -> dict[str, Any]:
        """Weights, optimiser, and the result so far."""
        names = ("losses", "val_losses", "val_log_loss", "best_epoch", "stopped")
        return {name: getattr(self, name) for name in ("step", "vector", "first", "second", "best")} | {
            "result": {name: getattr(self.result, name) for name in names}
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Continue from `state`."""
        for name in ("vector", "first", "second"):
            getattr(self, name).copy_(state[name])
        self.best, self.step = state["best"].to(self.device), state["step"]


def _mean_of(features: Tensor, rows: Tensor) -> Tensor:
    """Mean (D,) float64 of the features at `rows`."""
    total, ones = torch.zeros(features.shape[1], dtype=torch.float64), features.new_ones(MEAN_ROWS)
    for part in torch.split(rows, MEAN_ROWS):
        total += ones[: len(part)] @ features.index_select(0, part)
    return total / len(rows)
