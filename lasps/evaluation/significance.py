"""Intervals over days: how far is a difference between two models from nothing?

Stocks of one day move together and 5-day returns overlap, so the unit is the day and neighbouring days are
correlated. A metric is a smooth function of day sums (metrics.DaySums); leaving one day out gives that day's
influence on it, and the long-run variance of the influences gives the standard error. The variance is the
equal-weighted cosine estimator with B = 0.4 T^(2/3) terms and Student's t with B degrees of freedom (fixed-b; Lazarus,
Lewis, Stock and Watson, "HAR Inference: Recommendations for Practice", JBES 2018). The percentile block bootstrap
covers only 83-90 % here; `make verify` simulates what this one covers (docs/verification.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from lasps.evaluation.forecast import Forecast, align
from lasps.evaluation.metrics import LOWER_IS_BETTER, METRICS, DaySums, ratio
from lasps.evaluation.rank_ic import MIN_DAYS

Array = NDArray[np.float64]
CONFIDENCE = 0.95
MIN_COSINES = 4  # B at 20..31 days by the rule below is 3-4; a t with 3 degrees of freedom says almost nothing


@dataclass(frozen=True)
class Difference:
    """b minus a in one metric, `a` and `b` its values; difference NaN, the others None where undefined.

    `low` and `high` are the ends of a 95 % interval, `p_value` is two-sided.
    """

    metric: str
    difference: float
    low: float | None
    high: float | None
    p_value: float | None
    n_days: int
    n: int
    standard_error: float | None = None
    dof: float | None = None
    n_seeds: int = 1
    a: float | None = None
    b: float | None = None

    @property
    def interval(self) -> list[float] | None:
        return None if self.low is None or self.high is None else [self.low, self.high]

    @property
    def excludes_zero(self) -> bool:
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)

    @property
    def better(self) -> str | None:
        """ "a" or "b" where the interval excludes zero, else None."""
        if not self.excludes_zero:
            return None
        return "b" if (self.difference < 0) == (self.metric in LOWER_IS_BETTER) else "a"

    @property
    def over(self) -> str:
        """What the interval covers: "days" is a claim about one set of weights, "seeds and days" about a method."""
        return "seeds and days" if self.n_seeds > 1 else "days"

    def row(self) -> dict[str, Any]:
        """Its columns in the frames of a comparison; None where undefined."""
        shown = ("low", "high", "p_value", "n", "n_days", "n_seeds", "over")
        return {"difference": _finite(self.difference)} | {name: getattr(self, name) for name in shown}


def cosine_terms(n_days: int) -> int:
    """B, the number of cosines, for `n_days` days: 0.4 T^(2/3) (Lazarus et al. 2018)."""
    return max(MIN_COSINES, round(0.4 * n_days ** (2 / 3)))


def long_run_variance(influence: Array) -> tuple[Array, int]:
    """Variance of the mean of (..., T) autocorrelated numbers, and its degrees of freedom B."""
    n_days = influence.shape[-1]
    terms = cosine_terms(n_days)
    frequency = np.outer(np.arange(n_days) + 0.5, np.arange(1, terms + 1)) * np.pi / n_days
    projections = influence @ (np.sqrt(2.0 / n_days) * np.cos(frequency))
    return np.asarray((projections**2).mean(axis=-1) / n_days), terms


def day_influence(metric: DaySums) -> Array:
    """(T,) influence of each day: (T - 1) x (metric of all days - metric without the day)."""
    total = metric.sums.sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return (len(metric.sums) - 1) * (metric.value(total) - metric.value(total - metric.sums))


def student_interval(estimate: float, variance: float, dof: float) -> tuple[float, float, float]:
    """(low, high, two-sided p) of an estimate; a zero variance is a difference of identical forecasts."""
    if variance <= 0:
        return estimate, estimate, 1.0 if estimate == 0 else 0.0
    error = float(np.sqrt(variance))
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, dof) * error)
    return estimate - half, estimate + half, float(2 * stats.t.sf(abs(estimate) / error, dof))


def on_common_days(a: Sequence[DaySums], b: Sequence[DaySums]) -> tuple[list[DaySums], list[DaySums]]:
    """Both sides of a day-wise metric cut to the days on which every one of them has it; sample means as they are."""
    masks = [m.defined for m in (*a, *b) if m.defined is not None]
    if not masks:
        return list(a), list(b)
    common = np.logical_and.reduce(masks)
    return [m.on(common) for m in a], [m.on(common) for m in b]


def method_difference(metric: str, a: Sequence[DaySums], b: Sequence[DaySums], paired: bool = False) -> Difference:
    """Mean over seeds of b minus a. `a` and `b` hold one DaySums per seed, all over the same rows.

    A day-wise metric (rank IC) is compared on the days that all of them have; its difference is NaN under MIN_DAYS of
    these. No interval under MIN_DAYS days.

    The variance is that of the days (long-run variance of the seed-averaged influence) plus that of the seeds
    (spread of the per-seed differences, or of each side's values when not paired), with Welch-Satterthwaite
    degrees of freedom. A day-by-seed interaction is counted twice, which errs on the careful side.
    """
    a, b = on_common_days(a, b)
    n, n_days = min(m.n for m in (*a, *b)), min(m.n_days for m in (*a, *b))
    values_a, values_b = np.array([m.estimate for m in a]), np.array([m.estimate for m in b])
    with np.errstate(invalid="ignore"):  # inf - inf: no difference to speak of
        estimate = float(values_b.mean() - values_a.mean())
    common: dict[str, Any] = {
        "metric": metric,
        "n_days": n_days,
        "n": n,
        "n_seeds": max(len(a), len(b)),
        "a": _finite(values_a.mean()),
        "b": _finite(values_b.mean()),
    }
    none = Difference(difference=estimate, low=None, high=None, p_value=None, **common)
    if n_days < MIN_DAYS or not np.isfinite(estimate):
        return none
    influence = np.mean([day_influence(m) for m in b], axis=0) - np.mean([day_influence(m) for m in a], axis=0)
    if not np.isfinite(influence).all():
        return none
    of_days, dof = long_run_variance(influence)
    variance, degrees = _add_seed_variance(float(of_days), dof, _seed_variances(values_a, values_b, paired))
    low, high, p = student_interval(estimate, variance, degrees)
    return Difference(
        difference=estimate,
        low=low,
        high=high,
        p_value=p,
        standard_error=float(np.sqrt(variance)),
        dof=degrees,
        **common,
    )


def value_with_interval(metric: str, own: Sequence[DaySums]) -> Difference:
    """The metric itself, one DaySums per seed, as its difference from nothing: `a` is 0."""
    return method_difference(metric, [replace(own[0], value=lambda sums: np.zeros(sums.shape[:-1]))], own)


def _finite(x: float) -> float | None:
    return float(x) if np.isfinite(x) else None


def _seed_variances(a: Array, b: Array, paired: bool) -> list[tuple[float, int]]:
    """(variance of the mean, degrees of freedom) of each source of seed noise."""
    if paired and len(a) == len(b) > 1:
        return [(float((b - a).var(ddof=1)) / len(a), len(a) - 1)]
    return [(float(x.var(ddof=1)) / len(x), len(x) - 1) for x in (a, b) if len(x) > 1]


def _add_seed_variance(of_days: float, dof: float, seeds: list[tuple[float, int]]) -> tuple[float, float]:
    parts = [(of_days, dof), *seeds]
    total = sum(v for v, _ in parts)
    if total <= 0:
        return 0.0, float(dof)
    return total, float(total**2 / sum(v**2 / d for v, d in parts))


def day_difference(a: Forecast, b: Forecast, metric: str = "log_loss") -> Difference:
    """b minus a in `metric` with a 95 % interval and two-sided p-value over days, on the rows that both have.

    Raises:
        ValueError: an unknown metric, or forecasts that do not align.
    """
    if metric not in METRICS:
        raise ValueError(f"unknown metric {metric!r}; expected one of {sorted(METRICS)}")
    a, b, _ = align(a, b)
    return method_difference(metric, [METRICS[metric](a)], [METRICS[metric](b)])


def series_mean(metric: str, values: Array) -> Difference:
    """Mean over days of a daily series (T,), or of one per seed (S, T), NaN where a day has none; `a` is 0.

    NaN without an interval under MIN_DAYS days that every seed has.
    """
    per_seed = np.atleast_2d(values)
    known = np.isfinite(per_seed)
    own = [
        DaySums(np.stack([np.where(k, v, 0.0), k.astype(np.float64)], axis=1), ratio, k.astype(np.float64), k)
        for v, k in zip(per_seed, known, strict=True)
    ]
    return value_with_interval(metric, own)


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm-adjusted p-values (1979); None (no interval) stays None and takes no share.

    Equal to statsmodels' multipletests(method="holm"), which collects garbage for a quarter of a second per call.
    """
    known = np.array([i for i, p in enumerate(p_values) if p is not None], dtype=np.int64)
    p = np.array([p_values[i] for i in known], dtype=np.float64)
    order = np.argsort(p, kind="stable")
    stepped = np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)) if len(p) else p
    out: list[float | None] = [None] * len(p_values)
    for i, adjusted in zip(known[order], stepped, strict=True):
        out[int(i)] = min(float(adjusted), 1.0)
    return out
