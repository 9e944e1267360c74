"""Every metric once: day sums of a few quantities, and a smooth function of the sums.

Sample means, never means of batch means. Because each metric is a function of sums over days, the same definition
gives the number (all days), its interval (leaving days out, see significance.py) and its value per sector (rows of
one sector); the tests hold them against scikit-learn and scipy. Fractions, and None where a number is undefined (no
such class, no dates, no returns).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import ArrayLike, NDArray

from lasps.config.settings import CLASS_NAMES
from lasps.evaluation.predictions import Forecast, as_forecast
from lasps.evaluation.rank_ic import daily_rank_ic, within_quantiles

Array = NDArray[np.float64]
N_CLASSES = len(CLASS_NAMES)
ECE_BINS = 15
FOCAL_GAMMA = 2.0


def log_losses(p: ArrayLike, labels: ArrayLike) -> Array:
    """(N,) -log p of what happened; inf where it was given probability 0."""
    q = np.asarray(p, dtype=np.float64)
    with np.errstate(divide="ignore"):
        return -np.log(q[np.arange(len(q)), np.asarray(labels, dtype=np.int64)])


def log_loss(p: ArrayLike, labels: ArrayLike) -> float:
    """Mean of -log p over samples (nats). p (N, C) calibrated probabilities, labels (N,); inf, never clipped."""
    losses = log_losses(p, labels)
    if not len(losses):
        raise ValueError("log loss of no samples is undefined: expected p (N, C) with N > 0")
    return float(losses.mean())


def focal_losses(
    raw_p: ArrayLike, labels: ArrayLike, gamma: ArrayLike = FOCAL_GAMMA, weights: ArrayLike | None = None
) -> Array:
    """(N,) alpha_t (1 - p_t)^gamma (-log p_t) of the *uncorrected* softmax: the loss the model was trained on."""
    y = np.asarray(labels, dtype=np.int64)
    p_t = np.asarray(raw_p, dtype=np.float64)[np.arange(len(y)), y]
    alpha = 1.0 if weights is None else np.asarray(weights, dtype=np.float64)[y]
    with np.errstate(divide="ignore"):
        return alpha * (1 - p_t) ** np.asarray(gamma) * -np.log(p_t)


def class_frequencies(labels: ArrayLike) -> tuple[float, ...]:
    """Class shares of labels (N,), in class order."""
    counts = np.bincount(np.asarray(labels, dtype=np.int64), minlength=N_CLASSES)
    return tuple(float(c) / counts.sum() for c in counts)


def checked_prior(prior: Sequence[float]) -> Array:
    """Training class frequencies as an array; ValueError unless three positive numbers that sum to 1."""
    p = np.asarray(prior, dtype=np.float64)
    if p.shape != (N_CLASSES,) or not (p > 0).all() or abs(p.sum() - 1) > 1e-3:
        raise ValueError(f"prior must be 3 positive numbers with sum 1 (SELL, HOLD, BUY), got {p.tolist()}")
    return p / p.sum()


@dataclass(frozen=True)
class DaySums:
    """A metric as `value(sum over days of rows)`: sums (T, K), value maps (..., K) -> (...)."""

    sums: Array
    value: Callable[[Array], Array]

    @property
    def estimate(self) -> float:
        return float(self.value(self.sums.sum(axis=0)))


def ratio(s: Array) -> Array:
    """First over second sum, (..., 2) -> (...); NaN or infinite where the second is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return s[..., 0] / s[..., 1]


def _confusion(s: Array) -> Array:
    return s.reshape(*s.shape[:-1], N_CLASSES, N_CLASSES)


def _mean_defined(x: Array) -> Array:
    defined = np.isfinite(x)
    with np.errstate(invalid="ignore"):
        return np.where(defined, x, 0.0).sum(-1) / defined.sum(-1)


def _recall(s: Array) -> Array:
    c = _confusion(s)
    with np.errstate(invalid="ignore"):
        return np.diagonal(c, axis1=-2, axis2=-1) / c.sum(-1)


def _precision(s: Array) -> Array:
    c = _confusion(s)
    with np.errstate(invalid="ignore"):
        return np.diagonal(c, axis1=-2, axis2=-1) / c.sum(-2)


def _macro_f1(s: Array) -> Array:
    c = _confusion(s)
    with np.errstate(invalid="ignore"):
        return _mean_defined(2 * np.diagonal(c, axis1=-2, axis2=-1) / (c.sum(-1) + c.sum(-2)))


