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
from numpy.typing import ArrayLike, NDArray

from lasps.config.settings import CLASS_NAMES
from lasps.evaluation.forecast import Forecast
from lasps.evaluation.rank_ic import MIN_DAYS, daily_rank_ic, within_quantiles

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
    """(N,) alpha_t (1 - p_t)^gamma (-log p_t) of the *raw* softmax: the loss the model was trained on."""
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
    """Training class frequencies as an array; ValueError unless three numbers >= 0 that sum to 1.

    A class that train does not have has frequency 0: the prior's log loss is then undefined where it occurs.
    """
    p = np.asarray(prior, dtype=np.float64)
    if p.shape != (N_CLASSES,) or not (p >= 0).all() or abs(p.sum() - 1) > 1e-3:
        raise ValueError(f"prior must be 3 numbers >= 0 with sum 1 (SELL, HOLD, BUY), got {p.tolist()}")
    return p / p.sum()


@dataclass(frozen=True)
class DaySums:
    """A metric as `value(sum over days of rows)`: sums (T, K), value maps (..., K) -> (...).

    rows: (T,) how many samples count on each day. defined: (T,) on which days a day-wise metric exists; None for a
    sample mean, which every day is a part of. dated: False where nobody knows which row is of which day (T is 1).
    """

    sums: Array
    value: Callable[[Array], Array]
    rows: Array
    defined: NDArray[np.bool_] | None = None
    dated: bool = True

    @property
    def n(self) -> int:
        """Samples that count."""
        return int(self.rows.sum())

    @property
    def n_days(self) -> int:
        """Days that count; 0 where days are unknown."""
        return int((self.rows > 0).sum()) if self.dated else 0

    @property
    def estimate(self) -> float:
        """The metric; NaN for a day-wise metric of under MIN_DAYS days."""
        if self.defined is not None and self.n_days < MIN_DAYS:
            return float("nan")
        return float(self.value(self.sums.sum(axis=0)))

    def on(self, days: NDArray[np.bool_]) -> DaySums:
        """The metric over the days of the mask (T,)."""
        return DaySums(self.sums[days], self.value, self.rows[days], np.ones(int(days.sum()), dtype=bool), self.dated)


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


def _day_sum(day: NDArray[np.int64], n_days: int, weights: NDArray[Any] | None = None) -> Array:
    return np.bincount(day, weights, minlength=n_days).astype(np.float64)


def _days(f: Forecast) -> tuple[NDArray[np.int64], int]:
    """Day numbers and their count; without dates every row counts as one day (good for sums only)."""
    return (np.zeros(f.n, dtype=np.int64), 1) if f.day is None else (f.day, len(f.dates))


def _of_rows(f: Forecast, sums: Array, value: Callable[[Array], Array]) -> DaySums:
    """A sample mean, or a function of some: every row counts."""
    return DaySums(sums, value, _day_sum(*_days(f)), dated=f.day is not None)


def row_mean(f: Forecast, values: NDArray[Any], weights: NDArray[Any] | None = None) -> DaySums:
    """Mean of (N,) values over samples, or their sum over that of (N,) weights (0 or 1: which rows count)."""
    day, n_days = _days(f)
    rows = _day_sum(day, n_days, weights)
    return DaySums(np.stack([_day_sum(day, n_days, values), rows], axis=1), ratio, rows, dated=f.day is not None)


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
    if which not in f.cache:
        usable = returns is not None and f.day is not None
        f.cache[which] = daily_rank_ic(f.score, returns, day, n_days) if usable else np.full(n_days, np.nan)
    return f.cache[which]


def daily_ic(f: Forecast) -> Array:
    """(T,) rank IC of each day; NaN where undefined."""
    return _daily_ic(f, "forward_return")


def daily_ic_skip1(f: Forecast) -> Array:
    """(T,) rank IC of each day with the returns from the next day on; NaN where undefined."""
    return _daily_ic(f, "forward_return_skip1")


def _ic_sums(f: Forecast, which: str, ratio_to_spread: bool = False) -> DaySums:
    ic, returns = _daily_ic(f, which), getattr(f, which)
    defined = np.isfinite(ic)
    ic = np.where(defined, ic, 0.0)
    moments = [defined, ic, ic**2] if ratio_to_spread else [ic, defined]
    used = np.zeros(f.n) if returns is None else (np.isfinite(f.score) & np.isfinite(returns)).astype(np.float64)
    rows = np.where(defined, _day_sum(*_days(f), used), 0.0)
    return DaySums(
        np.stack(moments, axis=1).astype(np.float64),
        _ic_ratio if ratio_to_spread else ratio,
        rows,
        defined,
        dated=f.day is not None,
    )


