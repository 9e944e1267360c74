"""The optimiser and its learning rate: AdamW, linear warm-up, cosine to zero."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import nn

BETAS = (0.9, 0.999)
"""torch's defaults, Kingma and Ba 2015."""


def learning_rate_factor(step: int, total_steps: int, warmup_steps: int) -> float:
    """The share of the peak learning rate at `step` (0-based): (step+1)/warmup, then half a cosine that ends above 0.

    Loshchilov and Hutter, "SGDR", ICLR 2017; warm-up as Goyal et al. 2017.
    """
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    progress = (step - warmup_steps) / max(total_steps - warmup_steps, 1)
    return 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))


def warmup_steps_of(total_steps: int, warmup_fraction: float) -> int:
    """How many of the steps warm up; 0 where the fraction is 0."""
    if not 0 <= warmup_fraction <= 1:
        raise ValueError(f"warmup_fraction: expected 0..1, got {warmup_fraction}")
    return math.ceil(total_steps * warmup_fraction)


def set_learning_rate(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """The same learning rate for all parameters."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def make_optimizer(
    named_parameters: Iterable[tuple[str, nn.Parameter]], lr: float, weight_decay: float
) -> torch.optim.AdamW:
    """AdamW (Loshchilov and Hutter 2019) without decay on what is no weight matrix, nor on the skip projection.

    Biases and norms are not decayed, as usual. The skip projection is not either: its directions are there for the
    sector heads, and those that the common head ignores have no gradient that would stand against the decay.

    Raises:
        ValueError: no parameter is to be trained.
    """
    decayed: list[nn.Parameter] = []
    kept: list[nn.Parameter] = []
    for name, parameter in named_parameters:
        if parameter.requires_grad:
            is_matrix = parameter.ndim >= 2 and not name.endswith("bias") and "skip_projection" not in name
            (decayed if is_matrix else kept).append(parameter)
    if not decayed and not kept:
        raise ValueError("no parameter requires a gradient: is the backbone frozen? Call unfreeze_backbone() first")
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": kept, "weight_decay": 0.0}]
    return torch.optim.AdamW([group for group in groups if group["params"]], lr=lr, betas=BETAS, fused=True)
