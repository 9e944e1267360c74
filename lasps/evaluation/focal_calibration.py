"""Logits of a focal or class-weighted model -> probabilities that mean what they say.

The minimiser of the expected weighted focal loss is not the class probability. With
phi(q) = -(1 - q)^gamma log q, minimising sum_i eta_i alpha_i phi(q_i) over the simplex makes
eta_i alpha_i (-phi'(q_i)) equal for all classes, so

    eta_i  proportional to  1 / (alpha_i * -phi'(q_i)),
    -phi'(q) = (1 - q)^gamma / q - gamma (1 - q)^(gamma - 1) log q.

Charoenphakdee, Vongkulbhisal, Chairatanakul and Sugiyama, "On Focal Loss for Class-Posterior Probability
Estimation", CVPR 2021 (gamma alone); the class weights alpha enter as above.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import log_expit, log_softmax, logsumexp

Array = NDArray[np.float64]


def _finite_logits(logits: ArrayLike) -> Array:
    """Logits (..., C) as float64; NaN and infinities are refused, because they would spread silently."""
    z = np.asarray(logits, dtype=np.float64)
    if z.ndim < 1 or z.shape[-1] < 2:
        raise ValueError(f"logits must have at least 2 classes in the last dimension, got shape {z.shape}")
    if not np.isfinite(z).all():
        first = tuple(int(i) for i in np.argwhere(~np.isfinite(z))[0])
        raise ValueError(f"logits must be finite, got {z[first]} at index {first}: the model has diverged")
    return z


def _checked_weights(gamma: float, class_weights: ArrayLike | None, classes: int) -> Array:
    if not (np.isfinite(gamma) and gamma >= 0):
        raise ValueError(f"gamma must be finite and >= 0, got {gamma}")
    weights = np.ones(classes) if class_weights is None else np.asarray(class_weights, dtype=np.float64)
    if weights.shape != (classes,) or not (np.isfinite(weights).all() and (weights > 0).all()):
        raise ValueError(f"class_weights must be {classes} positive numbers, got {weights.tolist()}")
    return weights


def calibrated_log_probabilities(logits: ArrayLike, gamma: ArrayLike, class_weights: ArrayLike | None = None) -> Array:
    """Log probabilities (..., C) float64 of a model trained with a weighted focal loss; see the module.

    Works on logarithms throughout, so that q -> 0 and q -> 1 lose no digits. gamma = 0 with equal weights
    is log_softmax. gamma is one number or one per sample (...): heads of one model may be trained with different ones.
    """
    z = _finite_logits(logits)
    if np.ndim(gamma):
        gammas, log_p = np.broadcast_to(np.asarray(gamma, dtype=np.float64), z.shape[:-1]), np.empty_like(z)
        for one in np.unique(gammas):
            log_p[gammas == one] = calibrated_log_probabilities(z[gammas == one], float(one), class_weights)
        return log_p
    gamma = float(gamma)  # type: ignore[arg-type]
    weights = _checked_weights(gamma, class_weights, z.shape[-1])
    if gamma == 0:
        return np.asarray(log_softmax(z - np.log(weights), axis=-1))
    # odds of class i against all the others: log q and log(1 - q) are both exact from it
    others = np.stack([logsumexp(np.delete(z, i, axis=-1), axis=-1) for i in range(z.shape[-1])], axis=-1)
    log_q, log_rest = log_expit(z - others), log_expit(others - z)
    with np.errstate(divide="ignore", invalid="ignore", over="ignore", under="ignore"):
        # -q log q / (1 - q), which goes to 1 as q -> 1; beyond 30 nats it is 1 to the last digit
        ratio = np.where(log_rest < -30.0, 1.0, np.exp(log_q + np.log(-log_q) - log_rest))
    log_eta = log_q - gamma * log_rest - np.log1p(gamma * ratio) - np.log(weights)
    return np.asarray(log_softmax(log_eta, axis=-1))


def calibrated_probabilities(logits: ArrayLike, gamma: ArrayLike, class_weights: ArrayLike | None = None) -> Array:
    """Class probabilities (..., C) float64 from the logits of a model trained with FocalLoss(gamma, weights).

    Raises:
        ValueError: non-finite logits, gamma < 0, or weights that are not C positive numbers.
    """
    return np.exp(calibrated_log_probabilities(logits, gamma, class_weights))