METRICS: dict[str, Callable[[Forecast], DaySums]] = {
    "log_loss": lambda f: row_mean(f, log_losses(f.p, f.labels)),
    "accuracy": lambda f: row_mean(f, (f.predicted == f.labels).astype(np.float64)),
    "macro_f1": lambda f: _of_rows(f, _confusion_sums(f), _macro_f1),
    "balanced_accuracy": lambda f: _of_rows(f, _confusion_sums(f), _balanced_accuracy),
    "rank_ic": lambda f: _ic_sums(f, "forward_return"),
    "icir": lambda f: _ic_sums(f, "forward_return", ratio_to_spread=True),
    "rank_ic_skip1": lambda f: _ic_sums(f, "forward_return_skip1"),
    "icir_skip1": lambda f: _ic_sums(f, "forward_return_skip1", ratio_to_spread=True),
    "expected_calibration_error": lambda f: _of_rows(f, _calibration_sums(f), _calibration_error),
}
"""Metric name -> its day sums. All of them can carry an interval over days."""
DAY_WISE = ("rank_ic", "rank_ic_skip1")
"""Means over days, of days that need not be all: M has their own days and samples beside them (and beside ICIR)."""

LOWER_IS_BETTER = frozenset({"log_loss", "expected_calibration_error", "focal_loss", "raw_log_loss"})


def _number(x: float) -> float | None:
    return float(x) if np.isfinite(x) else None


def _by_class(values: Array) -> dict[str, float | None]:
    return {name: _number(v) for name, v in zip(CLASS_NAMES, values, strict=True)}


def summary(f: Forecast, prior: Sequence[float]) -> dict[str, Any]:
    """All metrics of one forecast.

    Args:
        prior: training class frequencies (SELL, HOLD, BUY); the majority class is their largest.

    Returns:
        n, n_days, accuracy, majority_accuracy, log_loss, prior_log_loss, raw_log_loss, focal_loss (gamma 2, equal
        weights, of raw_p), macro_f1, balanced_accuracy, rank_ic, icir, rank_ic_skip1, icir_skip1 (None under MIN_DAYS
        days), rank_ic_days, rank_ic_skip1_days and rank_ic_n, rank_ic_skip1_n (the days and samples that have one),
        expected_calibration_error, class_accuracy, class_precision, class_counts, predicted_counts. Fractions and
        nats; None where undefined.
    """
    base = checked_prior(prior)
    counts = np.bincount(f.labels, minlength=N_CLASSES)
    flat = _confusion_sums(f).sum(axis=0)
    sums = {name: METRICS[name](f) for name in METRICS}
    numbers = {name: _number(of_metric.estimate) for name, of_metric in sums.items()}
    with np.errstate(divide="ignore", invalid="ignore"):
        prior_losses = np.where(counts > 0, -counts * np.log(base), 0.0)
    raw: dict[str, float | None] = {"raw_log_loss": None, "focal_loss": None}
    if f.raw_p is not None:
        raw = {
            "raw_log_loss": _number(log_loss(f.raw_p, f.labels)),
            "focal_loss": _number(float(focal_losses(f.raw_p, f.labels).mean())),
        }
    return {
        "n": f.n,
        "n_days": None if f.day is None else f.n_days,
        "accuracy": numbers.pop("accuracy"),
        "majority_accuracy": float(counts[int(base.argmax())] / f.n),
        "log_loss": numbers.pop("log_loss"),
        "prior_log_loss": _number(float(prior_losses.sum() / f.n)),
        **raw,
        **numbers,
        **{f"{name}_days": sums[name].n_days for name in DAY_WISE},
        **{f"{name}_n": sums[name].n for name in DAY_WISE},
        "class_accuracy": _by_class(_recall(flat)),
        "class_precision": _by_class(_precision(flat)),
        "class_counts": {name: int(c) for name, c in zip(CLASS_NAMES, counts, strict=True)},
        "predicted_counts": {
            name: int(c) for name, c in zip(CLASS_NAMES, np.bincount(f.predicted, minlength=3), strict=True)
        },
    }


def by_sector(f: Forecast, prior: Sequence[float]) -> dict[int, dict[str, Any]]:
    """`summary` of every sector that has rows, each with its own n."""
    return {int(s): summary(f.where(f.sectors == s), prior) for s in np.unique(f.sectors)}


def rank_ic_in_volatility_quintiles(f: Forecast) -> list[tuple[float | None, int]]:
    """(rank IC, its days) within each daily quintile of 20-day volatility, calmest first: skill beyond volatility."""
    if f.day is None or f.volatility is None or f.forward_return is None:
        return [(None, 0)] * 5
    return within_quantiles(f.score, f.forward_return, f.volatility, f.day, len(f.dates))


def coverage_curve(f: Forecast, coverages: Sequence[float] = tuple(np.arange(1, 11) / 10)) -> list[dict[str, float]]:
    """Accuracy on the share of samples the model is most confident of (largest top probability), for each coverage."""
    order = np.argsort(-f.p.max(axis=1), kind="stable")
    correct = np.cumsum((f.predicted == f.labels)[order])
    rows = [max(1, round(c * f.n)) for c in coverages]
    return [{"coverage": n / f.n, "n": n, "accuracy": float(correct[n - 1] / n)} for n in rows]


def flat_metrics(m: Mapping[str, Any], prefix: str = "") -> dict[str, float]:
    """Metrics as "test/class_accuracy/SELL" -> number, without the undefined ones: what a tracker can log."""
    out: dict[str, float] = {}
    for key, value in m.items():
        if isinstance(value, Mapping):
            out |= flat_metrics(value, f"{prefix}{key}/")
        elif isinstance(value, int | float):
            out[f"{prefix}{key}"] = float(value)
    return out
