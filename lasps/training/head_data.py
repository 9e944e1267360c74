"""What head training takes and gives: shared features, settings, results. Shapes: N samples, S sectors, D width."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lasps.config.model_config import THREE_PHASE_CONFIG, TRAINING_CONFIG
from lasps.config.settings import settings as project_settings

PHASE2 = THREE_PHASE_CONFIG["phase2_sector_heads"]


@dataclass(frozen=True)
class HeadSamples:
    """Samples as the heads see them, in a fixed order.

    features (N, D) float32 or float64, finite, may be memory-mapped; labels (N,) int64 in 0..C-1; sector_ids (N,)
    int64; days (N,) int64, any numbering that grows with the date, or None where dates are unknown; fingerprint names
    the content (backbone weights and data), "" if nobody computed one.
    """

    features: Tensor
    labels: Tensor
    sector_ids: Tensor
    days: np.ndarray | None = None
    fingerprint: str = ""

    def __post_init__(self) -> None:
        n = len(self.features)
        lengths = {"labels": len(self.labels), "sector_ids": len(self.sector_ids)}
        if self.days is not None:
            lengths["days"] = len(self.days)
        wrong = {name: length for name, length in lengths.items() if length != n}
        if self.features.ndim != 2 or wrong:
            raise ValueError(
                f"expected features (N, D) and arrays of the same length, got features {tuple(self.features.shape)} "
                f"and {wrong or lengths}: pass one label, sector (and day) per row of features"
            )

    def __len__(self) -> int:
        return len(self.features)

    def rows_by_sector(self) -> dict[int, np.ndarray]:
        """sector -> its row numbers in ascending order; sectors without samples are absent."""
        sector_ids = self.sector_ids.numpy()
        order = np.argsort(sector_ids, kind="stable")
        sectors, first = np.unique(sector_ids[order], return_index=True)
        return dict(zip(sectors.tolist(), np.split(order, first[1:]), strict=True)) if len(order) else {}


@dataclass(frozen=True)
class HeadData:
    """Everything a head is trained and judged on.

    train: samples to fit; start: parameter name -> (S, ...), the heads that training starts from and is pulled to
    (`stacked_heads_of`); val: samples to choose on, or None; class_weights: the focal loss' alpha_t in label order;
    start_gamma: the focal exponent that the start heads were trained with, one number or one per sector.
    """

    train: HeadSamples
    start: Mapping[str, Tensor]
    val: HeadSamples | None = None
    class_weights: tuple[float, ...] = project_settings.CLASS_WEIGHTS
    start_gamma: float | Sequence[float] = TRAINING_CONFIG["focal_gamma"]

    def __post_init__(self) -> None:
        width, classes = self.start["fc1.weight"].shape[-1], self.start["fc2.bias"].shape[-1]
        if len(self.class_weights) != classes:
            raise ValueError(f"expected {classes} class weights, one per class, got {self.class_weights}")
        for name, samples in (("train", self.train), ("val", self.val)):
            if samples is None or len(samples) == 0:
                continue
            if samples.features.shape[1] != width:
                raise ValueError(
                    f"{name}: expected features of the heads' width {width}, got {samples.features.shape[1]}: "
                    "features and heads must come from the same model"
                )
            _check_range(name, "sector ids", samples.sector_ids, self.num_sectors)
            _check_range(name, "labels", samples.labels, classes)
            _check_finite(name, samples.features)

    @property
    def num_sectors(self) -> int:
        return len(self.start["fc1.weight"])

    def start_head(self, sector: int) -> tuple[dict[str, Tensor], float]:
        """A sector's start head by parameter name, and its focal exponent."""
        gamma = np.broadcast_to(self.start_gamma, self.num_sectors)[sector]
        return {name: value[sector] for name, value in self.start.items()}, float(gamma)