def _balanced_accuracy(s: Array) -> Array:
    return _mean_defined(_recall(s))


def _calibration_error(s: Array) -> Array:
    bins = s.reshape(*s.shape[:-1], -1, 3)  # count, sum of confidence, number correct
    return np.abs(bins[..., 1] - bins[..., 2]).sum(-1) / bins[..., 0].sum(-1)


def _ic_ratio(s: Array) -> Array:
    n, total, squares = s[..., 0], s[..., 1], s[..., 2]
    with np.errstate(divide="ignore", invalid="ignore"):
        mean = total / n
        return mean / np.sqrt((squares - n * mean**2) / (n - 1))


def confidence_bins(confidence: Array, bins: int = ECE_BINS) -> NDArray[np.int64]:
    """(N,) number of the equal-mass bin; equal confidences share a bin, so a constant forecast has one."""
    edges = np.unique(np.quantile(confidence, np.arange(1, bins) / bins))
    return np.searchsorted(edges, confidence, side="left")


def _day_sum(day: NDArray[np.int64], n_days: int, weights: Array | None = None) -> Array:
    return np.bincount(day, weights, minlength=n_days).astype(np.float64)


def _days(f: Forecast) -> tuple[NDArray[np.int64], int]:
    """Day numbers and their count; without dates every row counts as one day (good for sums only)."""
    return (np.zeros(f.n, dtype=np.int64), 1) if f.day is None else (f.day, len(f.dates))


def _row_mean(f: Forecast, rows: Array) -> DaySums:
    day, n_days = _days(f)
    return DaySums(np.stack([_day_sum(day, n_days, rows), _day_sum(day, n_days)], axis=1), ratio)


def _confusion_sums(f: Forecast) -> Array:
    day, n_days = _days(f)
    cell = day * N_CLASSES**2 + f.labels * N_CLASSES + f.predicted
    return np.bincount(cell, minlength=n_days * N_CLASSES**2).reshape(n_days, -1).astype(np.float64)


def _calibration_sums(f: Forecast) -> Array:
    day, n_days = _days(f)
    confidence, correct = f.p.max(axis=1), (f.predicted == f.labels).astype(np.float64)
    cell, size = day * ECE_BINS + confidence_bins(confidence), n_days * ECE_BINS
    parts = [np.bincount(cell, w, minlength=size) for w in (np.ones(f.n), confidence, correct)]
    return np.stack(parts, axis=-1).reshape(n_days, -1).astype(np.float64)


def _daily_ic(f: Forecast, which: str) -> Array:
    """(T,) daily rank IC with the returns in field `which`, computed once per forecast; NaN without returns."""
    returns = getattr(f, which)
    day, n_days = _days(f)
    if which not in f.kept:
        usable = returns is not None and f.day is not None
        f.kept[which] = daily_rank_ic(f.score, returns, day, n_days) if usable else np.full(n_days, np.nan)
    return f.kept[which]


def _ic_sums(f: Forecast, which: str, moments: int) -> Array:
    ic = _daily_ic(f, which)
    defined = np.isfinite(ic)
    ic = np.where(defined, ic, 0.0)
    return np.stack([ic, defined] if moments == 2 else [defined, ic, ic**2], axis=1).astype(np.float64)


METRICS: dict[str, Callable[[Forecast], DaySums]] = {
    "log_loss": lambda f: _row_mean(f, log_losses(f.p, f.labels)),
    "accuracy": lambda f: _row_mean(f, (f.predicted == f.labels).astype(np.float64)),
    "macro_f1": lambda f: DaySums(_confusion_sums(f), _macro_f1),
    "balanced_accuracy": lambda f: DaySums(_confusion_sums(f), _balanced_accuracy),
    "rank_ic": lambda f: DaySums(_ic_sums(f, "forward_return", 2), ratio),
    "icir": lambda f: DaySums(_ic_sums(f, "forward_return", 3), _ic_ratio),
    "rank_ic_skip1": lambda f: DaySums(_ic_sums(f, "forward_return_skip1", 2), ratio),
    "icir_skip1": lambda f: DaySums(_ic_sums(f, "forward_return_skip1", 3), _ic_ratio),
    "expected_calibration_error": lambda f: DaySums(_calibration_sums(f), _calibration_error),
}
"""Metric name -> its day sums. All of them can carry an interval over days."""

