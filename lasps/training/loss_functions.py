"""The focal loss. Shapes: B batch, C classes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional


class FocalLoss(nn.Module):
    """sum of alpha_t (1 - p_t)^gamma (-log p_t) over the batch, divided by B.

    p_t is the *unweighted* softmax probability of the label; the class weight alpha_t only scales the term. gamma = 0
    without weights is cross-entropy. Lin, Goyal, Girshick, He and Dollar, "Focal Loss for Dense Object Detection",
    ICCV 2017.

    Args:
        num_classes: C.
        gamma: >= 0; 2 in the original specification.
        weight: alpha (C,), positive; None is 1 for every class.
        reduction: "mean" as above, "sum", or "none" for the terms (B,).
    """

    weight: Tensor

    def __init__(
        self,
        num_classes: int = 3,
        gamma: float = 2.0,
        weight: Tensor | Sequence[float] | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        alpha = torch.ones(num_classes) if weight is None else torch.as_tensor(weight, dtype=torch.float32)
        if alpha.shape != (num_classes,) or not bool((alpha.isfinite() & (alpha > 0)).all()):
            raise ValueError(f"weight: expected {num_classes} positive numbers, got {alpha.tolist()}")
        if not 0 <= gamma < float("inf"):
            raise ValueError(f"gamma: expected a finite number >= 0, got {gamma}")
        if reduction not in ("mean", "sum", "none"):
            raise ValueError(f"reduction: expected mean, sum or none, got {reduction!r}")
        self.num_classes, self.gamma, self.reduction = num_classes, float(gamma), reduction
        self.register_buffer("weight", alpha.detach().clone(), persistent=False)

    def forward(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Logits (B, C) and labels int64 (B,) in 0..C-1 -> a scalar, or (B,) with reduction "none".

        Raises:
            ValueError: other shapes or an empty batch.
        """
        if logits.ndim != 2 or logits.shape[1] != self.num_classes or labels.shape != logits.shape[:1]:
            raise ValueError(
                f"expected logits (B, {self.num_classes}) and labels (B,), got {tuple(logits.shape)} and "
                f"{tuple(labels.shape)}"
            )
        if not len(labels):
            raise ValueError("the batch is empty: its mean loss is undefined")
        terms = self.weight[labels] * focal_terms(logits.float(), labels, self.gamma)
        if self.reduction == "none":
            return terms
        return terms.sum() if self.reduction == "sum" else terms.sum() / len(labels)


def focal_terms(logits: Tensor, labels: Tensor, gamma: float) -> Tensor:
    """(1 - p_t)^gamma (-log p_t), (B,); finite with finite gradients however sure the logits are."""
    log_p = functional.log_softmax(logits, dim=1).gather(1, labels.unsqueeze(1)).squeeze(1)
    if gamma == 0:
        return -log_p
    # 1 - p from the other classes' logits: where p rounds to 1, 1 - p still has all its digits and log p its slope
    others = logits.scatter(1, labels.unsqueeze(1), float("-inf"))
    log_rest = torch.logsumexp(others, dim=1) - torch.logsumexp(logits, dim=1)
    return torch.exp(gamma * log_rest) * -log_p
