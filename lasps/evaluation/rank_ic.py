"""Rank information coefficients: does the score order a day's stocks as their returns will?"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

MIN_STOCKS = 20
"""A day with fewer stocks has no rank IC (design: days with >= 20 stocks)."""
MIN_DAYS = 20
"""Fewer days carry no interval, and no mean of daily numbers: 20 days are four independent weeks (guess, not tuned)."""

Array = NDArray[np.float64]


def grouped_ranks(values: ArrayLike, groups: ArrayLike) -> Array:
    """(N,) ranks 1.. of each value within its group, ties sharing their average rank; no NaN allowed."""
    x, g = np.asarray(values, dtype=np.float64), np.asarray(groups, dtype=np.int64)
    order = np.lexsort((x, g))
    xs, gs = x[order], g[order]
    new_group = np.r_[True, gs[1:] != gs[:-1]]
    new_value = new_group | np.r_[True, xs[1:] != xs[:-1]]
    starts = np.flatnonzero(new_value)
    ends = np.r_[starts[1:], len(xs)]
    group_start = np.maximum.accumulate(np.where(new_group, np.arange(len(xs)), 0))
    # positions start..end-1, minus the group's first position, plus 1, averaged over the tie
    average = (starts + ends - 1) / 2 - group_start[starts] + 1
    ranks = np.empty(len(xs))
    ranks[order] = np.repeat(average, ends - starts)
    return ranks


def daily_rank_ic(
    score: ArrayLike, forward_return: ArrayLike, day: ArrayLike, n_days: int, min_stocks: int = MIN_STOCKS
) -> Array:
    """(n_days,) Spearman correlation of score and return within each day.

    NaN for a day with fewer than `min_stocks` rows or a constant score or return; rows with a NaN return or
    score are left out.
    """
    s, r = np.asarray(score, dtype=np.float64), np.asarray(forward_return, dtype=np.float64)
    d = np.asarray(day, dtype=np.int64)
    keep = np.isfinite(s) & np.isfinite(r)
    out = np.full(n_days, np.nan)
    if not keep.any():
        return out
    s, r, d = s[keep], r[keep], d[keep]
    n = np.bincount(d, minlength=n_days)
    middle = (n[d] + 1) / 2
    a, b = grouped_ranks(s, d) - middle, grouped_ranks(r, d) - middle
    covariance = np.bincount(d, a * b, minlength=n_days)
    variance = np.bincount(d, a * a, minlength=n_days) * np.bincount(d, b * b, minlength=n_days)
    good = (n >= min_stocks) & (variance > 0)
    out[good] = covariance[good] / np.sqrt(variance[good])
    return out


def mean_and_ratio(daily: Array) -> tuple[float | None, float | None]:
    """(rank IC, ICIR): mean over days and mean / std (ddof 1, not annualised); None under MIN_DAYS days."""
    values = daily[np.isfinite(daily)]
    if len(values) < MIN_DAYS:
        return None, None
    spread = values.std(ddof=1)
    return float(values.mean()), (float(values.mean() / spread) if spread > 0 else None)


def within_quantiles(
    score: ArrayLike, forward_return: ArrayLike, by: ArrayLike, day: ArrayLike, n_days: int, bins: int = 5
) -> list[tuple[float | None, int]]:
    """(rank IC, its days) within each of `bins` daily quantile groups of `by` (lowest first).

    That is what the score knows beyond `by`. None under MIN_DAYS days.
    """
    b, d = np.asarray(by, dtype=np.float64), np.asarray(day, dtype=np.int64)
    keep = np.isfinite(b)
    if not keep.any():
        return [(None, 0)] * bins
    s, r, b, d = np.asarray(score)[keep], np.asarray(forward_return)[keep], b[keep], d[keep]
    n = np.bincount(d, minlength=n_days)
    group = np.minimum(((grouped_ranks(b, d) - 0.5) / n[d] * bins).astype(np.int64), bins - 1)
    daily = [daily_rank_ic(s[group == k], r[group == k], d[group == k], n_days) for k in range(bins)]
    return [(mean_and_ratio(ic)[0], int(np.isfinite(ic).sum())) for ic in daily]