@dataclass(frozen=True)
class HeadSettings:
    """One setting of Phase 2's hyperparameters. Defaults: THREE_PHASE_CONFIG["phase2_sector_heads"].

    l2_sp: strength of the pull towards the start head w0 (Xuhong, Grandvalet & Davoine 2018). A sector of n samples
    minimises its mean loss + l2_sp / (2 n) * ||w - w0||^2, that is n times its mean loss + l2_sp / 2 * ||w - w0||^2: a
    Gaussian prior of precision l2_sp around the start, the same for every sector, which 150 samples hardly move and
    100,000 samples overrule (partial pooling). It enters the gradient, not AdamW's decoupled decay.
    """

    lr: float = PHASE2["lr"]
    epochs: int = PHASE2["epochs_per_sector"]
    min_samples: int = PHASE2["min_samples"]
    l2_sp: float = PHASE2["l2_sp"]
    weight_decay: float = PHASE2["weight_decay"]
    batch_size: int = PHASE2["batch_size"]
    gamma: float = PHASE2["focal_gamma"]
    dropout: float = PHASE2["dropout"]
    seed: int = TRAINING_CONFIG["seed"]

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            if int(getattr(self, name)) != getattr(self, name) or getattr(self, name) < 1:
                raise ValueError(f"{name}: expected a whole number above 0, got {getattr(self, name)}")
        for name in ("l2_sp", "weight_decay", "gamma", "min_samples"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{name}: expected a finite number of 0 or more, got {getattr(self, name)}")
        if not 0 < self.lr < float("inf"):
            raise ValueError(f"lr: expected a finite number above 0, got {self.lr}")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"dropout: expected a probability of 0 or more and below 1, got {self.dropout}")


@dataclass
class HeadResult:
    """What one setting came to. Epochs count from 1; epoch 0 is the start.

    losses: sector -> training criterion's sample mean per epoch (E,), trained sectors only; val_losses: sector -> mean
    corrected log loss per epoch (E + 1,), from the start on; val_log_loss: the same pooled over all val samples, (E +
    1,) (a sector that was not trained counts with its start); best_epoch: argmin of val_log_loss, the last epoch where
    there is no val; heads / best_heads: sector -> parameters after the last epoch / after best_epoch; stopped: on_epoch
    ended it before its last epoch.
    """

    settings: HeadSettings
    losses: dict[int, list[float]] = field(default_factory=dict)
    val_losses: dict[int, list[float]] = field(default_factory=dict)
    val_log_loss: list[float] = field(default_factory=list)
    best_epoch: int = 0
    heads: dict[int, dict[str, Tensor]] = field(default_factory=dict)
    best_heads: dict[int, dict[str, Tensor]] = field(default_factory=dict)
    stopped: bool = False

    @property
    def best_val_log_loss(self) -> float:
        """Pooled corrected val log loss at best_epoch; NaN without val."""
        return self.val_log_loss[self.best_epoch] if self.val_log_loss else float("nan")


def stacked_heads_of(heads: Iterable[nn.Module]) -> dict[str, Tensor]:
    """Parameter name -> (S, ...) copies on the cpu of S equal heads' parameters."""
    parameters, _ = torch.func.stack_module_state(list(heads))  # type: ignore[arg-type]
    return {name: value.detach().cpu().clone() for name, value in parameters.items()}


def as_samples(
    features: Any, labels: Any, sector_ids: Any, days: Any = None, fingerprint: str = ""
) -> HeadSamples:
    """`HeadSamples` of arrays or tensors."""
    return HeadSamples(
        torch.as_tensor(features),
        torch.as_tensor(labels).long(),
        torch.as_tensor(sector_ids).long(),
        None if days is None else np.asarray(days).astype(np.int64),
        fingerprint,
    )


def _check_range(where: str, what: str, values: Tensor, stop: int) -> None:
    low, high = int(values.min()), int(values.max())
    if low < 0 or high >= stop:
        raise ValueError(f"{where}: expected {what} in 0..{stop - 1}, got {low}..{high}: check their dataset")


def _check_finite(where: str, features: Tensor, rows: int = 65_536) -> None:
    for first in range(0, len(features), rows):
        bad = ~torch.isfinite(features[first : first + rows]).all(dim=1)
        if bad.any():
            row = first + int(bad.nonzero()[0, 0])
            raise ValueError(
                f"{where}: expected finite shared features, got NaN or infinity in row {row}: the backbone's weights "
                "or its input are broken there"
            )