LOWER_IS_BETTER = frozenset({"log_loss", "expected_calibration_error", "focal_loss", "raw_log_loss"})


def _number(x: float) -> float | None:
    return float(x) if np.isfinite(x) else None


def _by_class(values: Array) -> dict[str, float | None]:
    return {name: _number(v) for name, v in zip(CLASS_NAMES, values, strict=True)}


def forecast_summary(f: Forecast, prior: Sequence[float]) -> dict[str, Any]:
    """M of one Forecast; see `summary`."""
    base = checked_prior(prior)
    counts = np.bincount(f.labels, minlength=N_CLASSES)
    flat = _confusion_sums(f).sum(axis=0)
    numbers = {name: _number(METRICS[name](f).estimate) for name in METRICS}
    raw: dict[str, float | None] = {"raw_log_loss": None, "focal_loss": None}
    if f.raw_p is not None:
        raw = {"raw_log_loss": _number(log_loss(f.raw_p, f.labels)),
               "focal_loss": _number(float(focal_losses(f.raw_p, f.labels).mean()))}  # fmt: skip
    return {
        "n": f.n,
        "n_days": None if f.day is None else f.n_days,
        "accuracy": numbers.pop("accuracy"),
        "majority_accuracy": float(counts[int(base.argmax())] / f.n),
        "log_loss": numbers.pop("log_loss"),
        "prior_log_loss": float(-(counts * np.log(base)).sum() / f.n),
        **raw,
        **numbers,
        "class_accuracy": _by_class(_recall(flat)),
        "class_precision": _by_class(_precision(flat)),
        "class_counts": {name: int(c) for name, c in zip(CLASS_NAMES, counts, strict=True)},
        "predicted_counts": {name: int(c) for name, c in zip(CLASS_NAMES, np.bincount(f.predicted, minlength=3),
                                                             strict=True)},
    }  # fmt: skip


def summary(table: pl.DataFrame | Forecast, prior: Sequence[float]) -> dict[str, Any]:
    """M: all metrics of one prediction table.

    Args:
        table: a checked prediction table (predictions.py).
        prior: training class frequencies (SELL, HOLD, BUY); the majority class is their largest.

    Returns:
        n, n_days, accuracy, majority_accuracy, log_loss, prior_log_loss, raw_log_loss, focal_loss (gamma 2, equal
        weights, of raw_p), macro_f1, balanced_accuracy, rank_ic, icir, rank_ic_skip1, icir_skip1,
        expected_calibration_error, class_accuracy, class_precision, class_counts, predicted_counts. Fractions and
        nats; None where undefined.
    """
    return forecast_summary(table if isinstance(table, Forecast) else as_forecast(table), prior)


def by_sector(table: pl.DataFrame | Forecast, prior: Sequence[float]) -> dict[int, dict[str, Any]]:
    """M for every sector that has rows, each with its own n."""
    f = table if isinstance(table, Forecast) else as_forecast(table)
    return {int(s): forecast_summary(f.where(f.sectors == s), prior) for s in np.unique(f.sectors)}


def rank_ic_in_volatility_quintiles(f: Forecast) -> list[float | None]:
    """Rank IC within each daily quintile of 20-day volatility (calmest first): skill beyond knowing volatility."""
    if f.day is None or f.volatility is None or f.forward_return is None:
        return [None] * 5
    return within_quantiles(f.score, f.forward_return, f.volatility, f.day, len(f.dates))


def coverage_curve(f: Forecast, coverages: Sequence[float] = tuple(np.arange(1, 11) / 10)) -> list[dict[str, float]]:
    """Accuracy on the share of samples the model is surest of (largest top probability), for each coverage."""
    order = np.argsort(-f.p.max(axis=1), kind="stable")
    correct = np.cumsum((f.predicted == f.labels)[order])
    rows = [max(1, round(c * f.n)) for c in coverages]
    return [{"coverage": n / f.n, "n": n, "accuracy": float(correct[n - 1] / n)} for n in rows]


def flat_metrics(m: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """M as "test/class_accuracy/SELL" -> number, without the undefined ones: what a tracker can log."""
    out: dict[str, float] = {}
    for key, value in m.items():
        if isinstance(value, Mapping):
            out |= flat_metrics(value, f"{prefix}{key}/")
        elif isinstance(value, int | float):
            out[f"{prefix}{key}"] = float(value)
    return out
