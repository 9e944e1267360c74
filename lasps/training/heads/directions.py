"""Directions that all sectors share: their weights, and the loss's gradient written out and as autograd sees it.

Sectors differ less in *which* combinations of the shared features matter than in *how much* each of them does: a
multi-task problem of low rank (Ando & Zhang 2005; Argyriou, Evgeniou & Pontil 2008). Phase 2 adds to the logits of
sector s, whose initial head stays,

    sum over r of  loadings[s, r] * (features[r] . (x - mean)) * classes[:, r]   +   biases[s]

a sum of R products of three vectors (a CP decomposition, Kolda & Bader 2009): what a direction reads from the features,
which way it moves the classes, and how much of it each sector takes. All samples find the directions together; a sector
itself finds R + C numbers. The loss is the log loss of the *calibrated* probabilities, through the initial heads' focal
exponent, which is how the saved model is used.

Shapes: B batch, D width, C classes, R rank, S sectors.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

TINY = 1e-300  # keeps logarithms and quotients finite where all other probabilities are 0


class Weights(NamedTuple):
    """The trained numbers, as views of one vector."""

    loadings: Tensor
    """(S, R), zero at first: training starts from the initial heads exactly"""
    features: Tensor
    """(R, D)"""
    classes: Tensor
    """(C, R)"""
    biases: Tensor
    """(S, C), zero at first"""


class JointBatch(NamedTuple):
    """Samples of all sectors."""

    x: Tensor
    """(B, D), the features' mean taken off"""
    y: Tensor
    """int64 (B,)"""
    sector: Tensor
    """(B, S), 1 at the sample's sector, else 0"""
    base: Tensor
    """float64 (B, C), the initial head's logits"""
    gamma: Tensor
    """float64 (B, 1), the focal exponent that the initial head was trained with"""


JointGradients = Callable[[Weights, Weights, JointBatch, Tensor], Tensor]
"""(weights, grads, batch, log class weights (C,)): fill `grads` with the gradient of the batch's mean loss and return
the losses, float64 (B,)."""


def views_of(vector: Tensor, sectors: int, rank: int, width: int, classes: int) -> Weights:
    """Weights that share memory with `vector` (P,)."""
    shapes = ((sectors, rank), (rank, width), (classes, rank), (sectors, classes))
    parts = torch.split(vector, [rows * columns for rows, columns in shapes])
    return Weights(*(part.view(shape) for part, shape in zip(parts, shapes, strict=True)))


def number_of_weights(sectors: int, rank: int, width: int, classes: int) -> int:
    """P, the length of the vector behind `Weights`."""
    return rank * (sectors + width + classes) + sectors * classes


def change_of(weights: Weights, x: Tensor, sector: Tensor) -> Tensor:
    """What is added to the logits, (B, C): x (B, D) with the mean taken off, sector (B, S)."""
    return (x @ weights.features.T * (sector @ weights.loadings)) @ weights.classes.T + sector @ weights.biases


def written_out_gradients(weights: Weights, grads: Weights, batch: JointBatch, log_class_weights: Tensor) -> Tensor:
    """Forward and backward as matrix products; see `JointGradients`."""
    x, y, sector, base, gamma = batch
    read, own = x @ weights.features.T, sector @ weights.loadings
    used = read * own
    logits = base + torch.addmm(sector @ weights.biases, used, weights.classes.T)
    losses, d_logits = calibrated_loss_and_gradient(logits, y, gamma, log_class_weights)
    d_change = d_logits.div_(len(x)).to(x.dtype)
    torch.mm(sector.T, d_change, out=grads.biases)
    torch.mm(d_change.T, used, out=grads.classes)
    d_used = d_change @ weights.classes
    torch.mm(sector.T, read.mul_(d_used), out=grads.loadings)
    torch.mm(d_used.mul_(own).T, x, out=grads.features)
    return losses


def autograd_gradients(weights: Weights, grads: Weights, batch: JointBatch, log_class_weights: Tensor) -> Tensor:
    """`written_out_gradients` by autograd: the readable reference."""
    leaves = Weights(*(value.detach().clone().requires_grad_() for value in weights))
    logits = batch.base + change_of(leaves, batch.x, batch.sector)
    losses = calibrated_losses(logits, batch.y, batch.gamma, log_class_weights)
    for into, found in zip(grads, torch.autograd.grad(losses.mean(), leaves), strict=True):
        into.copy_(found)
    return losses.detach()


def calibrated_losses(logits: Tensor, y: Tensor, gamma: Tensor, log_class_weights: Tensor) -> Tensor:
    """-log of the calibrated probability of each label, as `lasps.evaluation.focal_calibration` defines it: (B,).

    Args:
        logits: float64 (B, C); y: (B,); gamma: (B, 1); log_class_weights: (C,).
    """
    log_q, q, rest = _softmax_and_rest(logits)
    ratio = -q * log_q / rest
    log_eta = log_q - gamma * rest.log() - torch.log1p(gamma * ratio) - log_class_weights
    return -log_eta.log_softmax(dim=1).gather(1, y.unsqueeze(1)).squeeze(1)


def calibrated_loss_and_gradient(
    logits: Tensor, y: Tensor, gamma: Tensor, log_class_weights: Tensor
) -> tuple[Tensor, Tensor]:
    """`calibrated_losses` (B,) and their derivative by the logits (B, C).

    With q the softmax, rho = -q log q / (1 - q) and eta = q (1 - q)^-gamma / ((1 + gamma rho) alpha), not normalised:
    d log eta / d log q = 1 + gamma q / (1 - q) - gamma q (q - 1 - log q) / ((1 - q)^2 (1 + gamma rho)).
    """
    label = y.unsqueeze(1)
    log_q, q, rest = _softmax_and_rest(logits)
    odds = q / rest
    inside = 1 - gamma * odds * log_q
    log_p = (log_q - gamma * rest.log() - inside.log() - log_class_weights).log_softmax(dim=1)
    slope = 1 + gamma * odds * (1 + (rest + log_q) / (rest * inside))
    d_log_p = log_p.exp()
    d_log_p.scatter_add_(1, label, d_log_p.new_full((1, 1), -1.0).expand_as(label))
    d_log_q = d_log_p.mul_(slope)
    return -log_p.gather(1, label).squeeze(1), d_log_q * rest - q * (d_log_q @ _others(q.shape[1], q.dtype, q.device))


def _softmax_and_rest(logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """log q, q and 1 - q (B, C), each with all its digits, also where q rounds to 1."""
    log_q = logits.log_softmax(dim=1)
    q = log_q.exp()
    rest = (q @ _others(q.shape[1], q.dtype, q.device)).clamp_min(TINY)
    return torch.where(q > 0.5, torch.log1p(-rest.clamp_max(0.5)), log_q), q, rest


@lru_cache
def _others(classes: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """(C, C): a product with it sums over all classes but each one's own."""
    return 1 - torch.eye(classes, dtype=dtype, device=device)
