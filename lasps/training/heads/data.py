"""What head training takes and gives: shared features, initial heads, results.

Shapes: N samples, S sectors, D width, C classes, R rank.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from lasps.config.model_config import TRAINING_CONFIG
from lasps.config.settings import settings as project_settings
from lasps.training.heads.settings import HeadSettings

LINEAR = ("linear.weight", "linear.bias")
"""The linear path beside a head; heads without one have none of these names."""


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

    def digest(self) -> str:
        """The samples' own fingerprint, or a digest of their content."""
        if self.fingerprint:
            return self.fingerprint
        digest = hashlib.sha256()
        for tensor in (self.features, self.labels, self.sector_ids):
            digest.update(tensor.numpy().tobytes())
        return digest.hexdigest()

    def rows_by_sector(self) -> dict[int, np.ndarray]:
        """sector -> its row numbers in ascending order; sectors without samples are absent."""
        sector_ids = self.sector_ids.numpy()
        order = np.argsort(sector_ids, kind="stable")
        sectors, first = np.unique(sector_ids[order], return_index=True)
        return dict(zip(sectors.tolist(), np.split(order, first[1:]), strict=True)) if len(order) else {}


@dataclass(frozen=True)
class HeadData:
    """Everything a head is trained and evaluated on.

    train: samples to fit; start: parameter name -> (S, ...), the heads that training starts from and is pulled to
    (`stacked_heads_of`); val: samples to choose on, or None; class_weights: the focal loss' alpha_t in label order;
    start_gamma: the focal exponent that the initial heads were trained with, one number or one per sector.
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

    def initial_head(self, sector: int) -> tuple[dict[str, Tensor], float]:
        """A sector's initial head by parameter name, and its focal exponent."""
        gamma = np.broadcast_to(self.start_gamma, self.num_sectors)[sector]
        return {name: value[sector] for name, value in self.start.items()}, float(gamma)


@dataclass(frozen=True)
class Directions:
    """What shared directions came to: a sector's logits change by classes @ (loadings[s] * (features @ (x - mean))) +
    biases[s].

    sectors: S sector ids, ascending; loadings (S, R), one number per sector and direction; features (R, D); classes (C,
    R); biases (S, C).
    """

    sectors: tuple[int, ...]
    loadings: Tensor
    features: Tensor
    classes: Tensor
    biases: Tensor
    mean: Tensor

    def linear(self, position: int) -> tuple[Tensor, Tensor]:
        """(weight (C, D), bias (C,)), float64, of the sector at `position`."""
        weight = (self.classes * self.loadings[position]) @ self.features
        return weight, self.biases[position] - weight @ self.mean


@dataclass
class HeadResult:
    """What one setting came to. Epochs count from 1; epoch 0 is the start.

    losses: sector -> training criterion's sample mean per epoch (E,), trained sectors only; val_losses: sector -> mean
    calibrated log loss per epoch (E + 1,), from the start on; val_log_loss: the same pooled over all val samples, (E +
    1,) (a sector that was not trained counts with its start); best_epoch: argmin of val_log_loss, the last epoch where
    there is no val; heads / best_heads: sector -> parameters after the last epoch / after best_epoch; gammas: sector ->
    the focal exponent by which both are calibrated; stopped: on_epoch ended it before its last epoch; directions: what
    the sectors share, at best_epoch (None for independent heads).
    """

    settings: HeadSettings
    losses: dict[int, list[float]] = field(default_factory=dict)
    val_losses: dict[int, list[float]] = field(default_factory=dict)
    val_log_loss: list[float] = field(default_factory=list)
    best_epoch: int = 0
    heads: dict[int, dict[str, Tensor]] = field(default_factory=dict)
    best_heads: dict[int, dict[str, Tensor]] = field(default_factory=dict)
    gammas: dict[int, float] = field(default_factory=dict)
    stopped: bool = False
    directions: Directions | None = None

    @property
    def best_val_log_loss(self) -> float:
        """Pooled calibrated val log loss at best_epoch; NaN without val."""
        return self.val_log_loss[self.best_epoch] if self.val_log_loss else float("nan")


def stacked_heads_of(heads: Iterable[nn.Module]) -> dict[str, Tensor]:
    """Parameter name -> (S, ...) copies on the cpu of S equal heads' parameters.

    Where any head has a linear path, those without one have zeros in its place.
    """
    states = [{name: value.detach().cpu().clone() for name, value in head.named_parameters()} for head in heads]
    names = {name: value for state in states for name, value in state.items()}
    return {
        name: torch.stack([state.get(name, torch.zeros_like(value)) for state in states])
        for name, value in names.items()
    }


def with_linear(head: Mapping[str, Tensor], weight: Tensor, bias: Tensor) -> dict[str, Tensor]:
    """A head with (weight (C, D), bias (C,)) added to its linear path."""
    dtype = head["fc1.weight"].dtype
    added = dict(zip(LINEAR, (weight, bias), strict=True))
    return {**head, **{name: (value + head.get(name, 0)).to(dtype) for name, value in added.items()}}


def as_samples(features: Any, labels: Any, sector_ids: Any, days: Any = None, fingerprint: str = "") -> HeadSamples:
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
