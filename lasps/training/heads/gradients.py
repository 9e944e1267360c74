"""Loss and gradients of R heads at once, twice: written out by hand (fast) and by torch.func (readable).

Both take the same arguments and fill `grads`; a test holds them equal, and both equal to autograd through one
`ClassificationHead` after the other.

Shapes: R heads (rows), B batch, D width, H hidden, C classes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.func import grad_and_value, vmap
from torch.nn import functional

TINY = 1e-30  # keeps (1 - p)^(gamma - 1) finite where p rounds to 1; its factor log p is 0 there


Parameters = dict[str, Tensor]
"""fc1.weight (R, H, D), fc1.bias (R, H), fc2.weight (R, C, H), fc2.bias (R, C)"""


class HeadBatch(NamedTuple):
    """One batch of each of R heads."""

    x: Tensor
    """(R, B, D)"""
    y: Tensor
    """int64 (R, B)"""
    weight: Tensor
    """(R, B), a sample's alpha_t / (real batch size); 0 for padding"""
    keep: Tensor | None
    """(R, B, H), 1 for hidden units that dropout leaves and 0 for others; None without dropout"""
    keep_rate: Tensor
    """(R, 1, 1), the probability of a 1"""


Gradients = Callable[[Parameters, Parameters, HeadBatch, "float | Tensor"], Tensor]
"""(params, grads, batch, gamma): fill `grads` with the gradient of every head's loss and return the losses (R,)."""


def written_out_gradients(params: Parameters, grads: Parameters, batch: HeadBatch, gamma: float | Tensor) -> Tensor:
    """Forward and backward of R heads as batched matrix products.

    Args:
        gamma: the focal exponent, one number or (R, 1, 1); 0 is the cross entropy.

    Returns:
        (R,) sum over the batch of weight * (1 - p_t)^gamma * -log p_t.
    """
    x, y, weight, keep, keep_rate = batch
    hidden = torch.bmm(x, params["fc1.weight"].mT).add_(params["fc1.bias"].unsqueeze(1)).relu_()
    fc2 = params["fc2.weight"]
    if keep is not None:
        hidden.mul_(keep)
        fc2 = fc2 / keep_rate  # inverted dropout's 1 / keep_rate, moved from B x H hidden units to C x H weights
    logits = torch.baddbmm(params["fc2.bias"].unsqueeze(2), fc2, hidden.mT)  # (R, C, B): fast along the long axis
    loss, d_logits = _focal_loss_and_gradient(logits, y.unsqueeze(1), weight.unsqueeze(1), gamma)

    d_fc2 = torch.bmm(d_logits, hidden)
    grads["fc2.weight"].copy_(d_fc2 if keep is None else d_fc2.div_(keep_rate))
    torch.sum(d_logits, dim=2, out=grads["fc2.bias"])
    d_hidden = torch.bmm(d_logits.mT, fc2).mul_(hidden.sign_())  # 1 where positive, 0 where off or dropped
    torch.sum(d_hidden, dim=1, out=grads["fc1.bias"])
    grads["fc1.weight"].copy_(torch.bmm(d_hidden.mT, x))
    return loss


def _focal_loss_and_gradient(logits: Tensor, y: Tensor, weight: Tensor, gamma: float | Tensor) -> tuple[Tensor, Tensor]:
    """Losses (R,) and d loss / d logits (R, C, B) from logits (R, C, B), y and weight (R, 1, B).

    With p = p_t, q = 1 - p: dL/dz_j = weight * (gamma p q^(gamma-1) log p - q^gamma) * (1[j = t] - p_j).
    """
    log_p = logits.log_softmax(dim=1)
    log_pt = log_p.gather(1, y)
    q = torch.expm1(log_pt).neg_().clamp_min_(TINY)
    focus = weight * q**gamma
    loss = (focus * log_pt).sum(dim=(1, 2)).neg_()
    slope = log_pt.exp().mul_(log_pt).mul_(focus).div_(q).mul_(gamma).sub_(focus)
    d_logits = log_p.exp_().mul_(-slope)
    d_logits.scatter_add_(1, y, slope)
    return loss, d_logits


def vmap_gradients(params: Parameters, grads: Parameters, batch: HeadBatch, gamma: float | Tensor) -> Tensor:
    """`written_out_gradients`, as autograd sees it: one head's loss, mapped over the rows. The readable reference."""
    x, y, weight, keep, keep_rate = batch
    rows = len(x)
    gammas = torch.as_tensor(gamma, dtype=x.dtype).reshape(-1).expand(rows)
    if keep is None:
        keep = x.new_ones(rows, x.shape[1], params["fc1.bias"].shape[-1], dtype=torch.bool)
    dropout = keep / keep_rate
    losses: Tensor
    found, losses = vmap(grad_and_value(one_head_loss))(params, x, y, weight, gammas, dropout)
    for name, value in found.items():
        grads[name].copy_(value)
    return losses


def one_head_loss(
    params: dict[str, Tensor], x: Tensor, y: Tensor, weight: Tensor, gamma: Tensor, dropout: Tensor
) -> Tensor:
    """Focal loss (Lin et al. 2017) of one head on one batch: x (B, D), y and weight (B,), dropout (B, H) factors."""
    hidden = functional.relu(functional.linear(x, params["fc1.weight"], params["fc1.bias"])) * dropout
    log_p = functional.linear(hidden, params["fc2.weight"], params["fc2.bias"]).log_softmax(dim=-1)
    log_pt = log_p.gather(-1, y.unsqueeze(-1)).squeeze(-1)
    q = (-torch.expm1(log_pt)).clamp_min(TINY)
    return -(weight * q**gamma * log_pt).sum()
